"""The dedicated execution: a Tune trial that drives one Ray Train run of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.actor import ActorHandle

from trainables.config import PretrainConfig
from trainables.training.checkpoint_files import copy_checkpoint
from trainables.training.reports import Report
from trainables.workers.dedicated import WorkerSettings
from tuning.config.space import with_params
from tuning.execution.train_run import TrainRun
from tuning.tune_edge import to_result


@dataclass(frozen=True)
class TrialSettings:
    """What all trials of a sweep have in common."""

    config: PretrainConfig
    inputs: ray.ObjectRef
    mailbox: ActorHandle
    workers: int
    train_runs: Path


class DedicatedTrial(tune.Trainable):
    """Each step is an epoch; checkpoint and restore are real, so that every scheduler works."""

    def setup(self, config: dict[str, Any], settings: TrialSettings) -> None:
        self._settings = settings
        self._name = self.trial_name
        self._params = config["params"]
        self._run: TrainRun | None = None
        self._reports: Iterator[tuple[Report, str | None]] = iter(())
        self._checkpoint: str | None = config.get("start")
        self._inherited = False

    def __repr__(self) -> str:
        """The name that Ray's dashboard and logs show for the actor."""
        return self._name

    def step(self) -> dict[str, Any]:
        if self._run is None:
            self._start()
        report, checkpoint = next(self._reports)
        self._checkpoint = checkpoint or self._checkpoint
        return to_result(report, checkpoint=checkpoint is not None)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        if self._checkpoint is not None:
            copy_checkpoint(Path(self._checkpoint), Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint: str | None) -> None:
        """The directory is only lent for the call: keep a copy until the workers have read it."""
        if checkpoint is None or not any(Path(checkpoint).iterdir()):
            return
        self._close()
        start = self._settings.train_runs / f"{self._name}-start"
        shutil.rmtree(start, ignore_errors=True)
        copy_checkpoint(Path(checkpoint), start)
        self._checkpoint = str(start)
        self._inherited = Path(checkpoint).parent.name != self._name

    def cleanup(self) -> None:
        self._close()
        shutil.rmtree(self._settings.train_runs / f"{self._name}-start", ignore_errors=True)

    def _start(self) -> None:
        common = self._settings
        config = with_params(common.config, self._params, self._name)
        settings = WorkerSettings(config, common.inputs, self._checkpoint, self._inherited)
        self._run = TrainRun(
            settings, self._name, common.train_runs, common.workers, common.mailbox
        )
        self._reports = self._run.reports()

    def _close(self) -> None:
        if self._run is not None:
            self._run.close()
            self._run = None
