"""What to try next: Optuna's samplers, fed with the sweep's own history.

The history is the only state. A suggestion is computed from it, the trial's number and the seed
alone, so that a sweep which is resumed, moved or extended goes on as if nothing had happened.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial
from ray.tune.search import Searcher

from search_spaces.schema import SearchSpace
from tuning.config import CMAESSearch, GPSearch, QMCSearch, RandomSearch, Search, TPESearch
from tuning.halving import Halving
from tuning.record import GOOD, SweepRecord, TrialRecord, trial_name
from tuning.space import draw
from tuning.study import DIRECTIONS, distributions, freeze

# Samplers whose next point depends on how many were drawn, not on what became of them.
SEQUENCES = (RandomSearch, QMCSearch)
Params = dict[str, Any]


def make_sampler(search: Search, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of a search configuration."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match search:
            case TPESearch():
                return optuna.samplers.TPESampler(seed=seed, n_startup_trials=search.startup_trials)
            case RandomSearch():
                return optuna.samplers.RandomSampler(seed=seed)
            case QMCSearch():
                return optuna.samplers.QMCSampler(seed=seed, scramble=True)
            case CMAESSearch():
                return optuna.samplers.CmaEsSampler(seed=seed)
            case GPSearch():
                return optuna.samplers.GPSampler(seed=seed)


@dataclass(frozen=True)
class Suggestion:
    """A point of the space; ``state`` is what some samplers keep with a trial."""

    params: Params
    state: dict[str, Any] = field(default_factory=dict)


class Suggestions:
    """The points of a sweep by trial number.

    ``halving`` bounds what each may depend on, so that it does not depend on who was faster;
    without it, each knows all that has happened. ``first`` are tried before anything is drawn.
    ``fixed`` tells the value that a key had in trials which did not search it; one with a
    condition had none where that was not met.
    """

    def __init__(
        self,
        space: SearchSpace,
        search: Search,
        record: SweepRecord,
        halving: Halving | None = None,
        first: Sequence[Params] = (),
        fixed: Mapping[str, Any] | None = None,
    ) -> None:
        self._space = space
        self._search = search
        self._record = record
        self._halving = halving
        self._first = first
        self._fixed = {k: v for k, v in (fixed or {}).items() if not space.root[k].when}
        self._distributions = distributions(space)
        self._drawn: dict[int, TrialRecord] = {}  # the history hears of them a little later
        self._sequence: list[Params] = []
        self._sequence_study = optuna.create_study(sampler=make_sampler(search, search.seed))

    def ready(self, number: int) -> bool:
        """Whether everything is known that this suggestion may depend on."""
        if self._halving is None or number < len(self._first) or not self._learns(number):
            return True
        return self._halving.knows_enough(number)

    def draw(self, number: int) -> Suggestion:
        """The point of this number; those of lower numbers must have been drawn before."""
        found = self._draw(number)
        self._drawn[number] = TrialRecord(
            trial_name(number), found.params, search_state=found.state
        )
        return found

    def _draw(self, number: int) -> Suggestion:
        if number < len(self._first):
            return Suggestion(dict(self._first[number]))
        if isinstance(self._search, SEQUENCES):
            while len(self._sequence) <= number:
                self._sequence.append(draw(self._space, self._sequence_study.ask()))
            return Suggestion(self._sequence[number])
        seed = int(np.random.SeedSequence([self._search.seed, number]).generate_state(1)[0])
        study = optuna.create_study(
            sampler=make_sampler(self._search, seed), direction=DIRECTIONS[self._record.mode]
        )
        study.add_trials(self._known(number))
        trial = study.ask()
        params = draw(self._space, trial)
        state = study.get_trials(deepcopy=False)[-1].system_attrs
        return Suggestion(params, dict(state) if isinstance(self._search, CMAESSearch) else {})

    def _learns(self, number: int) -> bool:
        """Whether results count: the first trials of TPE are drawn at random."""
        if isinstance(self._search, SEQUENCES) or self._halving is None:
            return False
        if isinstance(self._search, TPESearch):
            return number // self._halving.group * self._halving.group >= max(
                1, self._search.startup_trials
            )
        return True

    def _known(self, number: int) -> list[FrozenTrial]:
        """The older trials as this suggestion may see them, in the order of their numbers."""
        trials = self._drawn | {t.number: t for t in self._record.trials.values()}
        older = [trials[n] for n in sorted(trials) if n < number]
        if self._halving is None:
            views = [(t, math.inf) for t in older]
        else:
            views = [(t, self._halving.known_until(number, t.number)) for t in older]
        return freeze(self._record, views, self._distributions, self._fixed)


@dataclass(frozen=True)
class Start:
    """A trial that goes on: where, and from which checkpoint (None: from the beginning)."""

    number: int
    params: Params
    checkpoint: Path | None


class OptunaSearcher(Searcher):
    """Hands ``{"number": i, "params": {...}, ...}`` to Ray Tune: what goes on, then what is new.

    ``requested`` in a suggestion is the time at which it was asked for, in seconds since 1970.
    ``live`` holds the ids of those handed out that have not ended, ``room`` tells whether there
    may be one more. A trial that waits at a rung is only taken up
    when the rung is decided; ``stop`` is told of those that end there.
    """

    def __init__(
        self,
        suggestions: Suggestions,
        record: SweepRecord,
        starts: Sequence[Start],
        live: set[str],
        *,
        room: Callable[[], bool],
        goes_on: Callable[[Start], bool | None],
        stop: Callable[[int], None],
    ) -> None:
        super().__init__(metric=record.metric, mode=record.mode)
        self._suggestions = suggestions
        self._starts = list(starts)
        self._live = live
        known = {t.number for t in record.trials.values()}
        self._new = [n for n in range(record.num_trials) if n not in known]
        self._room = room
        self._goes_on = goes_on
        self._stop = stop

    @property
    def has_ended(self) -> bool:
        """Whether nothing goes on and nothing is new; trials whose end is known are ended."""
        self._drop_stopped()
        return not self.left

    @property
    def left(self) -> int:
        """Trials still to be handed out, at most."""
        return len(self._starts) + len(self._new)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if not self._room():
            return None
        if self.has_ended:
            return str(Searcher.FINISHED)
        found = self._next()
        if found is not None:
            self._live.add(trial_id)
        return found

    def _next(self) -> dict[str, Any] | None:
        requested = time.time()
        for start in self._starts:
            if self._goes_on(start):
                self._starts.remove(start)
                checkpoint = str(start.checkpoint) if start.checkpoint else None
                return {
                    "number": start.number,
                    "params": start.params,
                    "start": checkpoint,
                    "requested": requested,
                }
        if not self._new or not self._suggestions.ready(self._new[0]):
            return None
        number = self._new.pop(0)
        drawn = self._suggestions.draw(number)
        return {
            "number": number,
            "params": drawn.params,
            "start": None,
            "state": drawn.state,
            "requested": requested,
        }

    def _drop_stopped(self) -> None:
        """One ending may decide another's."""
        while stopped := [s for s in self._starts if self._goes_on(s) is False]:
            for start in stopped:
                self._starts.remove(start)
                self._stop(start.number)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """The history tells it."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._live.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """There is nothing to save: the history is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """See ``save``."""


def best_params(record: SweepRecord, count: int) -> list[Params]:
    """The parameters of the best trials that ended well, best first; equal ones only once."""
    sign = 1 if record.mode == "min" else -1
    scored = [
        (sign * value, t.number, t.params)
        for t in record.trials.values()
        if t.status in GOOD and (value := record.value(t)) is not None
    ]
    found: list[Params] = []
    for _, _, params in sorted(scored, key=lambda item: item[:2]):
        if params not in found:
            found.append(params)
    return found[:count]
