"""A trial whose process dies while it is handed over from another one; on a real Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune

from tuning.ray_internals import retrying_controller

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class Handed(tune.Trainable):
    """Processes die when they are handed over to trial 2, as many as are wanted."""

    def setup(self, config: dict[str, Any]) -> None:
        pass

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        marks = Path(new_config["marks"])
        if new_config["number"] == 2 and len(list(marks.iterdir())) < new_config["deaths"]:
            (marks / str(os.getpid())).touch()
            os._exit(1)
        return True

    def step(self) -> dict[str, Any]:
        return {"done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        pass

    def load_checkpoint(self, checkpoint: Any) -> None:
        pass


@pytest.mark.parametrize("deaths", [1, 9])
def test_it_is_retried(deaths: int, tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    config = {"deaths": deaths, "marks": str(tmp_path / "marks")}
    with retrying_controller():
        analysis = tune.run(
            Handed,
            config={**config, "number": tune.grid_search([0, 1, 2, 3])},
            reuse_actors=True,
            max_failures=2,
            max_concurrent_trials=1,
            raise_on_failed_trial=False,
            storage_path=str(tmp_path / "tune"),
            verbose=0,
        )
    assert [trial.status for trial in analysis.trials] == ["TERMINATED"] * 4
    assert [trial.num_failures for trial in analysis.trials] == [0, 0, 1, 0]
