"""Which checkpoints are kept, so that the disk stays bounded: a trial's best, the best trials'."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from trainables.statuses import Status
from trainables.training.checkpoint_files import (
    best_path,
    bests,
    link_checkpoint,
    remove_checkpoints,
)
from tuning.history.record import EventKind, SweepRecord, TrialRecord, finite


def keep_best(
    record: SweepRecord,
    trial: TrialRecord,
    directory: Path,
    tell: Callable[..., Any],
    when_there_is_room: Callable[[Callable[[], object], Path], None],
) -> None:
    """Keep the weights of a trial's newest epoch, told of just before, if none was better.

    ``trial.checkpoint`` must be of that epoch's end. Whoever ran the trial removes it after a few
    epochs more; the copy under another name stays until there is a better one.
    """
    value = finite(trial.metrics.get(record.metric))
    if record.metric_at != "best" or value is None:
        return
    best = record.value(trial)
    if trial.best_epoch and best is not None and not record.better(value, best):
        return
    source = directory / str(trial.checkpoint)
    path = best_path(source.parent, trial.epoch)
    when_there_is_room(partial(link_checkpoint, source, path), path)
    tell(EventKind.BEST, trial.trial_id, epoch=trial.epoch, path=os.path.relpath(path, directory))
    for other in bests(source.parent):
        if other != path:
            shutil.rmtree(other, ignore_errors=True)


def surplus(record: SweepRecord, keep: int) -> list[TrialRecord]:
    """The trials that ended and have a checkpoint, but are not among the ``keep`` best.

    As many of those that failed keep theirs, the newest: they may be tried again.
    """
    ended = [t for t in record.trials.values() if t.ended is not None and t.checkpoint]
    best = {t.trial_id for t in record.ranked()[:keep]}
    failed = sorted((t.ended or 0, t.trial_id) for t in ended if t.status == Status.FAILED)
    kept = best | {trial_id for _, trial_id in failed[-keep:]}
    return [t for t in ended if t.trial_id not in kept]


def remove_surplus(
    record: SweepRecord, directory: Path, keep: int, tell: Callable[[EventKind, str], None]
) -> None:
    """Remove the checkpoints of all trials in ``surplus``; the history is told of each."""
    for trial in surplus(record, keep):
        folder = (directory / str(trial.checkpoint)).parent
        # Told first: a kill in between leaves files that nothing names, and resume removes them.
        tell(EventKind.CHECKPOINT_REMOVED, trial.trial_id)
        remove_checkpoints(folder)
