"""Where an interrupted sweep stands: what is over, what goes on, and from which checkpoint.

The history decides, not what Ray Tune remembers: its snapshots are older than the last results.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

from trainables.config import TrainingConfig
from trainables.errors import CheckpointError
from trainables.statuses import Status
from trainables.training.checkpoint_files import checkpoints, read_meta, remove_checkpoints
from trainables.training.diagnosis import GATE_STUCK
from tuning.config.space import CHANGEABLE
from tuning.history.record import EventKind, TrialRecord
from tuning.search.ray_searcher import Start
from tuning.sweep.running import RunningSweep

_log = logging.getLogger(__name__)


class Found(NamedTuple):
    """A whole checkpoint and what it says of itself."""

    path: Path
    meta: dict[str, Any]


def take_up(sweep: RunningSweep, *, retry_failed: bool) -> list[Start]:
    """The trials that go on, by number; the endings that were not written down any more are.

    A trial goes on from its newest whole checkpoint among those that the history knows of; what
    came after is forgotten.
    """
    starts = []
    for trial in sweep.record.ordered():
        folder = sweep.trials / trial.trial_id
        if trial.ended is not None and not (retry_failed and trial.status == Status.FAILED):
            if trial.checkpoint_removed:  # and perhaps killed before that was done
                remove_checkpoints(folder)
            continue
        found = _newest(folder, trial.epoch)
        if _has_ended(sweep, trial, found):
            continue
        _go_back(sweep, trial, found)
        checkpoint = found.path if found else None
        starts.append(Start(trial.number, trial.params, checkpoint))
        # What lies beside it is of epochs that are forgotten, or half-written.
        remove_checkpoints(folder, keep=checkpoint)
    return starts


def _has_ended(sweep: RunningSweep, trial: TrialRecord, found: Found | None) -> bool:
    """Whether it had nothing left to train; then the history is told of its end."""
    ending = _ending(trial, sweep.config.train.training)
    if ending is None or found is None or found.meta["epoch"] != trial.epoch:
        return False
    path = os.path.relpath(found.path, sweep.directory)
    sweep.history.tell(EventKind.CHECKPOINT, trial.trial_id, path=path)
    sweep.history.tell(EventKind.END, trial.trial_id, status=ending[0], message=ending[1])
    return True


def _ending(trial: TrialRecord, training: TrainingConfig) -> tuple[Status, str] | None:
    """Status and message of a trial whose last epoch ended it; None if it goes on."""
    loss, target = trial.metrics.get("val_loss"), training.target_loss
    reached = target is not None and loss is not None and loss <= target
    if trial.reports and (trial.epoch >= training.num_epochs or reached):
        return Status.FINISHED, ""
    stuck = [f["text"] for f in trial.found if f["id"] == GATE_STUCK]
    return (Status.STOPPED_EARLY, stuck[0]) if stuck and training.stop_stuck_gates else None


def _as_saved(params: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """A population's trial with the parameters of its checkpoint, if it has newer ones.

    It was to go on from another trial's weights, and has no checkpoint of that yet.
    """
    saved = {}
    for key in CHANGEABLE:
        section, _, name = key.partition(".")
        if key in params and name in config.get(section, {}):
            saved[key] = config[section][name]
    return params | saved


def _newest(folder: Path, epoch: int) -> Found | None:
    """The newest whole checkpoint of at most this epoch; damaged ones are reported."""
    for path in reversed(checkpoints(folder)):
        try:
            meta = read_meta(path)
        except CheckpointError as error:
            _log.warning("%s; going back to the one before", error)
            continue
        # One that is further on was written, but its epoch never told: it is trained again.
        if meta["epoch"] <= epoch:
            return Found(path, meta)
    return None


def _go_back(sweep: RunningSweep, trial: TrialRecord, found: Found | None) -> None:
    """Make the history end where the checkpoint does, with the parameters that it has."""
    history = [dict(row) for row in found.meta["history"]] if found else []
    if [row["epoch"] for row in history] != sorted(trial.reports):
        sweep.history.tell(EventKind.HISTORY, trial.trial_id, history=history)
    if found and (params := _as_saved(trial.params, found.meta["config"])) != trial.params:
        sweep.history.tell(EventKind.PARAMS, trial.trial_id, params=params)
