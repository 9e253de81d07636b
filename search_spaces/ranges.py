"""The arithmetic of ranges: which values each has, the nearest one, a point of a whole space.

`tuning.search.ranges` has the same ranges in the terms of Optuna and of Ray Tune.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Protocol

from search_spaces.schema import (
    Choice,
    Fixed,
    FloatRange,
    IntRange,
    Range,
    SearchSpace,
    number_of_steps,
)

NumberRange = FloatRange | IntRange
ROUNDING = 1e-12  # relative; what a few operations on floats may be off


class Draw(Protocol):
    """The part of an Optuna trial that a search space needs."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


def draw(space: SearchSpace, trial: Draw) -> dict[str, Any]:
    """One point of the space: keys whose condition is not met are left out."""
    params: dict[str, Any] = {}
    for key, spec in space.root.items():
        if varies(spec, params):
            params[key] = _drawn(key, spec, trial)
    return params


def _drawn(key: str, spec: Range, trial: Draw) -> Any:
    with without_step_warning():
        match spec:
            case FloatRange():
                found: Any = trial.suggest_float(
                    key, spec.low, spec.high, step=spec.step, log=spec.log
                )
            case IntRange():
                found = trial.suggest_int(key, spec.low, spec.high, step=spec.step, log=spec.log)
            case Choice():
                return trial.suggest_categorical(key, spec.choices)
            case Fixed():
                return spec.value
    return nearest(spec, found)  # samplers miss a bound or a step by a rounding


@contextmanager
def without_step_warning() -> Iterator[None]:
    """Optuna warns wherever a step leaves out `high`; `validate` and `launch` have said it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The distribution is specified by")
        yield


def varies(spec: Range, params: Mapping[str, Any]) -> bool:
    """Whether a key varies in a trial with these parameters, as its `when` wants it."""
    return all(_same(params.get(key), value) for key, value in (spec.when or {}).items())


def _same(value: Any, other: Any) -> bool:
    """Equal, or equal but for a rounding: three steps of 0.1 are 0.30000000000000004."""
    if _is_number(value) and _is_number(other):
        return value == other or math.isclose(value, other, rel_tol=ROUNDING)
    return bool(value == other)


def highest(spec: NumberRange) -> float | int:
    """The highest value of a range: `high`, or what the last step below it reaches."""
    if spec.step is None:
        return spec.high
    return type(spec.high)(Decimal(str(spec.low)) + last_step(spec) * Decimal(str(spec.step)))


def last_step(spec: NumberRange) -> int:
    """How many steps a stepped range has above `low`."""
    if spec.step is None:
        raise ValueError("the range has no steps")
    return number_of_steps(spec.low, spec.high, spec.step)


def value_at(spec: NumberRange, step: int) -> float | int:
    """The value of a stepped range after so many steps from `low`, as Optuna computes it."""
    return min(spec.low + step * (spec.step or 0), highest(spec))


def values(spec: Range) -> list[Any]:
    """Every value of a range, none of `choices: auto`; ValueError where there are no steps."""
    match spec:
        case Fixed():
            return [spec.value]
        case Choice():
            return [] if spec.choices == "auto" else list(spec.choices)
    return [value_at(spec, step) for step in range(last_step(spec) + 1)]


def extremes(spec: Range) -> list[Any]:
    """Both ends of a range of numbers; every value of another one."""
    if isinstance(spec, NumberRange):
        return [nearest(spec, spec.low), nearest(spec, spec.high)]
    return values(spec)


def nearest(spec: Range, value: Any) -> Any:
    """The value of a range that is nearest to ``value``; ValueError if it must be a number."""
    match spec:
        case Fixed():
            return spec.value
        case Choice():
            return _nearest_choice(list(spec.choices), value)
    if not _is_number(value):
        raise ValueError(f"{value!r} is not a number")
    inside = min(max(value, spec.low), highest(spec))
    if spec.step is None:
        return float(inside)
    return value_at(spec, round((inside - spec.low) / spec.step))


def _nearest_choice(choices: list[Any], value: Any) -> Any:
    """The same one, if possible of the same type (True is 1); the nearest number; the first."""
    equal = [choice for choice in choices if choice == value]
    if equal:
        return min(equal, key=lambda choice: type(choice) is not type(value))
    numbers = [choice for choice in choices if _is_number(choice)]
    if not numbers or not _is_number(value):
        return choices[0]
    inside = min(max(value, min(numbers)), max(numbers))
    return min(numbers, key=lambda number: (abs(number - inside), number))


def typed(spec: Range | None, value: Any) -> Any:
    """A value that a person wrote, in the type that its range draws: 0 and `1e-3` as floats."""
    match spec:
        case FloatRange() if value is not None:
            return float(value)
        case IntRange() if value is not None and float(value).is_integer():
            return int(float(value))
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
