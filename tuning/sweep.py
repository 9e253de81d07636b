"""A sweep from its first second to its last: prepare, search, watch, finish."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import PlacementGroupFactory, ResultGrid
from ray.tune.experiment import Trial
from ray.tune.logger import JsonLoggerCallback
from ray.tune.search import ConcurrencyLimiter, Searcher
from rich.console import Console

from trainables.errors import UserError
from trainables.files import file_digest, write_text
from tuning.cluster import Cluster, ray_cluster
from tuning.config import (
    PBT,
    NoScheduler,
    QMCSearch,
    RandomSearch,
    ResolvedSweep,
    SweepConfig,
    dump_sweep,
    load_sweep,
)
from tuning.execution import Execution, open_execution
from tuning.mailbox import DRIVER_SHARE, HEAD_NODE
from tuning.monitors.base import Monitor
from tuning.monitors.callback import SweepCallback
from tuning.monitors.gauges import GaugeMonitor
from tuning.monitors.table import TableMonitor, make_console
from tuning.monitors.wandb import WandbMonitor
from tuning.schedulers import PAUSING, make_scheduler
from tuning.search import OptunaSearcher, export_study
from tuning.store import (
    CONFIG_FILE,
    EventLog,
    SweepLock,
    SweepRecord,
    now,
    read_manifest,
    read_sweep,
    write_manifest,
)
from tuning.terminal import program, shown_path

TUNE_DIR = "tune"
TRAINABLE_NAME = "pretrain_encoder"
TRIAL_RESTARTS = 1
CHECKPOINTS_PER_TRIAL = 2
PACKAGES = ("torch", "transformers", "ray", "optuna", "wandb")
Say = Callable[[str], None]


def launch(sweep: ResolvedSweep, say: Say) -> None:
    """Run a new sweep to its end; ``sweep`` has been checked, its directory does not exist."""
    directory = sweep.directory
    data = sweep.config.train.data
    create_directory(sweep)
    with _locked(directory):
        config = load_sweep(directory / CONFIG_FILE)
        where = shown_path(directory)
        say(f"[1/4] Sweep {sweep.name}: {config.num_trials} trials, written to {where}")
        for path in (data.tool_registry, data.profiling_data):
            say(f"      {shown_path(Path(path))}")
        record = SweepRecord(sweep.name, config.metric, config.mode, config.num_trials)
        try:
            _run(directory, config, record, resume=False, say=say)
        except UserError:
            if not record.trials:  # nothing was made that could be resumed
                shutil.rmtree(directory, ignore_errors=True)
            raise


def resume(directory: Path, say: Say) -> None:
    """Go on with an interrupted sweep, from Ray's checkpoints and the searcher's state."""
    config = load_sweep(directory / CONFIG_FILE)
    with _locked(directory):
        record = read_sweep(directory)
        say(f"[1/4] Sweep {record.name}: going on where it was, in {shown_path(directory)}")
        started = any((directory / TUNE_DIR).glob("experiment_state-*.json"))
        _run(directory, config, record, resume=started, say=say)


def results(directory: Path) -> ResultGrid:
    """Ray Tune's own view of a sweep, its checkpoints included."""
    manifest = read_manifest(directory)
    return ResultGrid(
        tune.ExperimentAnalysis(
            str(directory / TUNE_DIR),
            default_metric=manifest["metric"],
            default_mode=manifest["mode"],
        )
    )


