"""Optuna as a Ray Tune searcher that is told the truth about every trial."""

from __future__ import annotations

import math
import pickle
import time
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState
from ray.tune.search import Searcher

from search_spaces.schema import SearchSpace
from tuning.config import CMAESSearch, GPSearch, QMCSearch, RandomSearch, Search, TPESearch
from tuning.space import draw

DIRECTIONS = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}
BAD_OUTCOMES = ("diverged", "out of memory")


def make_sampler(search: Search) -> optuna.samplers.BaseSampler:
    """The sampler of a search configuration, seeded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match search:
            case TPESearch():
                return optuna.samplers.TPESampler(
                    seed=search.seed, n_startup_trials=search.startup_trials
                )
            case RandomSearch():
                return optuna.samplers.RandomSampler(seed=search.seed)
            case QMCSearch():
                return optuna.samplers.QMCSampler(seed=search.seed, scramble=True)
            case CMAESSearch():
                return optuna.samplers.CmaEsSampler(seed=search.seed)
            case GPSearch():
                return optuna.samplers.GPSampler(seed=search.seed)


class OptunaSearcher(Searcher):
    """Suggests ``{"number": i, "params": {...}}`` and keeps an Optuna study of what happened.

    ``requested`` in a suggestion is the time at which it was asked for, in seconds since 1970.

    Finished trials are COMPLETE; trials stopped early are PRUNED with their intermediate values;
    diverged ones and those out of memory are COMPLETE with a value worse than any seen, so that
    the sampler keeps away; crashed ones are FAIL. The time axis is ``epoch``.
    """

    def __init__(self, space: SearchSpace, search: Search, metric: str, mode: str) -> None:
        super().__init__(metric=metric, mode=mode)
        self._space = space
        self._study = optuna.create_study(sampler=make_sampler(search), direction=DIRECTIONS[mode])
        self._open: dict[str, optuna.Trial] = {}
        self._told: dict[str, set[int]] = {}  # epochs; asking the study copies all its trials
        self._waiting_for_a_value: list[optuna.Trial] = []

    @property
    def study(self) -> optuna.Study:
        return self._study

    def suggest(self, trial_id: str) -> dict[str, Any]:
        trial = self._study.ask()
        self._open[trial_id] = trial
        requested = time.time()
        params = draw(self._space, trial)
        return {"number": trial.number, "params": params, "requested": requested}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        value, epoch = result.get(self.metric), result["epoch"]
        trial = self._open.get(trial_id)
        if trial is None or value is None or not math.isfinite(value):
            return
        if epoch not in self._told.setdefault(trial_id, set()):
            self._told[trial_id].add(epoch)
            trial.report(value, epoch)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if result and not error and result.get("outcome") in ("running", "finished"):
            # Tune leaves the result that stopped a trial untold.
            self.on_trial_result(trial_id, result)
        trial = self._open.pop(trial_id, None)
        self._told.pop(trial_id, None)
        if trial is None:
            return
        result = result or {}
        outcome = "failed" if error else result.get("outcome", "failed")
        if "message" in result:
            trial.set_user_attr("message", result["message"])
        trial.set_user_attr("outcome", "stopped early" if outcome == "running" else outcome)
        if outcome == "finished":
            self._study.tell(trial, result[self.metric])
        elif outcome == "running":
            self._study.tell(trial, state=TrialState.PRUNED)
        elif outcome in BAD_OUTCOMES:
            self._waiting_for_a_value.append(trial)
        else:
            self._study.tell(trial, state=TrialState.FAIL)
        self._tell_bad_trials()

    def close(self) -> None:
        """No value will come any more that could show what bad is: such trials become FAIL."""
        for trial in self._waiting_for_a_value:
            self._study.tell(trial, state=TrialState.FAIL)
        self._waiting_for_a_value.clear()

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_bytes(pickle.dumps(self.get_state()))

    def restore(self, checkpoint_path: str) -> None:
        self.set_state(pickle.loads(Path(checkpoint_path).read_bytes()))

    def get_state(self) -> dict[str, Any]:
        return {
            "study": self._study,
            "open": self._open,
            "told": self._told,
            "waiting": self._waiting_for_a_value,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        self._study = state["study"]
        self._open = state["open"]
        self._told = state["told"]
        self._waiting_for_a_value = state["waiting"]

    def _tell_bad_trials(self) -> None:
        """A bad trial gets a value as soon as any finite one shows what bad means here."""
        if not self._waiting_for_a_value:
            return
        seen = [
            t
            for t in self._study.get_trials(deepcopy=False)
            if t.user_attrs.get("outcome") not in BAD_OUTCOMES
        ]
        values = [v for t in seen for v in t.intermediate_values.values()]
        values += [t.value for t in seen if t.value is not None]
        if not values:
            return
        low, high = min(values), max(values)
        worst = (
            high + max(high - low, abs(high))
            if self.mode == "min"
            else low - max(high - low, abs(low))
        )
        for trial in self._waiting_for_a_value:
            self._study.tell(trial, worst)
        self._waiting_for_a_value.clear()


def export_study(study: optuna.Study, path: Path, name: str) -> None:
    """The study as a journal file, for optuna-dashboard and ``optuna.load_study``."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    aside = path.with_name(f".{path.name}.aside")
    aside.unlink(missing_ok=True)
    copy = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(aside))),
        study_name=name,
        direction=study.direction,
    )
    copy.add_trials([t for t in study.trials if t.state.is_finished()])
    aside.replace(path)
