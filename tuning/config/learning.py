"""What a search learns from in a sweep like this one, where that is less than its name promises."""

from __future__ import annotations

from collections.abc import Iterator

from tuning.config.sweep import (
    ASHA,
    START,
    AutoSearch,
    CMAESSearch,
    GPSearch,
    NoScheduler,
    SweepConfig,
    TPESearch,
)

GP_BEGINS = 10  # finished trials; Optuna's own number
CHANGE = "`search.type=auto` learns from stopped trials, too"


def describe_learning(config: SweepConfig) -> Iterator[str]:
    """Lines for whoever is about to launch it; none where there is nothing to be said."""
    trials, finishing, group = config.num_trials, _finishing(config), _group(config)
    match config.search:
        case AutoSearch() if trials > START and -(-START // group) * group >= trials:
            yield (
                f"with a `group` of {group} no result is known before all {trials} trials are "
                "drawn: they fill the space"
            )
        case TPESearch(startup_trials=startup) if startup:
            random = min(-(-startup // group) * group, trials)
            yield f"the first {random} of {trials} trials are drawn at random"
        case GPSearch() if finishing < GP_BEGINS + 1:
            yield (
                f"gp begins after {GP_BEGINS} finished trials, and about {finishing:.0f} of "
                f"{trials} will finish: all are drawn at random; {CHANGE}"
            )
        case GPSearch() | CMAESSearch() if finishing < trials:
            yield (
                f"{config.search.type} learns from finished trials alone, about {finishing:.0f} of "
                f"{trials}; {CHANGE}"
            )


def _group(config: SweepConfig) -> int:
    """Trials that are suggested together."""
    ordered = isinstance(config.scheduler, ASHA | NoScheduler) and config.deterministic is not False
    return config.group if ordered else 1


def _finishing(config: SweepConfig) -> float:
    """Trials that are trained to their last epoch, as far as the scheduler's rule tells."""
    scheduler = config.scheduler
    if not isinstance(scheduler, ASHA):
        return float(config.num_trials)
    rungs = scheduler.rungs(config.train.training.num_epochs)
    return max(1.0, config.num_trials / scheduler.reduction_factor ** len(rungs))
