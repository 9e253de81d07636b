"""Early stopping and populations: Ray Tune schedulers with ``epoch`` as their time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from search_spaces.schema import Choice, FloatRange, IntRange, Range, SearchSpace
from tuning.config import ASHA, PBT, HyperBand, Median, NoScheduler, Scheduler
from tuning.space import changeable

TIME_ATTRIBUTE = "epoch"
# These pause trials to let others run: a limit on live trials would make them wait for ever.
PAUSING = (HyperBand, PBT)


class Population(PopulationBasedTraining):
    """Ray refuses a searcher beside a population; here it only draws the first parameters."""

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_add(SimpleNamespace(search_alg=None), trial)


def make_scheduler(scheduler: Scheduler, num_epochs: int, space: SearchSpace) -> TrialScheduler:
    """The scheduler of a configuration; metric and mode come from the sweep."""
    match scheduler:
        case ASHA():
            return AsyncHyperBandScheduler(
                time_attr=TIME_ATTRIBUTE,
                grace_period=min(scheduler.grace_epochs, num_epochs),
                reduction_factor=scheduler.reduction_factor,
                max_t=num_epochs,
            )
        case Median():
            return MedianStoppingRule(
                time_attr=TIME_ATTRIBUTE,
                grace_period=scheduler.grace_epochs,
                min_samples_required=scheduler.min_trials,
                hard_stop=True,
            )
        case HyperBand():
            return HyperBandScheduler(
                time_attr=TIME_ATTRIBUTE,
                max_t=num_epochs,
                reduction_factor=scheduler.reduction_factor,
            )
        case PBT():
            ranges = changeable(space)

            def within_bounds(config: dict[str, Any]) -> dict[str, Any]:
                params = config["params"]
                return {**config, "params": {k: _within(ranges.get(k), params[k]) for k in params}}

            return Population(
                time_attr=TIME_ATTRIBUTE,
                perturbation_interval=scheduler.interval_epochs,
                quantile_fraction=scheduler.quantile_fraction,
                resample_probability=scheduler.resample_probability,
                hyperparam_mutations={"params": {k: _domain(r) for k, r in ranges.items()}},
                custom_explore_fn=within_bounds,
                log_config=False,
            )
        case NoScheduler():
            return FIFOScheduler()


def _domain(spec: Range) -> Any:
    """Ray Tune's own form of a range, from which a population draws anew."""
    match spec:
        case FloatRange(log=True):
            return tune.loguniform(spec.low, spec.high)
        case FloatRange():
            return tune.uniform(spec.low, spec.high)
        case IntRange():
            return tune.qrandint(spec.low, spec.high, spec.step)
        case Choice():
            return list(spec.choices)
    raise TypeError(f"{type(spec).__name__} cannot be drawn from")


def _within(spec: Range | None, value: Any) -> Any:
    """A perturbed value brought back between its bounds, on its steps."""
    if not isinstance(spec, FloatRange | IntRange):
        return value
    value = min(max(value, spec.low), spec.high)
    if spec.step:
        value = spec.low + round((value - spec.low) / spec.step) * spec.step
    return int(value) if isinstance(spec, IntRange) else value
