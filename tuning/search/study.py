"""A sweep's history as Optuna sees it, and as the study that others open."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces.schema import SearchSpace
from trainables.statuses import BAD, Status
from tuning.history.record import SweepRecord, TrialRecord
from tuning.search.ranges import distributions, holds

DIRECTIONS = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}


def freeze(
    record: SweepRecord,
    views: Sequence[tuple[TrialRecord, float]],
    space: Mapping[str, BaseDistribution],
    fixed: Mapping[str, Any],
) -> list[FrozenTrial]:
    """Trials for Optuna, each as it stood when it had trained so many epochs.

    Finished ones are COMPLETE, stopped ones PRUNED with their intermediate values; diverged ones
    and those out of memory are COMPLETE with a value worse than any seen, so that the sampler
    keeps away; failed ones are FAIL. One that trained further than may be seen is PRUNED there,
    one of which nothing may be seen is RUNNING. What the space does not hold any more is left out.
    """
    values = [
        float(metrics[record.metric])
        for trial, until in views
        for epoch, metrics in trial.reports.items()
        if epoch <= until and record.metric in metrics
    ]
    worst = _worse_than_all(values, record.mode)
    found = []
    for trial, until in views:
        params = {k: trial.params.get(k, fixed.get(k)) for k in space}
        known = {k: v for k, v in params.items() if holds(space[k], v)}
        if any(k in trial.params and k not in known for k in space):
            continue  # of another space
        seen = {
            epoch: float(metrics[record.metric])
            for epoch, metrics in sorted(trial.reports.items())
            if epoch <= until and record.metric in metrics
        }
        bad = trial.status in BAD
        # What ended it came after its last report.
        over = (
            trial.ended is not None
            and trial.epoch + (bad or trial.status == Status.FAILED) <= until
        )
        state, value = TrialState.PRUNED, None
        if not over:
            state = TrialState.PRUNED if seen and until < math.inf else TrialState.RUNNING
        elif trial.status == Status.FINISHED and seen:
            state, value = TrialState.COMPLETE, seen[max(seen)]
        elif bad and worst is not None:
            state, value = TrialState.COMPLETE, worst
        elif trial.status != Status.STOPPED_EARLY:
            state = TrialState.FAIL
        found.append(
            create_trial(
                state=state,
                value=value,
                params=known,
                distributions={k: space[k] for k in known},
                intermediate_values=seen,
                user_attrs={"trial": trial.trial_id, "outcome": trial.status.value}
                | ({"message": trial.message} if trial.message else {}),
                system_attrs=trial.search_state,
            )
        )
    return found


def _worse_than_all(values: Iterable[float], mode: str) -> float | None:
    """A value that shows what bad means here, as soon as there is any to compare with."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return None
    low, high = min(finite), max(finite)
    if mode == "min":
        return high + max(high - low, abs(high))
    return low - max(high - low, abs(low))


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
    frozen = freeze(record, views, distributions(space), {})
    study.add_trials([t for t in frozen if t.state.is_finished()])
    aside.replace(path)
