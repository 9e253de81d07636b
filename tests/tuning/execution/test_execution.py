"""A trial's class gets its settings where it runs, and has a plain name there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune

from trainables.inputs.shared_inputs import SharedInputs
from tuning.config.sweep import load_sweep
from tuning.execution.cluster import Cluster
from tuning.execution.execution import ExecutionContext, trial_class
from tuning.execution.packed import say_pace


class Plain(tune.Trainable):
    """Notes what it is given."""

    def setup(self, config: dict[str, Any], settings: object) -> None:
        self.given = (config, settings)


def test_it_gets_its_settings_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[object] = []
    monkeypatch.setattr("ray.put", lambda value: stored.append(value))
    made = ray.cloudpickle.dumps(trial_class(Plain, {"a": 1}))
    assert stored == [{"a": 1}]
    monkeypatch.setattr("ray.get", lambda reference: stored[0])
    there = ray.cloudpickle.loads(made)
    trial = there.__new__(there)
    trial.setup({"number": 3})
    assert trial.given == ({"number": 3}, {"a": 1})
    assert there.__qualname__ == "Trial", "what the dashboard shows"


def test_what_is_left_is_told_by_the_first_steps(inputs: SharedInputs) -> None:
    settings = ["num_trials=8", "scheduler.type=none", "train.training.num_epochs=2"]
    said: list[str] = []
    context = ExecutionContext(
        load_sweep(None, settings), Cluster(2, False, None, False), Path(), said.append, list, 4
    )
    rows = len(inputs.train_rows) + len(inputs.val_rows) / 2
    say_pace(context, 2, inputs, 60 / rows)
    assert said == [
        "      by its first steps an epoch takes a host about 1 min 00 s; about 12 epochs, "
        "hosts: 2; so about 6 min 00 s left"
    ]
    say_pace(context, 2, inputs, 1 / rows)
    assert len(said) == 1, "of a short sweep nothing"
