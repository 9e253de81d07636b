"""Where an interrupted sweep stands: what is over, what goes on, and from which checkpoint.

The history decides, not what Ray Tune remembers: its snapshots are older than the last results.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainables.config import TrainingConfig
from trainables.errors import CheckpointError
from trainables.statuses import Status
from trainables.training.checkpoint_files import checkpoints, read_meta, remove_checkpoints
from trainables.training.diagnosis import GATE_STUCK
from tuning.config.space import CHANGEABLE
from tuning.history.record import EventKind, SweepRecord, TrialRecord
from tuning.search.searcher import Start

_log = logging.getLogger(__name__)
# Tells the history of a trial's event: (event, trial's id, its content).
Tell = Callable[..., None]


def take_up(
    directory: Path,
    trials: Path,
    record: SweepRecord,
    training: TrainingConfig,
    tell: Tell,
    *,
    retry_failed: bool,
) -> list[Start]:
    """The trials that go on, by number; the endings that were not written down any more are.

    ``trials`` has a folder of checkpoints per trial. A trial goes on from its newest whole
    checkpoint among those that the history knows of; what came after is forgotten.
    """
    starts = []
    for trial in record.ordered():
        if trial.ended is not None and not (retry_failed and trial.status == Status.FAILED):
            if trial.checkpoint_removed:  # and perhaps killed before that was done
                remove_checkpoints(trials / trial.trial_id)
            continue
        found = _newest(trials / trial.trial_id, trial.epoch)
        ending = _ending(trial, training)
        if ending and found and found[1]["epoch"] == trial.epoch:
            tell(EventKind.CHECKPOINT, trial.trial_id, path=os.path.relpath(found[0], directory))
            tell(EventKind.END, trial.trial_id, status=ending[0], message=ending[1])
            continue
        _go_back(trial, found[1] if found else None, tell)
        if found and (params := _as_saved(trial.params, found[1]["config"])) != trial.params:
            tell(EventKind.PARAMS, trial.trial_id, params=params)
        starts.append(Start(trial.number, trial.params, found[0] if found else None))
        remove_checkpoints(trials / trial.trial_id, keep=found[0] if found else None)
    return starts


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


def _newest(folder: Path, epoch: int) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole checkpoint of at most this epoch; damaged ones are reported."""
    for path in reversed(checkpoints(folder)):
        try:
            meta = read_meta(path)
        except CheckpointError as error:
            _log.warning("%s; going back to the one before", error)
            continue
        if meta["epoch"] <= epoch:
            return path, meta
    return None


def _go_back(trial: TrialRecord, meta: dict[str, Any] | None, tell: Tell) -> None:
    """Make the history end where the checkpoint does."""
    history = [dict(row) for row in meta["history"]] if meta else []
    if [row["epoch"] for row in history] != sorted(trial.reports):
        tell(EventKind.HISTORY, trial.trial_id, history=history)
