"""A sweep from its first second to its last: prepare, search, watch, finish."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ray.exceptions import RayError
from rich.console import Console

from trainables.errors import UserError
from trainables.files import wait_for_room
from trainables.statuses import Status
from tuning.config.space import describe_steps
from tuning.config.sweep import PBT, ResolvedSweep, SweepConfig
from tuning.execution.cluster import Cluster, RayStartError, ray_cluster
from tuning.execution.execution import Execution
from tuning.execution.fleet import FleetGoneError
from tuning.execution.opening import open_execution
from tuning.history.events import EventLog
from tuning.history.record import TUNE_DIR, SweepRecord, SweepState
from tuning.history.sweeps import read_sweep
from tuning.monitors.base import Monitor
from tuning.monitors.gauges import GaugeMonitor
from tuning.monitors.table import TableMonitor
from tuning.monitors.wandb import WandbMonitor
from tuning.sweep.derived import write_derived
from tuning.sweep.directory import (
    check_inputs,
    create_directory,
    locked,
    raise_format,
    read_config,
    write_config,
)
from tuning.sweep.history_writer import SweepCallback
from tuning.sweep.resuming import take_up
from tuning.sweep.stopping import StopRequests, SweepStopped
from tuning.sweep.tune_run import run_tune_experiment
from tuning.terminal import make_console, program, shown_path

Say = Callable[[str], None]
_log = logging.getLogger(__name__)


def launch(sweep: ResolvedSweep, say: Say) -> None:
    """Run a new sweep to its end; ``sweep`` has been checked, its directory does not exist."""
    directory = sweep.directory
    data = sweep.config.train.data
    create_directory(sweep)
    with locked(directory):
        config = read_config(directory)
        where = shown_path(directory)
        say(f"[1/4] Sweep {sweep.name}: {config.num_trials} trials, written to {where}")
        for path in (data.tool_registry, data.profiling_data):
            say(f"      {shown_path(Path(path))}")
        for line in describe_steps(config.search_space):
            say(f"      {line}")
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
    with locked(directory):
        before, config = read_config(directory), read_config(directory, overrides)
        check_inputs(directory)
        raise_format(directory, say)
        if overrides:
            write_config(directory, config, say)
        record = read_sweep(directory)
        trials = len(record.trials)
        over = sum(t.ended is not None for t in record.trials.values())
        say(
            f"[1/4] Sweep {record.name}: going on with {over} of {config.num_trials} trials over, "
            f"in {shown_path(directory)}"
        )
        try:
            _run(directory, config, record, say, retry_failed=retry_failed)
        except UserError:
            if overrides and len(record.trials) == trials:  # they cannot be had here
                write_config(directory, before, say)
            raise


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

    def derive() -> None:
        wait_for_room(
            partial(write_derived, directory, config, record), directory, say, requests.wait
        )

    record.state = SweepState.RUNNING  # until the history tells otherwise
    try:
        with requests.listening():
            _train(directory, config, record, callback, requests, say, retry_failed, derive)
    except SweepStopped as stopped:
        with contextlib.suppress(SweepStopped):  # no room, and nobody wants to wait for it
            _interrupted(record, callback, stopped.reason)
    except (RayError, RayStartError, FleetGoneError, ConnectionError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        _interrupted(record, callback, f"Ray failed: {reason.rstrip('.')}")
    finally:
        callback.close()
    if record.state == SweepState.INTERRUPTED:
        with contextlib.suppress(SweepStopped):
            derive()


def _interrupted(record: SweepRecord, callback: SweepCallback, reason: str) -> None:
    """Unless its outcome has been told, and only the processes had to be ended."""
    if record.state == SweepState.RUNNING:
        callback.sweep_event(SweepState.INTERRUPTED, reason)


def _train(
    directory: Path,
    config: SweepConfig,
    record: SweepRecord,
    callback: SweepCallback,
    requests: StopRequests,
    say: Say,
    retry_failed: bool,
    derive: Callable[[], None],
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
        with open_execution(directory, config, train, cluster, say, requests.check) as execution:
            say("[4/4] Trials")
            callback.watch(_monitors(directory, config, record, execution, console))
            callback.sweep_event(SweepState.RUNNING)
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
            derive()  # first: who is killed in between goes on from here
            callback.sweep_event(*_outcome(record))


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


def _outcome(record: SweepRecord) -> tuple[SweepState, str]:
    """The state a sweep ends in, and why."""
    ended = [t for t in record.trials.values() if t.ended is not None]
    if len(ended) < record.num_trials:
        return SweepState.INTERRUPTED, f"{len(ended)} of {record.num_trials} trials ended"
    if all(t.status == Status.FAILED for t in ended):
        return SweepState.FAILED, f"all trials failed; the first: {ended[0].message}"
    return SweepState.FINISHED, ""
