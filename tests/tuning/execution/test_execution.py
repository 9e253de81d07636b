"""A trial's class gets its settings where it runs, and has a plain name there."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from ray import tune

from tuning.execution.execution import trial_class


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
