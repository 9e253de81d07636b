"""What a range holds: its ends, its steps, the nearest value; what is drawn from a space."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.ranges import (
    NumberRange,
    draw,
    extremes,
    highest,
    last_step,
    nearest,
    typed,
    value_at,
    values,
    varies,
)
from search_spaces.schema import Choice, Fixed, FloatRange, IntRange, Range, SearchSpace
from tests.search_spaces.made_ranges import MADE, is_value, number_ranges, ranges
from tests.search_spaces.test_schema import Extremes

TENTHS = FloatRange(type="float", low=0, high=0.5, step=0.3)
BY_FIVE = IntRange(type="int", low=1, high=9, step=5)
BY_EIGHT = IntRange(type="int", low=8, high=64, step=8)
ODD_STEP = FloatRange(type="float", low=0.1, high=10, step=0.3333333333333333)
ANYTHING = st.floats(allow_nan=False) | st.integers() | st.sampled_from([10**400, -(10**400)])


def floats(low: float, high: float, **shape: Any) -> FloatRange:
    return FloatRange(type="float", low=low, high=high, **shape)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (TENTHS, [0, 0.3]),
        (BY_FIVE, [1, 6]),
        (floats(0, 0.5, step=0.2), [0, 0.2, 0.4]),
        (floats(0.1, 0.3, step=0.2), [0.1, 0.3]),
        (floats(0, 0.3, step=0.1), [0, 0.1, 0.2, 0.3]),
        (IntRange(type="int", low=2, high=4), [2, 3, 4]),
        (Choice(type="choice", choices=[4, None, "a"]), [4, None, "a"]),
        (Choice(type="choice", choices="auto"), []),
        (Fixed(type="fixed", value=3), [3]),
    ],
)
def test_the_values_of_a_range(spec: Range, expected: list[Any]) -> None:
    assert values(spec) == expected


def test_the_steps_of_one_are_eleven_and_end_at_one() -> None:
    spec = floats(0, 1, step=0.1)
    assert values(spec) == pytest.approx([i / 10 for i in range(11)], abs=1e-15)
    assert (len(values(spec)), values(spec)[-1]) == (11, 1.0)


def test_a_range_without_steps_lists_no_values() -> None:
    with pytest.raises(ValueError, match="no steps"):
        values(floats(0, 1))


@pytest.mark.parametrize(
    ("spec", "value", "expected"),
    [
        (floats(1e-4, 1e-2, log=True), 0.5, 1e-2),
        (floats(0, 0.5, step=0.2), 0.5, 0.4),
        (BY_EIGHT, 21, 24),
        (Choice(type="choice", choices=[1, 2, 4, 8]), 16, 8),
        (Choice(type="choice", choices=[True, False]), False, False),
        (Choice(type="choice", choices=["cosine", "linear"]), "constant", "cosine"),
    ],
)
def test_the_nearest_value_of_a_range(spec: Range, value: Any, expected: Any) -> None:
    assert nearest(spec, value) == expected


@pytest.mark.parametrize(
    ("spec", "value", "expected"),
    [
        (TENTHS, 0.6, 0.3),
        (BY_FIVE, 11, 6),
        (BY_FIVE, 9, 6),
        (BY_FIVE, 2.5, 1),
        (BY_FIVE, 10**400, 6),
        (floats(0, 0.3, step=0.1), 0.30000000000000004, 0.3),
        (floats(1e-5, 1e-2, log=True), 0.010000000000000002, 0.01),
        (floats(0, 0.5), -1e-17, 0.0),
        (floats(0, 2), 1, 1.0),
        (IntRange(type="int", low=1, high=8), 4.0, 4),
        (Choice(type="choice", choices=[False, True]), 1, True),
        (Choice(type="choice", choices=[1, True]), True, True),
        (Choice(type="choice", choices=[1, True]), 1, 1),
        (Choice(type="choice", choices=[0.5, 4]), 10**400, 4),
        (Choice(type="choice", choices=[0.5, 4]), float("inf"), 4),
        (Choice(type="choice", choices=[0.0, 0.1]), -0.0, 0.0),
        (Choice(type="choice", choices=[0.5, None]), None, None),
    ],
)
def test_the_nearest_value_has_the_type_of_its_range(
    spec: Range, value: Any, expected: Any
) -> None:
    found = nearest(spec, value)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("value", [None, "0.1", True, float("nan"), [1]])
def test_only_a_number_is_near_to_numbers(value: Any) -> None:
    with pytest.raises(ValueError, match="not a number"):
        nearest(TENTHS, value)


@given(number_ranges, ANYTHING)
def test_the_nearest_value_is_one_and_stays_itself(made: MADE, value: float) -> None:
    spec = made[1]
    found = nearest(spec, value)
    assert is_value(made, found)
    assert nearest(spec, found) == found
    assert extremes(spec)[0] <= found <= extremes(spec)[1]


@given(number_ranges)
def test_both_ends_are_values(made: MADE) -> None:
    spec = made[1]
    assert isinstance(spec, NumberRange)
    low, high = extremes(spec)
    assert is_value(made, low)
    assert is_value(made, high)
    assert low == spec.low
    assert high == pytest.approx(highest(spec), rel=1e-12)
    if spec.step is None:
        assert high == spec.high
    else:
        assert high > spec.high - spec.step * (1 + 1e-8)


@given(number_ranges, st.integers(0, 300))
def test_every_step_is_its_own_nearest_value(made: MADE, step: int) -> None:
    spec = made[1]
    if isinstance(spec, NumberRange) and spec.step is not None:
        value = value_at(spec, step % (last_step(spec) + 1))
        assert is_value(made, value)
        assert nearest(spec, value) == value


@given(ranges, st.integers(0, 99))
def test_what_is_drawn_is_a_value(made: MADE, seed: int) -> None:
    key, spec = made
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    drawn = draw(SearchSpace({key: spec}), study.ask())[key]
    assert is_value(made, drawn)
    if isinstance(spec, NumberRange):
        assert drawn == nearest(spec, drawn)


@given(ranges)
def test_whatever_a_sampler_answers_at_an_end_is_brought_onto_a_value(made: MADE) -> None:
    key, spec = made
    ends = [draw(SearchSpace({key: spec}), Extremes(high))[key] for high in (False, True)]
    assert all(is_value(made, end) for end in ends)
    if isinstance(spec, NumberRange):
        assert ends == extremes(spec)


@pytest.mark.parametrize("spec", [TENTHS, BY_FIVE, IntRange(type="int", low=3, high=4)])
def test_both_ends_of_steps_are_drawn(spec: Range) -> None:
    """Optuna's warning of an upper bound on no step would be an error here."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = SearchSpace({"key": spec})
    assert {draw(space, study.ask())["key"] for _ in range(40)} == set(values(spec))