def create_directory(sweep: ResolvedSweep) -> None:
    """The sweep's directory with copies of its inputs, whole or not at all."""
    directory, config = sweep.directory, sweep.config
    aside = directory.with_name(f".{directory.name}.aside-{os.getpid()}")
    data = config.train.data
    copies = {"tool_registry": "inputs/tools.json", "profiling_data": "inputs/profiling.csv"}
    try:
        (aside / "inputs").mkdir(parents=True)
        for key, copy in copies.items():
            shutil.copyfile(getattr(data, key), aside / copy)
        portable = _portable(config, copies)
        write_text(aside / CONFIG_FILE, dump_sweep(portable))
        write_manifest(aside, _manifest(sweep, aside))
        aside.rename(directory)
    except FileExistsError:
        raise UserError(f"the name `{sweep.name}` is already used: {directory}") from None
    except OSError as error:
        raise UserError(f"`storage`: {directory} cannot be written: {error}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _portable(config: SweepConfig, copies: dict[str, str]) -> SweepConfig:
    """Data paths below the sweep's directory; the cache relative to the working directory."""
    cache = Path(config.train.model.cache_dir)
    if cache.is_relative_to(Path.cwd()):
        cache = cache.relative_to(Path.cwd())
    model = config.train.model.model_copy(update={"cache_dir": str(cache)})
    data = config.train.data.model_copy(update=copies)
    train = config.train.model_copy(update={"model": model, "data": data})
    return config.model_copy(update={"train": train})


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
    lock = SweepLock(directory)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _run(
    directory: Path, config: SweepConfig, record: SweepRecord, *, resume: bool, say: Say
) -> None:
    train = config.train
    say("[2/4] Ray")
    console = make_console()
    with ray_cluster(directory / "logs" / "ray.log") as cluster:
        say(f"      {_resources(cluster)}")
        if cluster.dashboard:
            token = f"{program('ray')} get-auth-token"
            say(f"      dashboard http://{cluster.dashboard} (its token: run `{token}`)")
        if config.deterministic is None:
            config = config.model_copy(update={"deterministic": not cluster.has_gpu})
        training = train.training.model_copy(update={"deterministic": config.deterministic})
        train = train.model_copy(update={"training": training})
        say("[3/4] Frozen LLM, tool embeddings, target texts: once for all trials")
        with open_execution(directory, config, train, cluster, say) as execution:
            say("[4/4] Trials")
            callback = SweepCallback(
                record,
                EventLog(directory),
                directory,
                _monitors(directory, config, record, execution, console),
            )
            space, search = config.search_space, config.search
            searcher = OptunaSearcher(space, search, config.metric, config.mode)
            try:
                callback.sweep_event("running")
                run_tune_experiment(directory, config, execution, searcher, callback, resume)
                callback.hosts_event(execution.hosts())
                callback.sweep_event(*_outcome(record))
            finally:
                callback.close()
    searcher.close()
    export_study(searcher.study, directory / "study.journal", record.name)
    if record.best() is not None:
        from tuning.export import export_best

        export_best(directory, record, directory / "best", replace=True)


def run_tune_experiment(
    directory: Path,
    config: SweepConfig,
    execution: Execution,
    searcher: OptunaSearcher,
    callback: SweepCallback,
    resume: bool,
) -> None:
    execution.trainable.__qualname__ = "Trial"  # what the dashboard shows as its class
    tune.register_trainable(TRAINABLE_NAME, execution.trainable)
    epochs = config.train.training.num_epochs
    pausing = isinstance(config.scheduler, PAUSING)
    if pausing:  # it compares trials that have to be there, not those that happen to have come
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(config.num_trials)
    tune.run(
        TRAINABLE_NAME,
        name=TUNE_DIR,
        storage_path=str(directory),
        metric=config.metric,
        mode=config.mode,
        num_samples=config.num_trials,
        resources_per_trial=PlacementGroupFactory(
            [{HEAD_NODE: 0.9 / execution.concurrent if pausing else DRIVER_SHARE}]
        ),
        search_alg=searcher if pausing else _limited(config, searcher, execution.concurrent),
        scheduler=make_scheduler(config.scheduler, epochs, config.search_space),
        checkpoint_config=tune.CheckpointConfig(num_to_keep=_checkpoints_kept(config)),
        max_failures=TRIAL_RESTARTS,
        raise_on_failed_trial=False,
        reuse_actors=execution.reuse_actors,
        callbacks=[callback, *execution.callbacks, JsonLoggerCallback()],
        trial_name_creator=_name,
        trial_dirname_creator=_name,
        resume="AUTO" if resume else None,
        verbose=0,
    )


def _limited(config: SweepConfig, searcher: OptunaSearcher, concurrent: int) -> Searcher:
    """As many live trials as can train.

    A batch waits for its slowest trial. That buys repeatable suggestions only where they depend on
    results and nothing else depends on the order of arrival, as early stopping does.
    """
    learns = not isinstance(config.search, RandomSearch | QMCSearch)
    batch = bool(config.deterministic) and learns and isinstance(config.scheduler, NoScheduler)
    return ConcurrencyLimiter(searcher, max_concurrent=concurrent, batch=batch)


def _checkpoints_kept(config: SweepConfig) -> int:
    """Of each trial; a population copies those of the last comparison."""
    match config.scheduler:
        case PBT(interval_epochs=epochs):
            return 2 * (epochs + CHECKPOINTS_PER_TRIAL)
        case _:
            return CHECKPOINTS_PER_TRIAL


def _name(trial: Trial) -> str:
    return f"trial_{trial.config['number']:04d}"


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
