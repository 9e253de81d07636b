"""Early stopping and populations: Ray Tune schedulers with ``epoch`` as their time."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from search_spaces.ranges import nearest
from search_spaces.schema import SearchSpace
from trainables.statuses import Status
from tuning.config.space import changeable
from tuning.config.sweep import ASHA, PBT, HyperBand, Median, NoScheduler, Scheduler
from tuning.history.record import SweepRecord
from tuning.ray_internals import name_directory
from tuning.search.halving import Halving
from tuning.search.ranges import domain
from tuning.tune_edge import TIME_ATTRIBUTE, has_new_epoch, status_of

# These pause trials to let others run: a limit on live trials would make them wait for ever.
PAUSING = (HyperBand, PBT)


class _OwnDirectory(TrialScheduler):
    """Every trial's directory has its name, and no other."""

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        name_directory(trial)
        super().on_trial_add(tune_controller, trial)


class Population(_OwnDirectory, PopulationBasedTraining):
    """Ray refuses a searcher beside a population; here it only draws the first parameters."""

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_add(SimpleNamespace(search_alg=None), trial)


class Brackets(_OwnDirectory, HyperBandScheduler):
    """Ray's HyperBand."""


class _LiveTrials(_OwnDirectory):
    """Looks for the next trial among those that have not ended; Ray's own look at all of them."""

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        waiting = (Trial.PENDING, Trial.PAUSED)
        found = [t for t in tune_controller.get_live_trials() if t.status in waiting]
        return min(found, key=lambda t: (waiting.index(t.status), str(t)), default=None)


class InOrder(_LiveTrials, FIFOScheduler):
    """Every trial runs to its end."""


class AsyncHalving(_LiveTrials, AsyncHyperBandScheduler):
    """Successive halving in the order of arrival."""


class MedianStopping(_LiveTrials, MedianStoppingRule):
    """Stops what is worse than the median."""


class SuccessiveHalving(_OwnDirectory, FIFOScheduler):
    """Pauses a trial at a rung until ``halving`` can tell whether it goes on.

    ``active`` are the numbers of the trials that train or are about to, ``limit`` tells how many
    may at the moment.
    """

    def __init__(self, halving: Halving, metric: str, limit: Callable[[], int]) -> None:
        super().__init__()
        self._halving = halving
        self._metric_key = metric
        self._limit = limit
        self._waiting: dict[int, tuple[Trial, int]] = {}
        self.active: set[int] = set()

    @property
    def room(self) -> bool:
        """Whether a new trial may begin; those that have waited go first."""
        ready = sum(bool(self._halving.goes_on(n, e)) for n, (_, e) in self._waiting.items())
        return len(self.active) + ready < self._limit()

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_add(tune_controller, trial)
        self._halving.go_on(_number(trial))
        self.active.add(_number(trial))

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if status_of(result) != Status.RUNNING:
            return TrialScheduler.CONTINUE  # it has ended
        number, epoch = _number(trial), result[TIME_ATTRIBUTE]
        self._halving.report(number, epoch, result[self._metric_key])
        match self._halving.goes_on(number, epoch):
            case True:
                return TrialScheduler.CONTINUE
            case False:
                return TrialScheduler.STOP
        self._waiting[number] = (trial, epoch)
        self.active.discard(number)
        return TrialScheduler.PAUSE

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The first of those that wait and may go on; those that may not are stopped."""
        for number, (trial, epoch) in sorted(self._waiting.items()):
            decision = self._halving.goes_on(number, epoch)
            if decision is None or trial.status != Trial.PAUSED:
                continue
            if not decision:
                del self._waiting[number]
                tune_controller.stop_trial(trial)
            elif len(self.active) < self._limit():
                del self._waiting[number]
                self.active.add(number)
                return trial
        return None

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Ray shows the last report here alone; at a rung it counts, as after a resume it does."""
        if has_new_epoch(result) and self._metric_key in result:
            self._halving.report(_number(trial), result[TIME_ATTRIBUTE], result[self._metric_key])
        self._end(trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        self._end(trial)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        self._end(trial)

    def _end(self, trial: Trial) -> None:
        self._waiting.pop(_number(trial), None)
        self.active.discard(_number(trial))
        self._halving.end(_number(trial))


def recall(scheduler: TrialScheduler, record: SweepRecord) -> TrialScheduler:
    """Tell a new scheduler what the trials that have ended reported, in the order of numbers.

    Ray's HyperBand and populations compare only trials that are there: they begin anew.
    """
    if not isinstance(scheduler, AsyncHyperBandScheduler | MedianStoppingRule):
        return scheduler
    for trial in record.ordered():
        if trial.ended is None:
            continue
        past: Any = _PastTrial(trial.trial_id)
        nobody: Any = SimpleNamespace(get_trials=list, get_live_trials=list)
        scheduler.on_trial_add(nobody, past)
        for epoch in sorted(trial.reports):
            scheduler.on_trial_result(nobody, past, trial.reports[epoch])
        scheduler.on_trial_complete(nobody, past, trial.metrics)
    return scheduler


class _PastTrial:
    """As much of a Ray Tune trial as its schedulers ask for."""

    status = Trial.TERMINATED

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id
        self.storage = SimpleNamespace()

    def is_finished(self) -> bool:
        return True


def _number(trial: Trial) -> int:
    return int(trial.config["number"])


def make_scheduler(
    scheduler: Scheduler, num_epochs: int, space: SearchSpace, metric: str, mode: str
) -> TrialScheduler:
    """The scheduler of a configuration, in Ray Tune's own form."""
    compared = {"metric": metric, "mode": mode}
    match scheduler:
        case ASHA():
            return AsyncHalving(
                **compared,
                time_attr=TIME_ATTRIBUTE,
                grace_period=(*scheduler.rungs(num_epochs), num_epochs)[0],
                reduction_factor=scheduler.reduction_factor,
                max_t=num_epochs,
            )
        case Median():
            return MedianStopping(
                **compared,
                time_attr=TIME_ATTRIBUTE,
                grace_period=scheduler.grace_epochs,
                min_samples_required=scheduler.min_trials,
                hard_stop=True,
            )
        case HyperBand():
            return Brackets(
                **compared,
                time_attr=TIME_ATTRIBUTE,
                max_t=num_epochs,
                reduction_factor=scheduler.reduction_factor,
            )
        case PBT():
            ranges = changeable(space)

            def in_range(config: dict[str, Any]) -> dict[str, Any]:
                moved = {k: nearest(r, config["params"][k]) for k, r in ranges.items()}
                return {**config, "params": {**config["params"], **moved}}

            return Population(
                **compared,
                time_attr=TIME_ATTRIBUTE,
                perturbation_interval=scheduler.interval_epochs,
                quantile_fraction=scheduler.quantile_fraction,
                resample_probability=scheduler.resample_probability,
                hyperparam_mutations={"params": {k: domain(r) for k, r in ranges.items()}},
                custom_explore_fn=in_range,
                log_config=False,
            )
        case NoScheduler():
            return InOrder()
