"""A sweep as Ray Tune's experiment: searcher, scheduler and what they may know of each other."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from ray import tune
from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from tuning.config import (
    ASHA,
    PBT,
    NoScheduler,
    SweepConfig,
)
from tuning.execution import Execution
from tuning.halving import Halving, rungs_of
from tuning.mailbox import DRIVER_SHARE, HEAD_NODE
from tuning.monitors.callback import SweepCallback
from tuning.monitors.room import RoomCallback
from tuning.record import TUNE_DIR, SweepRecord, trial_name
from tuning.schedulers import PAUSING, SuccessiveHalving, make_scheduler, recall
from tuning.search import OptunaSearcher, Start, Suggestions
from tuning.space import searched_values
from tuning.stopping import StopCallback, StopRequests

Say = Callable[[str], None]

CHECKPOINTS_PER_TRIAL = 2


def run_tune_experiment(
    directory: Path,
    config: SweepConfig,
    execution: Execution,
    record: SweepRecord,
    starts: Sequence[Start],
    callback: SweepCallback,
    requests: StopRequests,
    say: Say,
) -> None:
    execution.trainable.__qualname__ = "Trial"  # what the dashboard shows as its class
    # Its own name: the cluster keeps trainables by name, and may run another sweep.
    name = f"pretrain_encoder_{uuid.uuid4().hex}"
    tune.register_trainable(name, execution.trainable)
    halving = _halving(config, record)
    pausing = isinstance(config.scheduler, PAUSING)
    if pausing:  # it compares trials that have to be there, not those that happen to have come
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(config.num_trials)
    else:
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(execution.concurrent)
    epochs = config.train.training.num_epochs
    if halving is not None:
        scheduler: TrialScheduler = SuccessiveHalving(halving, config.metric, execution.limit)
    else:
        made = make_scheduler(
            config.scheduler, epochs, config.search_space, config.metric, config.mode
        )
        scheduler = recall(made, record)
    live: set[str] = set()

    def room() -> bool:
        if isinstance(scheduler, SuccessiveHalving):
            return scheduler.room
        return pausing or len(live) < execution.limit()

    def goes_on(start: Start) -> bool | None:
        epoch = record.trials[trial_name(start.number)].epoch
        return True if halving is None else halving.goes_on(start.number, epoch)

    def stop(number: int) -> None:
        if halving is not None:
            halving.end(number)
        callback.stopped_early(trial_name(number))

    searcher = OptunaSearcher(
        Suggestions(
            config.search_space,
            config.search,
            record,
            halving,
            config.warm_start,
            fixed=searched_values(config.train, config.search_space),
        ),
        record,
        starts,
        live,
        room=room,
        goes_on=goes_on,
        stop=stop,
    )
    if searcher.has_ended:
        return
    share = 0.9 / execution.concurrent if pausing else DRIVER_SHARE
    tune.run(
        name,
        name=TUNE_DIR,
        storage_path=str(directory),
        num_samples=searcher.left,
        resources_per_trial=PlacementGroupFactory([{HEAD_NODE: share}]),
        search_alg=searcher,
        scheduler=scheduler,
        checkpoint_config=tune.CheckpointConfig(num_to_keep=_checkpoints_kept(config)),
        max_failures=config.retries,
        raise_on_failed_trial=False,
        reuse_actors=execution.reuse_actors,
        callbacks=[
            StopCallback(requests.check),
            callback,
            RoomCallback(directory, record, say),
            *execution.callbacks,
        ],
        trial_name_creator=_name,
        trial_dirname_creator=_name,
        verbose=0,
    )


def _halving(config: SweepConfig, record: SweepRecord) -> Halving | None:
    """What makes a sweep independent of the order of arrival, where that is wanted and known."""
    if not config.deterministic:
        return None
    match config.scheduler:
        case ASHA() as asha:
            epochs = config.train.training.num_epochs
            rungs = rungs_of(min(asha.grace_epochs, epochs), asha.reduction_factor, epochs)
            return Halving.of_record(record, rungs, asha.reduction_factor, config.group)
        case NoScheduler():
            return Halving.of_record(record, (), 2, config.group)
        case _:
            return None


def _checkpoints_kept(config: SweepConfig) -> int:
    """Of each trial; a population copies those of the last comparison."""
    match config.scheduler:
        case PBT(interval_epochs=epochs):
            return 2 * (epochs + CHECKPOINTS_PER_TRIAL)
        case _:
            return CHECKPOINTS_PER_TRIAL


def _name(trial: Trial) -> str:
    return trial_name(trial.config["number"])
