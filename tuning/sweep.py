"""A sweep from its first second to its last: prepare, search, watch, finish."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import RayError
from ray.tune import PlacementGroupFactory, ResultGrid
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from rich.console import Console

from trainables.errors import UserError
from trainables.files import file_digest, wait_for_room, without_home, write_text
from tuning.cluster import Cluster, ray_cluster
from tuning.config import (
    ASHA,
    PBT,
    NoScheduler,
    ResolvedSweep,
    SweepConfig,
    dump_sweep,
    load_sweep,
)
from tuning.execution import Execution, open_execution
from tuning.fleet import FleetGoneError
from tuning.halving import Halving, rungs_of
from tuning.mailbox import DRIVER_SHARE, HEAD_NODE
from tuning.monitors.base import Monitor
from tuning.monitors.callback import SweepCallback
from tuning.monitors.gauges import GaugeMonitor
from tuning.monitors.room import RoomCallback
from tuning.monitors.table import TableMonitor, make_console
from tuning.monitors.wandb import WandbMonitor
from tuning.resuming import take_up
from tuning.schedulers import PAUSING, SuccessiveHalving, make_scheduler, recall
from tuning.search import OptunaSearcher, Start, Suggestions, export_study
from tuning.space import searched_values
from tuning.stopping import StopCallback, StopRequests, SweepStopped
from tuning.store import (
    CONFIG_FILE,
    TUNE_DIR,
    Event,
    EventLog,
    SweepLock,
    SweepRecord,
    now,
    read_created,
    read_manifest,
    read_sweep,
    trial_name,
    with_checksum,
    write_manifest,
)
from tuning.terminal import program, run_tune, shown_path

# The copies of the data in a sweep's directory, by their keys in its configuration.
INPUTS = {"tool_registry": "inputs/tools.json", "profiling_data": "inputs/profiling.csv"}
CHECKPOINTS_PER_TRIAL = 2
PACKAGES = ("torch", "transformers", "ray", "optuna", "wandb")
Say = Callable[[str], None]
_log = logging.getLogger(__name__)


def launch(sweep: ResolvedSweep, say: Say) -> None:
    """Run a new sweep to its end; ``sweep`` has been checked, its directory does not exist."""
    directory = sweep.directory
    data = sweep.config.train.data
    create_directory(sweep)
    with _locked(directory):
        config = read_config(directory)
        where = shown_path(directory)
        say(f"[1/4] Sweep {sweep.name}: {config.num_trials} trials, written to {where}")
        for path in (data.tool_registry, data.profiling_data):
            say(f"      {shown_path(Path(path))}")
        record = SweepRecord(sweep.name, config.metric, config.mode, config.num_trials)
        try:
            _run(directory, config, record, say)
        except UserError:
            if not record.trials:  # nothing was made that could be resumed
                shutil.rmtree(directory, ignore_errors=True)
            raise


def resume(
    directory: Path, overrides: Sequence[str], say: Say, *, retry_failed: bool = False
) -> None:
    """Go on with a sweep where its history ends, with whatever may be changed changed."""
    with _locked(directory):
        config = read_config(directory, overrides)
        check_inputs(directory)
        if overrides:
            write_config(directory, config, say)
        record = read_sweep(directory)
        over = sum(t.ended is not None for t in record.trials.values())
        say(
            f"[1/4] Sweep {record.name}: going on with {over} of {config.num_trials} trials over, "
            f"in {shown_path(directory)}"
        )
        _run(directory, config, record, say, retry_failed=retry_failed)


def results(directory: Path) -> ResultGrid:
    """Ray Tune's own view of a sweep, its checkpoints included.

    Every process that ran a part of the sweep has left its own; the last one knows best.
    """
    manifest = read_manifest(directory)
    by_name: dict[str, Trial] = {}
    for state in sorted((directory / TUNE_DIR).glob("experiment_state-*.json")):
        for trial in tune.ExperimentAnalysis(str(state)).trials or ():
            by_name[str(trial)] = trial
    return ResultGrid(
        tune.ExperimentAnalysis(
            str(directory / TUNE_DIR),
            default_metric=manifest["metric"],
            default_mode=manifest["mode"],
            trials=[by_name[name] for name in sorted(by_name)],
        )
    )


# What a resumed sweep may do otherwise; all else would make its trials incomparable.
MAY_CHANGE = (
    "num_trials",
    "time_budget",
    "search_space",
    "search",
    "scheduler",
    "max_concurrent",
    "execution",
    "retries",
    "keep_best",
)


def read_config(directory: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """A sweep's configuration as its history has it, and what ``overrides`` make of it."""
    path = directory / CONFIG_FILE
    recorded = read_created(directory)
    if recorded is not None and (not path.is_file() or path.read_bytes() != _bytes(recorded)):
        _log.warning("%s is damaged or was changed: put back from the history", path)
        write_text(path, recorded["sweep"])
    config = load_sweep(path)
    if not overrides:
        return config
    changed = load_sweep(path, overrides)
    for key in SweepConfig.model_fields:
        if key not in MAY_CHANGE and getattr(changed, key) != getattr(config, key):
            raise UserError(
                f"`{key}` cannot be changed in a sweep that has begun; can be: "
                f"{', '.join(MAY_CHANGE)}; start another with `launch`"
            )
    return changed


