"""The default search: known values first, points that fill the space, then a model of the losses.

The model is Optuna's: its Gaussian process with expected improvement while trials are few and each
must tell much, its multivariate TPE once they are many and a suggestion must stay cheap. Both are
told of stopped trials as if they had been trained as long as the others, and of those that train as
trials whose outcome is open.
"""

from __future__ import annotations

import heapq
import importlib
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces.ranges import nearest, varies
from search_spaces.schema import SearchSpace
from trainables.statuses import BAD, Status
from tuning.history.record import SweepRecord, TrialRecord, finite
from tuning.search.common_epoch import at_a_common_epoch
from tuning.search.known_trials import KnownTrials
from tuning.search.optuna_study import DIRECTIONS
from tuning.search.optuna_trials import is_known
from tuning.search.ordered import OrderedSpace

LEAST = 3  # values for the model, which begins after four trials: one of them may be bad
MOST_FOR_GP = 128
# Of more, so many of the best and of the newest are told: a suggestion costs the same for ever.
BEST_TOLD, NEWEST_TOLD = 50, 150
Params = dict[str, Any]


class Older(Protocol):
    """What a suggestion may know of the trials before it."""

    def trial(self, number: int) -> TrialRecord:
        """The trial of this number."""

    def until(self, number: int, older: int) -> float:
        """The last epoch of an older trial that the suggestion of a number may know."""


