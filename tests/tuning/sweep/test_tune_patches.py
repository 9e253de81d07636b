"""What is put in the place of a class of Ray's: only of the one that is known, and put back."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from ray.tune.execution.tune_controller import TuneController

from tuning.sweep.tune_patches import RetryingController, retrying_controller

# `ray.tune.tune` as an expression may be something else that Ray calls so.
MODULE = importlib.import_module("ray.tune.tune")


def test_it_stands_there_inside_the_block_only() -> None:
    with retrying_controller():
        assert MODULE.TuneController is RetryingController
    assert MODULE.TuneController is TuneController
    with pytest.raises(KeyError), retrying_controller():
        raise KeyError
    assert MODULE.TuneController is TuneController


def other_parameters(self: Any, trial: Any) -> None:
    """As another release might have it."""


def no_attributes(self: Any) -> None:
    """As another release might have it."""


@pytest.mark.parametrize(
    ("owner", "name", "value", "said"),
    [
        (MODULE, "TuneController", None, "`ray.tune.tune.TuneController` is None"),
        (TuneController, "_trial_task_failure", other_parameters, "has other parameters"),
        (TuneController, "__init__", no_attributes, "has no `_resetting_trials`"),
    ],
)
def test_what_is_not_known_is_left_alone(
    owner: Any, name: str, value: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, value)
    before = MODULE.TuneController
    with pytest.raises(RuntimeError, match=said), retrying_controller():
        raise AssertionError("the block must not begin")
    assert MODULE.TuneController is before
