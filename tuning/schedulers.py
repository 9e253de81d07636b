"""Early stopping: Ray Tune schedulers with ``epoch`` as their time."""

from __future__ import annotations

from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from tuning.config import ASHA, Median, NoScheduler, Scheduler

TIME_ATTRIBUTE = "epoch"


def make_scheduler(scheduler: Scheduler, num_epochs: int) -> TrialScheduler:
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
        case NoScheduler():
            return FIFOScheduler()
