"""A population's parameters stay values of their ranges, however they are changed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.schema import Choice, FloatRange, IntRange, Range, SearchSpace
from tests.search_spaces.made_ranges import MADE, is_value, ranges
from tuning.config.space import CHANGEABLE
from tuning.config.sweep import PBT, load_sweep
from tuning.search.ranges import distributions, holds
from tuning.search.schedulers import make_scheduler

DROPOUT = "model.dropout"
HEADS = "model.num_attention_heads"


def changed(
    space: dict[str, Range], params: dict[str, Any], resample: float = 0.0
) -> dict[str, Any]:
    """What a trial gets that takes over another one's parameters."""
    pbt = PBT(type="pbt", resample_probability=resample)
    population: Any = make_scheduler(pbt, 30, SearchSpace(space), "val_loss", "min")
    other = SimpleNamespace(config={"number": 1, "params": params})
    config, _ = population._get_new_config(SimpleNamespace(config={}), other)
    assert config["number"] == 1
    found: dict[str, Any] = config["params"]
    return found


@pytest.mark.parametrize(
    ("key", "spec", "value", "expected"),
    [
        (DROPOUT, FloatRange(type="float", low=0, high=0.5, step=0.3), 0.5, {0.3}),
        (DROPOUT, FloatRange(type="float", low=0, high=0.3, step=0.1), 0.3, {0.2, 0.3}),
        (DROPOUT, FloatRange(type="float", low=0, high=0.5), 0.5, {0.4, 0.5}),
        (HEADS, IntRange(type="int", low=1, high=9, step=5), 9, {6}),
        (HEADS, IntRange(type="int", low=1, high=8), 8, {6, 8}),
        (HEADS, Choice(type="choice", choices=[1, 2, 4]), 4, {2, 4}),
    ],
)
def test_a_perturbed_value_stays_in_its_range(
    key: str, spec: Range, value: Any, expected: set[Any]
) -> None:
    found = {changed({key: spec}, {key: value, "training.seed": 3})[key] for _ in range(30)}
    assert found == expected


def test_what_may_not_change_is_taken_over() -> None:
    space = {
        DROPOUT: FloatRange(type="float", low=0, high=0.5),
        "training.batch_size": IntRange(type="int", low=8, high=64, step=8),
    }
    found = changed(space, {DROPOUT: 0.1, "training.batch_size": 8})
    assert found["training.batch_size"] == 8
    assert found[DROPOUT] != 0.1


@given(ranges.filter(lambda made: made[0] in CHANGEABLE), st.integers(0, 3), st.booleans())
def test_whatever_a_population_tries_is_a_value(made: MADE, steps: int, anew: bool) -> None:
    key, spec = made
    value = spec.choices[0] if isinstance(spec, Choice) else spec.low
    distribution = distributions(SearchSpace({key: spec}))[key]
    for _ in range(steps + 1):
        value = changed({key: spec}, {key: value}, resample=float(anew))[key]
        assert is_value(made, value)
        assert holds(distribution, value)


def test_a_first_point_of_whole_numbers_is_perturbed_like_any_other() -> None:
    """Ray keeps to whole numbers where a trial began with one, and multiplies texts."""
    overrides = [
        "search_space={training.weight_decay: {type: float, low: 0, high: 1}, "
        "training.learning_rate: {type: float, low: 1.0e-5, high: 1.0e-2, log: true}}",
        "warm_start=[{training.weight_decay: 1, training.learning_rate: 1e-3}]",
    ]
    config = load_sweep(None, overrides)
    found = changed(config.search_space.root, config.warm_start[0])
    assert found["training.weight_decay"] in (0.8, 1.0)
    assert found["training.learning_rate"] in (pytest.approx(8e-4), pytest.approx(1.2e-3))
    assert {type(value) for value in found.values()} == {float}
