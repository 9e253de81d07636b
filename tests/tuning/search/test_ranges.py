"""Ranges as Optuna and Ray Tune have them: the same values, both ends included."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from ray.tune.search.sample import Domain

from search_spaces.ranges import (
    NumberRange,
    draw,
    extremes,
    highest,
    last_step,
    nearest,
    value_at,
    values,
)
from search_spaces.schema import Choice, Fixed, FloatRange, IntRange, Range, SearchSpace
from tests.search_spaces.made_ranges import MADE, is_value, number_ranges, ranges
from tuning.search.ranges import distributions, domain, holds

TENTHS = FloatRange(type="float", low=0, high=0.5, step=0.3)
BY_FIVE = IntRange(type="int", low=1, high=9, step=5)
TWO = IntRange(type="int", low=7, high=8)


def distribution(spec: Range) -> BaseDistribution:
    return distributions(SearchSpace({"key": spec}))["key"]


def tune_domain(spec: Range) -> Domain:
    found = domain(spec)
    assert isinstance(found, Domain)
    return found


class Ends(np.random.Generator):
    """Draws always one end, which Tune may only come near to."""

    def __init__(self, high: bool) -> None:
        super().__init__(np.random.PCG64(0))
        self._high = high

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return np.full(size, high if self._high else low)


@given(number_ranges)
def test_optuna_has_the_bounds_of_the_range(made: MADE) -> None:
    spec = made[1]
    found = distribution(spec)
    assert isinstance(spec, NumberRange)
    assert isinstance(found, FloatDistribution | IntDistribution)
    assert (found.low, found.high) == (spec.low, highest(spec))
    assert (found.step, found.log) == (spec.step, spec.log)


@given(number_ranges, st.floats(allow_nan=False) | st.integers(), st.integers(0, 300))
def test_optuna_holds_every_value(made: MADE, value: float, step: int) -> None:
    spec = made[1]
    found = distribution(spec)
    assert isinstance(spec, NumberRange)
    assert all(holds(found, end) for end in extremes(spec))
    assert holds(found, nearest(spec, value))
    if spec.step is not None:
        assert holds(found, value_at(spec, step % (last_step(spec) + 1)))


@pytest.mark.filterwarnings("ignore::RuntimeWarning:optuna.*")  # of what is nearly impossible
@given(ranges, st.integers(0, 99))
def test_optuna_holds_what_it_draws(made: MADE, seed: int) -> None:
    key, spec = made
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=1))
    for loss in (1.0, 0.0):
        trial = study.ask()
        drawn = draw(SearchSpace({key: spec}), trial)[key]
        study.tell(trial, loss)
        assert is_value(made, drawn)
        assert holds(distribution(spec), drawn)


def test_optuna_does_not_hold_other_values() -> None:
    found = distribution(TENTHS)
    assert [holds(found, v) for v in (0.6, 0.5, 0.1, None, "x", 10**400)] == [False] * 6
    found = distribution(BY_FIVE)
    assert [holds(found, v) for v in (0, 2, 6.5, 11, None, 10**400)] == [False] * 6
    assert not holds(distribution(Choice(type="choice", choices=[1, 2])), 3)


def test_a_fixed_value_has_no_distribution_and_no_domain() -> None:
    fixed = Fixed(type="fixed", value=1)
    assert distributions(SearchSpace({"key": fixed})) == {}
    with pytest.raises(TypeError, match="Fixed cannot be drawn from"):
        domain(fixed)


@given(number_ranges, st.integers(0, 99))
def test_tune_draws_only_values_of_the_range(made: MADE, seed: int) -> None:
    spec = made[1]
    drawn = tune_domain(spec).sample(size=3, random_state=np.random.default_rng(seed))
    assert all(is_value(made, value) for value in drawn)
    assert all(holds(distribution(spec), value) for value in drawn)


@given(number_ranges)
def test_tune_can_draw_both_ends(made: MADE) -> None:
    spec = made[1]
    found = [tune_domain(spec).sample(random_state=Ends(high)) for high in (False, True)]
    assert all(is_value(made, value) for value in found)
    assert found == pytest.approx(extremes(spec), rel=1e-12)
    if not spec.log:
        assert found == extremes(spec)


def test_a_choice_is_a_list_to_tune() -> None:
    assert domain(Choice(type="choice", choices=[1, 2, 4])) == [1, 2, 4]


@pytest.mark.parametrize("spec", [TENTHS, BY_FIVE, TWO, TWO.model_copy(update={"log": True})])
def test_tune_draws_every_step_about_as_often(spec: Range) -> None:
    drawn = tune_domain(spec).sample(size=400, random_state=np.random.default_rng(0))
    assert set(drawn) == set(values(spec))
    assert all(150 < drawn.count(value) < 250 for value in values(spec))


def test_whole_numbers_are_drawn_by_their_logarithm_where_the_range_says_so() -> None:
    """Of 1 to 1000 the lower 31 are half of the decades; evenly they would be 3 %."""
    even = IntRange(type="int", low=1, high=1000)
    for spec, least, most in ((even, 0, 40), (even.model_copy(update={"log": True}), 400, 600)):
        drawn = tune_domain(spec).sample(size=1000, random_state=np.random.default_rng(0))
        assert least < sum(value <= 31 for value in drawn) < most