def test_a_condition_is_met_by_a_value_that_differs_by_a_rounding() -> None:
    spec = Fixed(type="fixed", value=1, when={"model.dropout": 0.3})
    assert value_at(floats(0, 0.5, step=0.1), 3) != 0.3
    assert varies(spec, {"model.dropout": value_at(floats(0, 0.5, step=0.1), 3)})
    assert not varies(spec, {"model.dropout": 0.2})
    assert not varies(spec, {})
    exact = Fixed(type="fixed", value=1, when={"training.seed": 2**31 - 1})
    assert not varies(exact, {"training.seed": 2**31 - 2})


@pytest.mark.parametrize(
    ("spec", "written", "expected"),
    [
        (TENTHS, 0, 0.0),
        (TENTHS, "1e-3", 0.001),
        (TENTHS, None, None),
        (BY_FIVE, 8.0, 8),
        (BY_FIVE, "8", 8),
        (BY_FIVE, 2.5, 2.5),
        (Choice(type="choice", choices=["1e-3"]), "1e-3", "1e-3"),
        (None, 0, 0),
    ],
)
def test_what_a_person_wrote_gets_the_type_of_its_range(
    spec: Range | None, written: Any, expected: Any
) -> None:
    found = typed(spec, written)
    assert (found, type(found)) == (expected, type(expected))
