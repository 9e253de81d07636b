"""What Optuna is told of a sweep's trials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from trainables.statuses import BAD, Status
from tuning.history.record import SweepRecord, TrialRecord
from tuning.search.ranges import holds

TRIAL, OUTCOME = "trial", "outcome"  # user attributes: the sweep's name of a trial, its status
View = tuple[TrialRecord, float]  # a trial, and the last epoch of it that may be seen


def frozen_trials(
    record: SweepRecord,
    views: Sequence[View],
    space: Mapping[str, BaseDistribution],
    fixed: Mapping[str, Any],
) -> list[FrozenTrial]:
    """The trials of ``views`` for Optuna, each as it stood after the last epoch that may be seen.

    finished                     COMPLETE, with the value of the epoch by which it counts
    stopped early                PRUNED, with its intermediate values
    diverged, out of memory      COMPLETE, with a value worse than any seen: a sampler keeps away
                                 from it, where it would ignore a FAIL
    failed                       FAIL
    trained further than seen    PRUNED at that epoch; RUNNING if nothing of it may be seen

    ``fixed`` has the values of keys that a trial did not search. A trial with a parameter that the
    space does not hold any more is left out.
    """
    return TrialViews(record, space, fixed).frozen(views)


@dataclass(frozen=True)
class _Shown:
    """A trial as it is told; None if it is of another space. ``values`` are its extremes."""

    ended: float | None
    trial: FrozenTrial | None
    values: tuple[float, ...]


class TrialViews:
    """What ``frozen_trials`` makes, kept for the next time where nothing about it can change."""

    def __init__(
        self, record: SweepRecord, space: Mapping[str, BaseDistribution], fixed: Mapping[str, Any]
    ) -> None:
        self._record = record
        self._space = space
        self._fixed = fixed
        self._settled: dict[int, _Shown] = {}

    def frozen(self, views: Iterable[View]) -> list[FrozenTrial]:
        """As ``frozen_trials``."""
        found: list[FrozenTrial | None] = []
        extremes: list[float] = []
        bad: list[tuple[int, View]] = []
        for trial, until in views:
            shown = self._settled.get(trial.number)
            if shown is None or shown.ended != trial.ended:
                shown = self._show(trial, until, None)
                if is_known(trial, until):
                    if trial.status in BAD:
                        bad.append((len(found), (trial, until)))
                    else:
                        self._settled[trial.number] = shown
            found.append(shown.trial)
            extremes += shown.values
        worst = _worse_than_all(extremes, self._record.mode) if bad else None
        for place, view in bad:  # their value depends on all others'
            found[place] = self._show(*view, worst).trial
        return [trial for trial in found if trial is not None]

    def _show(self, trial: TrialRecord, until: float, worst: float | None) -> _Shown:
        record, space = self._record, self._space
        values = _seen(record, trial, until)
        ends = (min(values.values()), max(values.values())) if values else ()
        given = {**self._fixed, **trial.params}
        known = {k: given[k] for k in space if k in given and holds(space[k], given[k])}
        if any(k in trial.params and k not in known for k in space):
            return _Shown(trial.ended, None, ends)
        state, value = _state(record, trial, until, values, worst)
        message = {"message": trial.message} if trial.message else {}
        made = create_trial(
            state=state,
            value=value,
            params=known,
            distributions={k: space[k] for k in known},
            intermediate_values=values,
            user_attrs={TRIAL: trial.trial_id, OUTCOME: trial.status.value, **message},
            system_attrs=trial.search_state,
        )
        return _Shown(trial.ended, made, ends)


def _seen(record: SweepRecord, trial: TrialRecord, until: float) -> dict[int, float]:
    """The metric by epoch, as far as it may be seen."""
    return {
        epoch: float(metrics[record.metric])
        for epoch, metrics in sorted(trial.reports.items())
        if epoch <= until and record.metric in metrics
    }


def is_known(trial: TrialRecord, until: float) -> bool:
    """Whether a trial's end may be known to whom sees it up to the epoch ``until``.

    What ended a bad one came after its last report, so that it is known one epoch later.
    """
    known_at = trial.epoch + (trial.status in BAD or trial.status == Status.FAILED)
    return trial.ended is not None and known_at <= until


def _state(
    record: SweepRecord,
    trial: TrialRecord,
    until: float,
    seen: Mapping[int, float],
    worst: float | None,
) -> tuple[TrialState, float | None]:
    bad = trial.status in BAD
    if not is_known(trial, until):
        return (TrialState.PRUNED if seen and until < math.inf else TrialState.RUNNING), None
    if trial.status == Status.FINISHED and seen:
        return TrialState.COMPLETE, seen[max(seen)] if record.metric_at == "last" else (
            min(seen.values()) if record.mode == "min" else max(seen.values())
        )
    if bad and worst is not None:
        return TrialState.COMPLETE, worst
    return (TrialState.PRUNED if trial.status == Status.STOPPED_EARLY else TrialState.FAIL), None


def _worse_than_all(values: Iterable[float], mode: str) -> float | None:
    """A value that shows what bad means here, as soon as there is any to compare with."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return None
    low, high = min(finite), max(finite)
    if mode == "min":
        return high + max(high - low, abs(high))
    return low - max(high - low, abs(low))