class AutoSampler:
    """The points of a sweep by number; each depends on the older trials and the seed alone.

    ``base`` are the values that the searched keys have in the training's own file, with which it
    begins; ``fixed`` are those that a key had in trials which did not search it.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int,
        record: SweepRecord,
        base: Mapping[str, Any],
        fixed: Mapping[str, Any],
        older: Older,
    ) -> None:
        self._space = OrderedSpace(space)
        self._seed = seed
        self._record = record
        self._older = older
        self._begin = _own_values(space, base)
        self._fixed = fixed
        self._filling: list[Params] = []
        with _quiet():
            filler = QMCSampler(seed=seed, scramble=True)
            self._filler = optuna.create_study(sampler=filler)
        self._open: set[int] = set()
        self._finished: dict[int, float] = {}
        self._seen = 0

    def draw(self, number: int, learns: bool) -> Params:
        """The point of a number; those of lower numbers have been drawn."""
        if number == 0 and self._begin is not None:
            return self._begin
        known, pending = self._known(number) if learns else ({}, [])
        views = [*known.items(), *((n, None) for n in pending)]
        made = (self._told(self._older.trial(n), value) for n, value in views)
        told = [trial for trial in made if trial is not None]
        complete = [trial for trial in told if trial.state == TrialState.COMPLETE]
        if len(complete) < LEAST:
            return self._fill(number)
        tried = [self._older.trial(n).params for n in (*known, *pending)]
        for sampler in self._models(number, complete):
            study = optuna.create_study(
                storage=KnownTrials(told),
                sampler=sampler,
                direction=DIRECTIONS[self._record.mode],
            )
            with _quiet(), _one_thread():
                found = self._space.draw(study.ask())
            if found not in tried:
                return found
        return self._fill(number)

    def _fill(self, number: int) -> Params:
        while len(self._filling) <= number:
            self._filling.append(self._space.draw(self._filler.ask()))
        return self._filling[number]

    def _models(self, number: int, known: Sequence[FrozenTrial]) -> Iterator[BaseSampler]:
        """Samplers of its own for each number: after a resume they cannot be other ones.

        The process comes back to a best point, above all at a bound; the same training twice tells
        nothing new, and then the estimator draws one near the good ones. Keys that not every trial
        has, such as those with a condition, the process would draw at random.
        """
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        with _quiet():
            process = GPSampler(seed=seed, n_startup_trials=0)
            estimator = TPESampler(
                seed=seed, n_startup_trials=0, multivariate=True, group=True, constant_liar=True
            )
        everywhere = all(t.params.keys() == self._space.distributions.keys() for t in known)
        if everywhere and len(known) <= MOST_FOR_GP:
            yield process
        yield estimator

    def _known(self, number: int) -> tuple[dict[int, float], list[int]]:
        """What the older trials come to, by number, and those of which nothing may be seen yet."""
        numbers = self._chosen(number)
        trials = {n: self._older.trial(n) for n in numbers}
        horizon = {n: self._older.until(number, n) for n in numbers}
        curves = {n: self._curve(trials[n], horizon[n]) for n in numbers}
        over = [n for n in numbers if is_known(trials[n], horizon[n])]
        bad = {n for n in over if trials[n].status in BAD}
        failed = {n for n in over if trials[n].status == Status.FAILED}
        values = dict(zip(numbers, at_a_common_epoch(list(curves.values())), strict=True))
        found = {
            n: v for n, v in values.items() if v is not None and n not in bad and n not in failed
        }
        worst = _worse_than(found.values(), self._record.mode)
        if worst is not None:
            found |= dict.fromkeys(bad, worst)
        pending = [n for n in numbers if n not in found and n not in over]
        return {n: found[n] for n in numbers if n in found}, pending

    def _chosen(self, number: int) -> list[int]:
        """All older trials; of very many, the best that have finished and the newest."""
        self._open.update(range(self._seen, number))
        self._seen = max(self._seen, number)
        sign = 1 if self._record.mode == "min" else -1
        for n in sorted(self._open):
            trial = self._older.trial(n)
            if is_known(trial, self._older.until(number, n)):
                self._open.discard(n)
                value = self._record.value(trial)
                if trial.status == Status.FINISHED and value is not None:
                    self._finished[n] = sign * value
        if number <= BEST_TOLD + NEWEST_TOLD:
            return list(range(number))
        best = heapq.nsmallest(BEST_TOLD, self._finished, key=lambda n: (self._finished[n], n))
        return sorted({*best, *range(number - NEWEST_TOLD, number)})

    def _curve(self, trial: TrialRecord, until: float) -> dict[int, float]:
        """The metric by epoch, as far as it may be seen; where the best counts, the best so far."""
        seen: dict[int, float] = {}
        best: float | None = None
        for epoch in sorted(trial.reports):
            value = finite(trial.reports[epoch].get(self._record.metric))
            if epoch > until or value is None:
                continue
            if best is None or self._record.metric_at == "last" or self._record.better(value, best):
                best = float(value)
            seen[epoch] = best
        return seen

    def _told(self, trial: TrialRecord, value: float | None) -> FrozenTrial | None:
        """For Optuna; None if the trial is of another space, which this one has replaced.

        A key that was not searched then had the value of the training's file.
        """
        space = self._space.distributions
        given = {**self._fixed, **trial.params}
        params = self._space.inside({key: given[key] for key in space if key in given})
        if any(key in trial.params and key not in params for key in space):
            return None
        return create_trial(
            state=TrialState.RUNNING if value is None else TrialState.COMPLETE,
            value=value,
            params=params,
            distributions={key: space[key] for key in params},
        )


def _own_values(space: SearchSpace, base: Mapping[str, Any]) -> Params | None:
    """The training file's values, each brought into its range; None if one cannot be."""
    found: Params = {}
    try:
        for key, spec in space.root.items():
            if varies(spec, found):
                found[key] = nearest(spec, base[key])
    except (KeyError, ValueError):
        return None
    return found


def _worse_than(values: Iterable[float], mode: str) -> float | None:
    """As much beyond the worst value as that is from the best."""
    known = list(values)
    if not known:
        return None
    low, high = min(known), max(known)
    spread = (high - low) or abs(high) or 1.0
    return high + spread if mode == "min" else low - spread


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


@contextmanager
def _one_thread() -> Iterator[None]:
    """The hosts need the cores, and another number of threads could give another last bit."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load_model_beside() -> None:
    """Begin to load what the model needs, seconds before it is needed."""
    threading.Thread(target=importlib.import_module, args=("torch",), daemon=True).start()
