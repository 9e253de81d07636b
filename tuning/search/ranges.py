"""Ranges in the terms of Optuna, which suggests, and of Ray Tune, whose populations draw anew."""

from __future__ import annotations

from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from ray import tune
from ray.tune.search.sample import Domain

from search_spaces.ranges import NumberRange, highest, nearest, without_step_warning
from search_spaces.schema import Choice, Fixed, FloatRange, IntRange, Range, SearchSpace


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """A search space in Optuna's terms; keys with one fixed value have none."""
    return {k: _distribution(r) for k, r in space.root.items() if not isinstance(r, Fixed)}


def _distribution(spec: Range) -> BaseDistribution:
    with without_step_warning():
        match spec:
            case FloatRange():
                return FloatDistribution(spec.low, spec.high, log=spec.log, step=spec.step)
            case IntRange():
                return IntDistribution(spec.low, spec.high, log=spec.log, step=spec.step)
            case Choice():
                return CategoricalDistribution(spec.choices)
    raise TypeError(f"{type(spec).__name__} is not drawn")


def holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether Optuna can be told of a trial with this value."""
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError, OverflowError):
        return False


def domain(spec: Range) -> Domain | list[Any]:
    """A range in Ray Tune's terms: a population draws anew from it, or takes a list's neighbours.

    Tune's own whole numbers leave out their upper end, and its steps are multiples of the step.
    As Optuna does, this draws from half a step below to half a step above and takes the nearest
    value, so that both ends come as often as what is between them.
    """
    match spec:
        case Choice():
            return list(spec.choices)
        case FloatRange() | IntRange():
            draw = tune.loguniform if spec.log else tune.uniform
            half = (spec.step or 0) / 2
            return _Nearest(spec, draw(spec.low - half, highest(spec) + half))
    raise TypeError(f"{type(spec).__name__} cannot be drawn from")


class _Nearest(Domain):
    """The values of a range that are nearest to what another domain draws."""

    def __init__(self, spec: NumberRange, inner: Domain) -> None:
        self._spec = spec
        self._inner = inner

    def sample(self, config: Any = None, size: int = 1, random_state: Any = None) -> Any:
        drawn = [self._inner.sample(random_state=random_state) for _ in range(size)]
        found = [nearest(self._spec, value) for value in drawn]
        return found if size > 1 else found[0]
