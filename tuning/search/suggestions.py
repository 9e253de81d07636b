"""What to try next: Optuna's samplers, fed with the sweep's own history.

The history is the only state. A suggestion is computed from it, the trial's number and the seed
alone, so that a sweep which is resumed, moved or extended goes on as if nothing had happened.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from search_spaces.ranges import draw
from search_spaces.schema import SearchSpace
from tuning.config.sweep import (
    START,
    AutoSearch,
    CMAESSearch,
    GPSearch,
    QMCSearch,
    RandomSearch,
    Search,
    TPESearch,
)
from tuning.history.record import SweepRecord, TrialRecord, trial_name
from tuning.search.auto import AutoSampler
from tuning.search.halving import Halving
from tuning.search.known_trials import KnownTrials
from tuning.search.optuna_study import DIRECTIONS
from tuning.search.optuna_trials import TrialViews
from tuning.search.ranges import distributions

# Samplers whose next point depends on how many were drawn, not on what became of them.
SEQUENCES = (RandomSearch, QMCSearch)
Params = dict[str, Any]


def make_sampler(search: Search, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of a search configuration; `auto` has several, see ``AutoSampler``."""
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
            case AutoSearch():
                raise TypeError("`auto` has no sampler of its own")


@dataclass(frozen=True)
class Suggestion:
    """A point of the space; ``state`` is what some samplers keep with a trial."""

    params: Params
    state: dict[str, Any] = field(default_factory=dict)


class Suggestions:
    """The points of a sweep by trial number.

    ``halving`` bounds what each may depend on, so that it does not depend on who was faster;
    without it, each knows all that has happened. ``first`` are tried before anything is drawn;
    where there are none, `auto` begins with the values that the training has by itself.
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
        self._views = TrialViews(record, distributions(space), self._fixed)
        self._drawn: dict[int, TrialRecord] = {}  # the history hears of them a little later
        self._sequence: list[Params] = []
        if isinstance(search, AutoSearch):
            base = {} if first else fixed or {}
            self._auto = AutoSampler(space, search.seed, record, base, self._fixed, self)
        elif isinstance(search, SEQUENCES):
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
        if isinstance(self._search, AutoSearch):
            learns = self._halving is None or self._learns(number)
            return Suggestion(self._auto.draw(number, learns))
        if isinstance(self._search, SEQUENCES):
            while len(self._sequence) <= number:
                self._sequence.append(draw(self._space, self._sequence_study.ask()))
            return Suggestion(self._sequence[number])
        # A sampler of its own for each number: its state cannot depend on what was drawn before in
        # this process, which after a resume is another one.
        seed = int(np.random.SeedSequence([self._search.seed, number]).generate_state(1)[0])
        storage = KnownTrials(self._known(number))
        study = optuna.create_study(
            storage=storage,
            sampler=make_sampler(self._search, seed),
            direction=DIRECTIONS[self._record.mode],
        )
        trial = study.ask()
        params = draw(self._space, trial)
        state = storage.asked().system_attrs
        # CMA-ES keeps its covariances with the trials, and looks for them there.
        return Suggestion(params, dict(state) if isinstance(self._search, CMAESSearch) else {})

    def _learns(self, number: int) -> bool:
        """Whether results count: the first trials of TPE are drawn at random."""
        if isinstance(self._search, SEQUENCES) or self._halving is None:
            return False
        before = number // self._halving.group * self._halving.group  # trials of earlier groups
        if isinstance(self._search, AutoSearch):
            return before >= START
        if isinstance(self._search, TPESearch):
            return before >= max(1, self._search.startup_trials)
        return True

    def trial(self, number: int) -> TrialRecord:
        """The trial of this number, which has been drawn."""
        return self._record.trials.get(trial_name(number)) or self._drawn[number]

    def until(self, number: int, older: int) -> float:
        """The last epoch of an older trial that the suggestion of a number may know."""
        return math.inf if self._halving is None else self._halving.known_until(number, older)

    def _known(self, number: int) -> list[FrozenTrial]:
        """The older trials as this suggestion may see them, in the order of their numbers."""
        known = range(number)
        return self._views.frozen([(self.trial(n), self.until(number, n)) for n in known])
