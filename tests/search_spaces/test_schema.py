"""Search spaces: presets are valid, bounds are inclusive, mistakes are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

import search_spaces
from search_spaces.ranges import draw, extremes
from search_spaces.schema import SearchSpace
from trainables.config import DEFAULT_CONFIG, PretrainConfig, load_config
from trainables.errors import ConfigError
from trainables.yaml_config import build
from tuning.config.space import check_space

PRESETS = sorted(Path(search_spaces.__file__).parent.glob("*.yaml"))
FLOAT = {"type": "float", "low": 0.0, "high": 0.5}
BOTH = {"type": "choice", "choices": ["gated_fusion", "embedding_attention"]}


def checked(mapping: dict[str, Any], config: PretrainConfig | None = None) -> SearchSpace:
    space = build(SearchSpace, mapping, "space")
    return check_space(space, config or load_config(DEFAULT_CONFIG), "space")


@pytest.mark.parametrize("path", PRESETS, ids=lambda p: p.name)
def test_every_preset_fits_the_default_training(path: Path) -> None:
    space = checked(yaml.safe_load(path.read_text()))
    trial = optuna.create_study().ask()
    drawn = draw(space, trial)
    met = {
        key
        for key, spec in space.root.items()
        if all(drawn.get(other) == value for other, value in (spec.when or {}).items())
    }
    assert set(drawn) == met


def test_presets_search_what_they_promise() -> None:
    found = {path.stem: set(yaml.safe_load(path.read_text())) for path in PRESETS}
    default = {"training.learning_rate", "model.dropout", "model.num_attention_heads"}
    assert found["default"] == default
    assert found["quick"] < found["wide"] | default
    assert found["wide"] > default


class Extremes:
    """Answers every question with one end of the range."""

    def __init__(self, high: bool) -> None:
        self.high = high

    def suggest_float(self, name: str, low: float, high: float, **options: Any) -> float:
        return high if self.high else low

    def suggest_int(self, name: str, low: int, high: int, **options: Any) -> int:
        return high if self.high else low

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        return choices[-1 if self.high else 0]


@pytest.mark.parametrize("high", [False, True])
def test_both_bounds_are_inclusive(high: bool) -> None:
    space = checked(
        {
            "training.warmup_ratio": FLOAT,
            "training.batch_size": {"type": "int", "low": 8, "high": 9},
            "model.normalize": {"type": "choice", "choices": [False, True]},
            "training.weight_decay": {"type": "fixed", "value": 0.1},
        }
    )
    ends = [0.5, 9, True, 0.1] if high else [0.0, 8, False, 0.1]
    assert list(draw(space, Extremes(high)).values()) == ends
    trials = [optuna.create_study().ask() for _ in range(40)]
    assert {draw(space, trial)["training.batch_size"] for trial in trials} == {8, 9}


def test_a_bound_on_no_step_needs_no_training() -> None:
    """Five heads do not divide the hidden size, a dropout of 1 drops everything: never drawn."""
    space = checked(
        {
            "model.num_attention_heads": {"type": "int", "low": 2, "high": 5, "step": 2},
            "model.dropout": {"type": "float", "low": 0, "high": 1, "step": 0.3},
        }
    )
    assert [extremes(spec) for spec in space.root.values()] == [[2, 4], [0, pytest.approx(0.9)]]


def test_a_step_as_wide_as_its_range_fits_whatever_floats_say() -> None:
    space = checked({"model.dropout": {"type": "float", "low": 0.1, "high": 0.3, "step": 0.2}})
    assert 0.3 - 0.1 < 0.2
    assert extremes(space.root["model.dropout"]) == [0.1, 0.3]


def test_auto_heads_divide_the_hidden_size() -> None:
    space = checked({"model.num_attention_heads": {"type": "choice", "choices": "auto"}})
    choices = extremes(space.root["model.num_attention_heads"])
    assert choices == [1, 2, 4, 8, 16]


def test_a_condition_leaves_a_key_out() -> None:
    mapping = {
        "model.normalize": {"type": "choice", "choices": [False, True]},
        "training.gate_lr_multiplier": {**FLOAT, "when": {"model.normalize": True}},
    }
    assert list(draw(checked(mapping), Extremes(high=False))) == ["model.normalize"]
    assert len(draw(checked(mapping), Extremes(high=True))) == 2


def test_what_belongs_to_the_gate_varies_only_where_there_is_one() -> None:
    gated = {"when": {"model.architecture": "gated_fusion"}}
    mapping = {
        "model.architecture": BOTH,
        "model.d_resource": {"type": "int", "low": 16, "high": 64, **gated},
        "training.gate_lr_multiplier": {**FLOAT, **gated},
    }
    earlier = load_config(DEFAULT_CONFIG, ["model.architecture=embedding_attention"])
    for config in (None, earlier):
        space = checked(mapping, config)
        assert list(draw(space, Extremes(high=True))) == ["model.architecture"]
        drawn = draw(space, Extremes(high=False))
        assert drawn["model.d_resource"] == 16
        assert len(drawn) == 3


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            {"model.architecture": BOTH, "training.gate_lr_multiplier": FLOAT},
            "`training.gate_lr_multiplier` has no effect where `model.architecture` is embedding_a",
        ),
        (
            {"model.architecture": BOTH, "model.d_resource": {"type": "fixed", "value": 64}},
            "`model.d_resource` has no effect where",
        ),
        ({}, "empty"),
        ({"model.dropuot": FLOAT}, "`model.dropuot` cannot be searched (did you mean `model.drop"),
        ({"model.llm_model": {"type": "fixed", "value": "x"}}, "cannot be searched"),
        ({"model.dropout": {"type": "flaot", "low": 0, "high": 1}}, "did you mean `float`"),
        ({"model.dropout": {"type": "float", "low": 0.4, "high": 0.1}}, "`low` is 0.4"),
        ({"model.dropout": {"type": "float", "low": 0.0, "high": 1.5}}, "less than 1"),
        ({"model.dropout": {**FLOAT, "log": True}}, "above 0 where `log` is true"),
        ({"model.dropout": {**FLOAT, "step": 0.6}}, "at most `high` - `low`, 0.5"),
        (
            {"model.dropout": {**FLOAT, "step": 1e-12}},
            "`step` is 1e-12, but must be at least 5e-08",
        ),
        (
            {"training.max_grad_norm": {"type": "float", "low": 1, "high": 1e308, "step": 8e307}},
            "`high` is 1e+308, too far from `low`, 1.0, to be reckoned with",
        ),
        (
            {"training.max_grad_norm": {"type": "int", "low": 1, "high": 10**30}},
            "but must be less than or equal to 9007199254740992",
        ),
        (
            {"training.max_grad_norm": {"type": "int", "low": 0, "high": 10**400, "step": 10**401}},
            "but must be less than or equal to 9007199254740992",
        ),
        ({"model.dropout": {**FLOAT, "hihg": 1}}, "unknown key"),
        ({"model.dropout": {"type": "choice", "choices": []}}, "at least one value"),
        ({"model.dropout": {"type": "choice", "choices": "auto"}}, "list the choices"),
        (
            {"model.num_attention_heads": {"type": "choice", "choices": [4, 7]}},
            "is 7, but must divide the LLM's hidden size 128",
        ),
        (
            {"model.num_attention_heads": {"type": "int", "low": 2, "high": 4}},
            "is 3, but must divide",
        ),
        (
            {"training.batch_size": {"type": "float", "low": 8, "high": 16}},
            "`training.batch_size` takes whole numbers; use `type: int`",
        ),
        ({"training.num_epochs": {"type": "fixed", "value": 3}}, "cannot be searched"),
        (
            {"model.dropout": {**FLOAT, "when": {"model.normalize": True}}},
            "depends on `model.normalize`, which must stand before it",
        ),
    ],
)
def test_mistakes_are_named(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, Exception)) as caught:
        checked(mapping)
    assert message in str(caught.value)
