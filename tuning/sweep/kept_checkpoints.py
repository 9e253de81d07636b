"""Which trials that ended keep their checkpoints, so that the disk stays bounded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trainables.statuses import Status
from trainables.training.checkpoint_files import remove_checkpoints
from tuning.history.record import EventKind, SweepRecord, TrialRecord


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