def _bytes(created: Event) -> bytes:
    return str(created["sweep"]).encode()


def write_config(directory: Path, config: SweepConfig, say: Say) -> None:
    """A changed configuration, in the history first: what is there counts."""
    manifest = {**read_manifest(directory), "num_trials": config.num_trials}
    text = dump_sweep(_portable(config))
    _write_created(directory, manifest, text, say)
    wait_for_room(lambda: write_manifest(directory, manifest), directory, say)
    wait_for_room(lambda: write_text(directory / CONFIG_FILE, text), directory, say)


def _write_created(directory: Path, manifest: dict[str, Any], text: str, say: Say) -> None:
    log = EventLog(directory, say)
    log.write({"event": "created", "manifest": with_checksum(manifest), "sweep": text})
    log.close()


def check_inputs(directory: Path) -> None:
    """The copies of the data must be those that the sweep began with."""
    for name, digest in read_manifest(directory)["inputs"].items():
        path = directory / "inputs" / name
        if not path.is_file() or file_digest(path) != digest:
            state = "damaged or changed" if path.is_file() else "missing"
            raise UserError(
                f"{path} is {state}, and the sweep cannot go on without the data it began with; "
                "put the original file there"
            )


def create_directory(sweep: ResolvedSweep) -> None:
    """The sweep's directory with copies of its inputs, whole or not at all."""
    directory, config = sweep.directory, sweep.config
    aside = directory.with_name(f".{directory.name}.aside-{os.getpid()}")
    data = config.train.data
    try:
        (aside / "inputs").mkdir(parents=True)
        for key, copy in INPUTS.items():
            shutil.copyfile(getattr(data, key), aside / copy)
        text, manifest = dump_sweep(_portable(config)), _manifest(sweep, aside)
        write_text(aside / CONFIG_FILE, text)
        write_manifest(aside, manifest)
        _write_created(aside, manifest, text, _refuse)
        aside.rename(directory)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise UserError(f"the name `{sweep.name}` is already used: {directory}") from None
        raise UserError(f"`storage`: {directory} cannot be written: {error}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _refuse(line: str) -> None:
    """Nobody waits for room before a sweep has begun."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _portable(config: SweepConfig) -> SweepConfig:
    """Data paths below the sweep's directory; the cache relative to the working directory.

    The directory may be moved, and others may read it.
    """
    cache = Path(config.train.model.cache_dir)
    if cache.is_relative_to(Path.cwd()):
        cache = cache.relative_to(Path.cwd())
    model = config.train.model.model_copy(update={"cache_dir": str(cache)})
    data = config.train.data.model_copy(update=INPUTS)
    train = config.train.model_copy(update={"model": model, "data": data})
    storage = Path(config.storage).expanduser().absolute()
    if storage.is_relative_to(Path.cwd()):
        storage = storage.relative_to(Path.cwd())
    whole = config.model_copy(update={"train": train, "storage": str(storage)})
    return SweepConfig.model_validate(without_home(whole.model_dump(mode="json")))


def _manifest(sweep: ResolvedSweep, directory: Path) -> dict[str, Any]:
    inputs = sorted((directory / "inputs").iterdir())
    return {
        "name": sweep.name,
        "created": now(),
        "metric": sweep.config.metric,
        "mode": sweep.config.mode,
        "num_trials": sweep.config.num_trials,
        "num_epochs": sweep.config.train.training.num_epochs,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "inputs": {path.name: file_digest(path) for path in inputs},
    }


@contextlib.contextmanager
def _locked(directory: Path) -> Any:
    """One process at a time; what the system refuses in the directory is told in one line."""
    lock = SweepLock(directory)
    lock.acquire()
    try:
        yield
    except OSError as error:
        path = Path(os.fsdecode(error.filename2 or error.filename or ""))
        if not path.is_relative_to(directory):
            raise
        raise UserError(
            f"{path} cannot be used: {error.strerror}; nothing is lost, go on when it can: "
            f"{run_tune('resume', str(directory))}"
        ) from None
    finally:
        lock.release()


def _run(
    directory: Path,
    config: SweepConfig,
    record: SweepRecord,
    say: Say,
    *,
    retry_failed: bool = False,
) -> None:
    requests = StopRequests(directory, config.time_budget)
    callback = SweepCallback(
        record,
        EventLog(directory, say, requests.wait),
        directory,
        None if isinstance(config.scheduler, PBT) else config.keep_best,
    )
    try:
        with requests.listening():
            _train(directory, config, record, callback, requests, say, retry_failed)
    except SweepStopped as stopped:
        with contextlib.suppress(SweepStopped):  # no room, and nobody wants to wait for it
            callback.sweep_event("interrupted", stopped.reason)
    except (RayError, FleetGoneError, ConnectionError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        callback.sweep_event("interrupted", f"Ray failed: {reason}")
    finally:
        callback.close()
    with contextlib.suppress(SweepStopped):
        derive = partial(_derive, directory, config, record)
        wait_for_room(derive, directory, say, requests.wait)


def _train(
    directory: Path,
    config: SweepConfig,
    record: SweepRecord,
    callback: SweepCallback,
    requests: StopRequests,
    say: Say,
    retry_failed: bool,
) -> None:
    say("[2/4] Ray")
    console = make_console()
    # Once more: Ray has put its own handlers in the place of ours.
    with ray_cluster(directory / "logs" / "ray.log") as cluster, requests.listening():
        say(f"      {_resources(cluster)}")
        if cluster.dashboard:
            token = f"{program('ray')} get-auth-token"
            say(f"      dashboard http://{cluster.dashboard} (its token: run `{token}`)")
        if config.deterministic is None:
            config = config.model_copy(update={"deterministic": not cluster.has_gpu})
            write_config(directory, config, say)
        train = config.train
        training = train.training.model_copy(update={"deterministic": config.deterministic})
        train = train.model_copy(update={"training": training})
        trials = directory / TUNE_DIR
        starts = take_up(
            directory, trials, record, training, callback.tell, retry_failed=retry_failed
        )
        say("[3/4] Frozen LLM, tool embeddings, target texts: once for all trials")
        with open_execution(directory, config, train, cluster, say) as execution:
            say("[4/4] Trials")
            callback.watch(_monitors(directory, config, record, execution, console))
            callback.sweep_event("running")
            try:
                with requests.only_between_events():
                    run_tune_experiment(
                        directory, config, execution, record, starts, callback, requests, say
                    )
            except SweepStopped:
                with contextlib.suppress(RayError):
                    execution.save()
                raise
            callback.hosts_event(execution.hosts())
            callback.sweep_event(*_outcome(record))


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


def _derive(directory: Path, config: SweepConfig, record: SweepRecord) -> None:
    """What others read of a sweep, made from its history: nothing in it can be missing or twice."""
    export_study(record, config.search_space, directory / "study.journal")
    for trial in record.trials.values():
        folder = directory / TUNE_DIR / trial.trial_id
        if folder.is_dir():
            rows = [
                {
                    **trial.reports[epoch],
                    "training_iteration": epoch,
                    "trial_id": trial.trial_id,
                    "config": trial.params,
                }
                for epoch in sorted(trial.reports)
            ]
            write_text(folder / "result.json", "".join(json.dumps(row) + "\n" for row in rows))
    if record.best() is not None:
        from tuning.export import write_best

        write_best(directory, record, directory / "best", replace=True)


def _checkpoints_kept(config: SweepConfig) -> int:
    """Of each trial; a population copies those of the last comparison."""
    match config.scheduler:
        case PBT(interval_epochs=epochs):
            return 2 * (epochs + CHECKPOINTS_PER_TRIAL)
        case _:
            return CHECKPOINTS_PER_TRIAL


def _name(trial: Trial) -> str:
    return trial_name(trial.config["number"])


def _resources(cluster: Cluster) -> str:
    return f"{cluster.slots} {'GPUs' if cluster.has_gpu else 'CPU cores, no GPU'}"


def _monitors(
    directory: Path,
    config: SweepConfig,
    record: SweepRecord,
    execution: Execution,
    console: Console,
) -> list[Monitor]:
    monitors: list[Monitor] = [
        TableMonitor(record, config.train.training.num_epochs, console),
        GaugeMonitor(record.name),
    ]
    if config.log_wandb:
        monitors.append(
            WandbMonitor(
                directory / "wandb_runs",
                config.train.logging.wandb_project,
                record.name,
                json.loads(config.train.model_dump_json()),
                execution.num_tools,
                execution.hidden_size,
            )
        )
    return monitors


def _outcome(record: SweepRecord) -> tuple[str, str]:
    """The state a sweep ends in, and why."""
    ended = [t for t in record.trials.values() if t.ended is not None]
    if len(ended) < record.num_trials:
        return "interrupted", f"{len(ended)} of {record.num_trials} trials ended"
    if all(t.status == "failed" for t in ended):
        return "failed", f"all trials failed; the first: {ended[0].message}"
    return "finished", ""
