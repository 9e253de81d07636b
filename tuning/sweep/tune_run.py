"""A sweep as Ray Tune's experiment: searcher, scheduler and what they may know of each other."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ray import tune
from ray.exceptions import RayError
from ray.tune import PlacementGroupFactory
from ray.tune.error import TuneError
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from tuning.config.space import searched_values
from tuning.config.sweep import ASHA, PBT, START, AutoSearch, NoScheduler, SweepConfig
from tuning.execution.execution import Execution
from tuning.execution.mailbox import DRIVER_SHARE
from tuning.execution.process_state import environment
from tuning.history.record import TUNE_DIR, SweepRecord, trial_name
from tuning.ray_internals import HEAD_NODE, retrying_controller
from tuning.search.auto import load_model_beside
from tuning.search.halving import Halving
from tuning.search.ray_searcher import OptunaSearcher, Start
from tuning.search.schedulers import PAUSING, SuccessiveHalving, make_scheduler, recall
from tuning.search.suggestions import Suggestions
from tuning.sweep.disk_watch import RoomCallback
from tuning.sweep.running import RunningSweep
from tuning.sweep.stopping import StopCallback

CHECKPOINTS_PER_TRIAL = 2  # the one before is used where the last one is damaged


def run_tune_experiment(sweep: RunningSweep, execution: Execution, starts: Sequence[Start]) -> None:
    """All trials, to their ends; raises SweepStopped where the sweep shall end before."""
    config = sweep.config
    # Its own name: the cluster keeps trainables by name, and may run another sweep.
    name = f"pretrain_encoder_{uuid.uuid4().hex}"
    tune.register_trainable(name, execution.trainable)
    halving = _halving(config, sweep.record)
    scheduler = _scheduler(sweep, execution, halving)
    searcher = _searcher(sweep, execution, starts, halving, scheduler)
    if searcher.has_ended:
        return
    pausing = isinstance(config.scheduler, PAUSING)
    # They compare trials that have to be there, not those that happen to have come.
    pending = config.num_trials if pausing else execution.concurrent
    share = 0.9 / execution.concurrent if pausing else DRIVER_SHARE
    with (
        environment({"TUNE_MAX_PENDING_TRIALS_PG": str(pending)}),
        retrying_controller(),
        _own_errors(),
    ):
        tune.run(
            name,
            name=TUNE_DIR,
            storage_path=str(sweep.directory),
            num_samples=searcher.left,
            resources_per_trial=PlacementGroupFactory([{HEAD_NODE: share}]),
            search_alg=searcher,
            scheduler=scheduler,
            checkpoint_config=tune.CheckpointConfig(num_to_keep=_checkpoints_kept(config)),
            max_failures=config.retries,
            raise_on_failed_trial=False,  # one that fails ends alone; the history tells it
            reuse_actors=execution.reuse_actors,
            callbacks=[
                StopCallback(sweep.requests.check),
                *execution.callbacks,  # first: what they raise is not to be a trial's failure
                sweep.history,
                RoomCallback(sweep),
            ],
            trial_name_creator=_name,
            trial_dirname_creator=_name,
            verbose=0,  # the monitors show the sweep
        )


@contextmanager
def _own_errors() -> Iterator[None]:
    """What was raised while Ray Tune handled an event, instead of the text that it makes of it."""
    try:
        yield
    except TuneError as error:
        if isinstance(error.__context__, RayError | OSError):
            raise error.__context__ from None
        raise


def _scheduler(
    sweep: RunningSweep, execution: Execution, halving: Halving | None
) -> TrialScheduler:
    """With everything in mind that the history tells."""
    config = sweep.config
    if halving is not None:
        return SuccessiveHalving(halving, config.metric, execution.limit)
    epochs = config.train.training.num_epochs
    made = make_scheduler(config.scheduler, epochs, config.search_space, config.metric, config.mode)
    return recall(made, sweep.record)


def _searcher(
    sweep: RunningSweep,
    execution: Execution,
    starts: Sequence[Start],
    halving: Halving | None,
    scheduler: TrialScheduler,
) -> OptunaSearcher:
    """It hands out a trial when there is room and everything is known that decides about it."""
    config, record = sweep.config, sweep.record

    def room(live: int) -> bool:
        if isinstance(scheduler, SuccessiveHalving):
            return scheduler.room
        return isinstance(config.scheduler, PAUSING) or live < execution.limit()

    def goes_on(start: Start) -> bool | None:
        epoch = record.trials[trial_name(start.number)].epoch
        return True if halving is None else halving.goes_on(start.number, epoch)

    def stop(number: int) -> None:
        if halving is not None:
            halving.end(number)
        sweep.history.stopped_early(trial_name(number))

    fixed = searched_values(config.train, config.search_space)
    if isinstance(config.search, AutoSearch) and config.num_trials > START:
        load_model_beside()
    suggestions = Suggestions(
        config.search_space, config.search, record, halving, config.warm_start, fixed=fixed
    )
    return OptunaSearcher(suggestions, record, starts, room=room, goes_on=goes_on, stop=stop)


def _halving(config: SweepConfig, record: SweepRecord) -> Halving | None:
    """What makes a sweep independent of the order of arrival, where that is wanted and known."""
    if not config.deterministic:
        return None
    match config.scheduler:
        case ASHA() as asha:
            rungs = asha.rungs(config.train.training.num_epochs)
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
