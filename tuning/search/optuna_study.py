"""The study that others open: the sweep as a journal file of Optuna."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
from optuna.study import StudyDirection

from search_spaces.schema import SearchSpace
from tuning.history.record import SweepRecord
from tuning.search.optuna_trials import frozen_trials
from tuning.search.ranges import distributions

DIRECTIONS = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}


def export_study(record: SweepRecord, space: SearchSpace, path: Path) -> None:
    """The sweep as a journal file, for optuna-dashboard and ``optuna.load_study``."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    views = [(t, math.inf) for t in record.ordered() if t.ended is not None]
    aside = path.with_name(f".{path.name}.aside")
    aside.unlink(missing_ok=True)
    aside.with_name(f"{aside.name}.lock").unlink(missing_ok=True)  # of a process that was killed
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(aside))),
        study_name=record.name,
        direction=DIRECTIONS[record.mode],
    )
    frozen = frozen_trials(record, views, distributions(space), {})
    study.add_trials([t for t in frozen if t.state.is_finished()])
    aside.replace(path)
