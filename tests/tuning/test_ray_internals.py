"""Ray has the private names that the tuning uses; what is replaced is only what is known."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.ray_names import TUNING, PrivateName, problem

SEEN_IN = "tuning/ray_internals.py"


@pytest.mark.parametrize("wanted", TUNING, ids=str)
def test_ray_has_the_name(wanted: PrivateName) -> None:
    if said := problem(wanted, SEEN_IN):
        pytest.fail(said)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (PrivateName("ray.gone", "Name"), "has no `ray.gone.Name`; see tuning/ray_internals.py"),
        (PrivateName("ray.tune", "Trainable._gone"), "has no `ray.tune.Trainable._gone`; see"),
        (PrivateName("ray.tune", "Trainable.step", ("self", "x")), "with the parameters"),
    ],
    ids=str,
)
def test_what_ray_lacks_is_told_by_its_name(wanted: PrivateName, said: str) -> None:
    assert said in problem(wanted, SEEN_IN)


def test_a_trial_is_named_and_keeps_no_running_means(tmp_path: Path) -> None:
    from ray.tune.experiment import Trial

    from tuning.ray_internals import keep_no_running_means, name_directory

    trial = Trial("x", stub=True, trial_name_creator=lambda trial: "trial_0003")
    trial.storage = SimpleNamespace()
    name_directory(trial)
    assert (trial.relative_logdir, trial.storage.trial_dir_name) == ("trial_0003", "trial_0003")
    keep_no_running_means(trial)
    trial.run_metadata.update_metric("val_loss", 1.0)
    assert trial.metric_n_steps == {"val_loss": {}}


# `ray.tune.tune` as an expression may be something else that Ray calls so.
MODULE = importlib.import_module("ray.tune.tune")
CONTROLLER = MODULE.TuneController


def test_another_controller_stands_there_inside_the_block_only() -> None:
    from tuning.ray_internals import RetryingController, retrying_controller

    with retrying_controller():
        assert MODULE.TuneController is RetryingController
    assert MODULE.TuneController is CONTROLLER
    with pytest.raises(KeyError), retrying_controller():
        raise KeyError
    assert MODULE.TuneController is CONTROLLER


def other_parameters(self: Any, trial: Any) -> None:
    """As another release might have it."""


def no_attributes(self: Any) -> None:
    """As another release might have it."""


@pytest.mark.parametrize(
    ("owner", "name", "value", "said"),
    [
        (MODULE, "TuneController", None, "`ray.tune.tune.TuneController` is None"),
        (CONTROLLER, "_trial_task_failure", other_parameters, "has other parameters"),
        (CONTROLLER, "__init__", no_attributes, "has no `_resetting_trials`"),
    ],
)
def test_a_controller_that_is_not_known_is_left_alone(
    owner: Any, name: str, value: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuning.ray_internals import retrying_controller

    monkeypatch.setattr(owner, name, value)
    before = MODULE.TuneController
    with pytest.raises(RuntimeError, match=said), retrying_controller():
        raise AssertionError("the block must not begin")
    assert MODULE.TuneController is before
