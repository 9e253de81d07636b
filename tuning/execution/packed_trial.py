"""The packed execution: a light Tune trial whose epochs are trained in a lane of the fleet.

Nothing here imports torch; a process of this is all that a trial has of its own.
"""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.actor import ActorHandle

from trainables.config import PretrainConfig
from trainables.errors import TrialEndedError
from trainables.metrics import scalars
from trainables.packing.protocol import Assignment
from trainables.statuses import Status
from trainables.training.checkpoint_files import copy_checkpoint
from trainables.training.reports import EpochReport, Report
from tuning.config.space import with_params
from tuning.ray_internals import last_result, saved_in_place, trial_directory
from tuning.tune_edge import to_result

START_DIR = "start"


@dataclass(frozen=True)
class PackedSettings:
    """What all trials of a sweep have in common."""

    config: PretrainConfig
    switchboard: ActorHandle


class PackedTrial(tune.Trainable):
    """Each step is an epoch; checkpoint and restore are real, so that every scheduler works.

    The lane writes the checkpoints where Tune keeps them: naming one is all there is to saving.
    """

    def setup(self, config: dict[str, Any], settings: PackedSettings) -> None:
        self._settings = settings
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up another trial, or this one with other parameters."""
        if hasattr(self, "_name"):
            self._leave()
        self._name = self.trial_name
        self._key = f"{self._name}-{uuid.uuid4().hex}"
        self._params = new_config["params"]
        self._directory = trial_directory(self)
        self._started = False
        start = new_config.get("start")
        self._checkpoint: Path | None = Path(start) if start else None
        self._inherited = False
        self._named: set[Path] = set()
        return True

    def __repr__(self) -> str:
        """The name that Ray's dashboard and logs show for the actor."""
        return self._name

    def step(self) -> dict[str, Any]:
        assignment = None if self._started else self._assignment()
        self._started = True
        board = self._settings.switchboard
        report: Report = ray.get(board.train.remote(self._key, self._name, assignment))
        if report.status == Status.FAILED:
            raise TrialEndedError(report.message)
        saved = report.checkpoint if isinstance(report, EpochReport) else None
        if saved is not None:
            self._checkpoint = Path(saved)
        return to_result(report, checkpoint=saved is not None)

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """The newest checkpoint under a path of its own, because Tune deletes them by path."""
        if self._checkpoint is None:
            return super().save(checkpoint_dir)
        path = self._checkpoint
        if path in self._named:
            path = path.with_name(f"{path.name}_{len(self._named)}")
            copy_checkpoint(self._checkpoint, path)
        self._named.add(path)
        figures = {**scalars(last_result(self)), "training_iteration": self.iteration}
        return saved_in_place(path, figures)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing has been trained yet: the empty directory says so."""

    def load_checkpoint(self, checkpoint: str | None) -> None:
        """The directory is only lent for the call: keep a copy until the lane has read it."""
        if checkpoint is None or not any(Path(checkpoint).iterdir()):
            return
        source = Path(checkpoint)
        self._inherited = source.parent.name != self._directory.name
        self._checkpoint = self._directory / START_DIR
        if source != self._checkpoint:
            copy_checkpoint(source, self._checkpoint)
        self._key = f"{self._name}-{uuid.uuid4().hex}"
        self._started = False

    def cleanup(self) -> None:
        self._leave()

    def _leave(self) -> None:
        ray.get(self._settings.switchboard.release.remote(self._key))
        shutil.rmtree(self._directory / START_DIR, ignore_errors=True)

    def _assignment(self) -> Assignment:
        return Assignment(
            with_params(self._settings.config, self._params, self._name),
            str(self._directory),
            str(self._checkpoint) if self._checkpoint else None,
            self._inherited,
        )
