"""Where an interrupted sweep stands: what is over, what goes on, and from which checkpoint.

The history decides, not what Ray Tune remembers: its snapshots are older than the last results.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trainables.config import TrainingConfig
from trainables.errors import CheckpointError
from trainables.metrics import Metrics
from trainables.statuses import Status
from trainables.training.checkpoint_files import checkpoints, read_meta, remove_checkpoints
from trainables.training.diagnosis import GATE_STUCK
from trainables.training.ending import is_over
from tuning.config.space import CHANGEABLE, with_params
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
        found = _newest(sweep, trial)
        if not _has_ended(sweep, trial, found):
            _go_back(sweep, trial, found)
            starts.append(Start(trial.number, trial.params, found.path if found else None))
        # What lies beside them is of epochs that are forgotten, or half-written.
        kept = [sweep.directory / trial.best_checkpoint] if trial.best_checkpoint else []
        kept += [found.path] if found and not trial.checkpoint_removed else []
        remove_checkpoints(folder, keep=kept)
    return starts


def _has_ended(sweep: RunningSweep, trial: TrialRecord, found: Found | None) -> bool:
    """Whether it had nothing left to train; then the history is told of its end."""
    if found is None or found.meta["epoch"] != trial.epoch:
        return False
    config = with_params(sweep.config.train, trial.params, trial.trial_id)
    ending = _ending(trial, found.meta["history"], config.training)
    if ending is None:
        return False
    sweep.history.checkpointed(trial.trial_id, found.path)
    sweep.history.tell(EventKind.END, trial.trial_id, status=ending[0], message=ending[1])
    return True


def _ending(
    trial: TrialRecord, history: Sequence[Metrics], training: TrainingConfig
) -> tuple[Status, str] | None:
    """Status and message of a trial whose last epoch ended it; None if it goes on.

    By the run's own ``history``: in a population it is that of the weights it took over.
    """
    if is_over(history, training):
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


def _newest(sweep: RunningSweep, trial: TrialRecord) -> Found | None:
    """The newest whole checkpoint, of the trial's last epoch at most; damaged ones are reported.

    One that is further on was written, but its epoch never told: it is trained again.
    """
    newest_first = reversed(checkpoints(sweep.trials / trial.trial_id))
    found = next(_whole(newest_first, trial.epoch), None)
    if trial.best_checkpoint and (trial.best_epoch or 0) > (found.meta["epoch"] if found else 0):
        return next(_whole([sweep.directory / trial.best_checkpoint], trial.epoch), found)
    return found


def _whole(paths: Iterable[Path], epoch: int) -> Iterator[Found]:
    for path in paths:
        try:
            meta = read_meta(path)
        except CheckpointError as error:
            _log.warning("%s; going back to the one before", error)
            continue
        if meta["epoch"] <= epoch:
            yield Found(path, meta)


def _go_back(sweep: RunningSweep, trial: TrialRecord, found: Found | None) -> None:
    """Make the history end where the checkpoint does, with the parameters that it has."""
    history = [dict(row) for row in found.meta["history"]] if found else []
    if [row["epoch"] for row in history] != sorted(trial.reports):
        sweep.history.tell(EventKind.HISTORY, trial.trial_id, history=history)
    if found and (params := _as_saved(trial.params, found.meta["config"])) != trial.params:
        sweep.history.tell(EventKind.PARAMS, trial.trial_id, params=params)
    if found and found.meta.get("step") == trial.metrics.get("step"):
        sweep.history.checkpointed(trial.trial_id, found.path)  # killed before that was told
