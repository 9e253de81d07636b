"""The study that others open: the sweep as a journal file of Optuna, to which lines are only added.

A dashboard may have the file open, and may have written notes into it. So nothing that it has read
is taken back: what Optuna does not let change goes into a further study of the same file.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping
from itertools import count, islice
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from search_spaces.schema import SearchSpace
from trainables.statuses import BAD
from tuning.history.record import SweepRecord
from tuning.search.optuna_trials import OUTCOME, TRIAL, frozen_trials
from tuning.search.ranges import distributions

DIRECTIONS = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}
WINNER = "winner"  # the study's user attribute that names the best trial
LOCK_SECONDS = 10  # without a sign of life; who holds it needs milliseconds
# What Optuna raises of a file that is damaged, or none of its own.
UNREADABLE = (
    *(ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError),
    IsADirectoryError,
)
_log = logging.getLogger(__name__)


def export_study(record: SweepRecord, space: SearchSpace, path: Path) -> None:
    """Add to the journal what it does not tell yet, for optuna-dashboard and ``load_study``.

    The study is called as the sweep is; a further one ``NAME (2)`` and so on, with what others have
    written into the one before. A file that Optuna cannot read is put aside, and kept.
    """
    views = [(t, math.inf) for t in record.ordered() if t.ended is not None]
    frozen = frozen_trials(record, views, distributions(space), {})
    told = [t for t in frozen if t.state.is_finished()]
    storage = _open(path)
    studies = _studies(storage, record.name)
    newest = studies[-1] if studies else None
    if newest is None or not _fits(newest, told, record.mode):
        newest = _further(storage, record, newest, told)
    else:
        known = _by_name(newest)
        newest.add_trials([t for t in told if t.user_attrs[TRIAL] not in known])
    _name_winner(newest, record)


def _name_winner(study: optuna.Study, record: SweepRecord) -> None:
    """Optuna's own ``best_trial`` cannot be one that was stopped early."""
    best = record.best()
    if best is None:
        return
    winner = {
        TRIAL: best.trial_id,
        "epoch": record.epoch_of(best),
        record.metric: record.value(best),
    }
    if study.user_attrs.get(WINNER) != winner:
        study.set_user_attr(WINNER, winner)


def _open(path: Path) -> JournalStorage:
    lock = JournalFileSymlinkLock(str(path.absolute()), grace_period=LOCK_SECONDS)
    _break_dead_lock(path)
    try:
        _cut_torn_line(path, lock)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except UNREADABLE as error:
        aside = _free_name(path)
        path.rename(aside)
        _log.warning("%s cannot be read (%r): kept as %s, made anew", path, error, aside.name)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _break_dead_lock(path: Path) -> None:
    """A link to nothing: the process is gone, and the directory was moved since.

    Optuna waits for such a lock for ever.
    """
    lock = Path(f"{path.absolute()}.lock")
    if lock.is_symlink() and path.exists() and not lock.exists():
        lock.unlink(missing_ok=True)


def _cut_torn_line(path: Path, lock: JournalFileSymlinkLock) -> None:
    """Half a line of a process that was killed: what is added after it could not be read."""
    if not path.exists():
        return
    lock.acquire()
    try:
        with path.open("r+b") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)
                os.fsync(file.fileno())
    finally:
        lock.release()


def _free_name(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.unreadable-{number}")).exists():
        number += 1
    return aside


def _studies(storage: JournalStorage, name: str) -> list[optuna.Study]:
    """The studies of this sweep, oldest first."""
    there = {study.study_name for study in storage.get_all_studies()}
    most = len(there) + 1  # somebody may have deleted some in a dashboard
    names = [n for n in islice(_names(name), most) if n in there]
    return [optuna.load_study(study_name=n, storage=storage) for n in names]


def _names(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name} ({number})" for number in count(2))


def _fits(study: optuna.Study, told: list[FrozenTrial], mode: str) -> bool:
    """Whether all of ``told`` is in the study or can be added to it, and nothing else is."""
    if study.directions != [DIRECTIONS[mode]]:
        return False
    known, kinds = _by_name(study), _distributions(study)
    new = {trial.user_attrs[TRIAL]: trial for trial in told}
    if any(name in new and not _says_the_same(trial, new[name]) for name, trial in known.items()):
        return False
    return all(_goes_with(kinds, trial) for name, trial in new.items() if name not in known)


def _by_name(study: optuna.Study) -> dict[str, FrozenTrial]:
    """The sweep's trials in it; others may have put trials of their own beside them."""
    trials = study.get_trials(deepcopy=False)
    return {t.user_attrs[TRIAL]: t for t in trials if TRIAL in t.user_attrs}


def _distributions(study: optuna.Study) -> dict[str, BaseDistribution]:
    found: dict[str, BaseDistribution] = {}
    for trial in study.get_trials(deepcopy=False):
        found.update(trial.distributions)
    return found


def _goes_with(kinds: Mapping[str, BaseDistribution], trial: FrozenTrial) -> bool:
    """Optuna's own rule, which it does not apply to trials that are added as a whole."""
    try:
        for key, kind in trial.distributions.items():
            if key in kinds:
                check_distribution_compatibility(kinds[key], kind)
    except ValueError:
        return False
    return True


def _says_the_same(old: FrozenTrial, new: FrozenTrial) -> bool:
    """Whether a trial that the study has came out as the history tells it now.

    The value of one that went bad is only worse than all that had been seen by then: it stays.
    """
    shared = old.params.keys() & new.params.keys()
    return _outcome(old) == _outcome(new) and all(old.params[k] == new.params[k] for k in shared)


def _outcome(trial: FrozenTrial) -> tuple[Any, ...]:
    outcome = trial.user_attrs.get(OUTCOME)
    ended = () if outcome in BAD else (trial.state, trial.value)
    return outcome, trial.intermediate_values, ended


def _further(
    storage: JournalStorage,
    record: SweepRecord,
    before: optuna.Study | None,
    told: list[FrozenTrial],
) -> optuna.Study:
    """A study of ``told``, with the notes of the one ``before`` it."""
    names = _names(record.name)
    if before is not None:
        next(name for name in names if name == before.study_name)
    study = optuna.create_study(
        storage=storage,
        study_name=next(names),
        direction=DIRECTIONS[record.mode],
    )
    if before is not None:
        for key, value in before.user_attrs.items():
            study.set_user_attr(key, value)
        _log.warning(
            "the Optuna study `%s` has trials that came out otherwise, or another search space: "
            "it stays as it is, and the sweep is in the study `%s` of the same file",
            before.study_name,
            study.study_name,
        )
    study.add_trials(told)
    return study
