"""A sweep from its first second to its last: prepare, search, watch, finish."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ray.exceptions import RayError
from rich.console import Console

from trainables.errors import UserError, one_line
from trainables.inputs.probing import Probing, probed_beside
from trainables.statuses import Status
from tuning.checks import settle_llm, settle_rungs
from tuning.config.learning import describe_learning
from tuning.config.space import describe_steps
from tuning.config.sweep import ResolvedSweep
from tuning.execution.cluster import Cluster, ray_cluster
from tuning.execution.execution import TRAIN_RUNS_DIR, Execution, ExecutionContext
from tuning.execution.failures import reason_of
from tuning.execution.finding_ray import FoundRay, find_ray
from tuning.execution.fleet import FleetGoneError
from tuning.execution.opening import open_execution
from tuning.execution.process_state import logged_to
from tuning.history.record import SweepRecord, SweepState
from tuning.history.sweeps import read_sweep
from tuning.monitors.base import Monitor
from tuning.monitors.gauges import GaugeMonitor
from tuning.monitors.table import TableMonitor
from tuning.monitors.wandb import WandbMonitor
from tuning.search.ray_searcher import Start
from tuning.sweep.derived import write_derived
from tuning.sweep.directory import (
    check_inputs,
    create_directory,
    locked,
    raise_format,
    read_config,
    write_config,
)
from tuning.sweep.resuming import take_up
from tuning.sweep.running import RunningSweep, open_sweep
from tuning.sweep.stopping import SweepStopped
from tuning.sweep.tune_run import run_tune_experiment
from tuning.terminal import Say, make_console, program, shown_path


def launch(sweep: ResolvedSweep, say: Say) -> None:
    """Run a new sweep to its end; ``sweep`` has been checked, its directory does not exist."""
    directory = sweep.directory
    found = find_ray()
    sweep = ResolvedSweep(sweep.name, settle_rungs(sweep.config))
    data = sweep.config.train.data
    made = [folder for folder in directory.parents if not folder.exists()]
    create_directory(sweep)
    with locked(directory):
        config = read_config(directory)
        where = shown_path(directory)
        say(f"[1/4] Sweep {sweep.name}: {config.num_trials} trials, written to {where}")
        for path in (data.tool_registry, data.profiling_data):
            say(f"      {shown_path(Path(path))}")
        for line in (*describe_steps(config.search_space), *describe_learning(config)):
            say(f"      {line}")
        record = SweepRecord(
            sweep.name, config.metric, config.mode, config.num_trials, metric_at=config.metric_at
        )
        try:
            _run(open_sweep(directory, config, record, say), found)
        except UserError:
            if not record.trials:  # nothing was made that could be resumed
                shutil.rmtree(directory, ignore_errors=True)
                for folder in made:
                    with contextlib.suppress(OSError):  # another's sweep lies there by now
                        folder.rmdir()
            raise


def resume(
    directory: Path, overrides: Sequence[str], say: Say, *, retry_failed: bool = False
) -> None:
    """Go on with a sweep where its history ends, with whatever may be changed changed."""
    found = find_ray()
    with locked(directory):
        before, config = read_config(directory), settle_llm(read_config(directory, overrides))
        check_inputs(directory)
        config = settle_rungs(config)
        record = read_sweep(directory)
        trials = len(record.trials)
        over = sum(t.ended is not None for t in record.trials.values())
        say(
            f"[1/4] Sweep {record.name}: going on with {over} of {config.num_trials} trials over, "
            f"in {shown_path(directory)}"
        )
        begun = False

        def begin() -> None:
            nonlocal begun
            if not begun:
                begun = True
                raise_format(directory, say)
                if overrides:
                    write_config(directory, config, say)

        try:
            sweep = open_sweep(directory, config, record, say)
            _run(sweep, found, begin, retry_failed=retry_failed)
        except UserError:
            if begun and overrides and len(record.trials) == trials:  # they cannot be had here
                write_config(directory, before, say)
            raise


def _run(
    sweep: RunningSweep,
    found: FoundRay,
    begin: Callable[[], None] = lambda: None,
    *,
    retry_failed: bool = False,
) -> None:
    """``begin`` is called before anything is written, which is once there is a Ray."""
    sweep.record.state = SweepState.RUNNING  # until the history tells otherwise
    try:
        with sweep.requests.listening():
            _train(sweep, found, begin, retry_failed)
    except SweepStopped as stopped:
        with contextlib.suppress(SweepStopped):  # no room, and nobody wants to wait for it
            begin()
            _interrupted(sweep, stopped.reason)
    except (RayError, FleetGoneError, ConnectionError) as error:
        reason = one_line(str(error)) if isinstance(error, FleetGoneError) else reason_of(error)
        begin()
        _interrupted(sweep, f"Ray failed: {reason.rstrip('.')}")
    finally:
        sweep.history.close()
    if sweep.record.state == SweepState.INTERRUPTED:
        with logged_to(sweep.ray_log), contextlib.suppress(SweepStopped):
            write_derived(sweep)


def _interrupted(sweep: RunningSweep, reason: str) -> None:
    """Unless its outcome has been told, and only the processes had to be ended."""
    if sweep.record.state == SweepState.RUNNING:
        sweep.history.sweep_event(SweepState.INTERRUPTED, reason)


def _train(
    sweep: RunningSweep, found: FoundRay, begin: Callable[[], None], retry_failed: bool
) -> None:
    sweep.say("[2/4] Ray")
    if found.remark:
        sweep.say(f"      {found.remark}")
    console = make_console()
    # Listening once more: Ray has put its own handlers in the place of ours.
    with (
        probed_beside(sweep.config.train) as probe,
        ray_cluster(found, sweep.ray_log) as cluster,
        sweep.requests.listening(),
    ):
        _describe(cluster, found, sweep.say)
        begin()
        sweep.settle(cluster.has_gpu)
        starts = take_up(sweep, retry_failed=retry_failed)
        sweep.say("[3/4] Frozen LLM, tool embeddings, target texts: once for all trials")
        with open_execution(_context(sweep, cluster, probe)) as execution:
            if probe is not None:
                probe.wait(sweep.requests.check)
            sweep.settle_prompt(execution.prompt)
            sweep.say("[4/4] Trials")
            sweep.history.watch(_monitors(sweep, execution, console))
            sweep.history.sweep_event(SweepState.RUNNING)
            _search(sweep, execution, starts)
            sweep.history.hosts_event(execution.hosts())
            write_derived(sweep)  # first: who is killed in between goes on from here
            sweep.history.sweep_event(*_outcome(sweep.record))


def _describe(cluster: Cluster, found: FoundRay, say: Say) -> None:
    say(f"      {cluster.slots} {'GPUs' if cluster.has_gpu else 'CPU cores, no GPU'}")
    if cluster.dashboard:
        place = "".join(f"{name}={value} " for name, value in found.environment.items())
        token = f"{place}{program('ray')} get-auth-token"
        say(f"      dashboard http://{cluster.dashboard} (its token: run `{token}`)")


def _context(sweep: RunningSweep, cluster: Cluster, probe: Probing | None) -> ExecutionContext:
    def interrupt() -> None:
        sweep.requests.check()
        if probe is not None:
            probe.check()

    train_runs = sweep.directory / TRAIN_RUNS_DIR
    done = sum(trial.epoch for trial in sweep.record.trials.values())
    return ExecutionContext(sweep.config, cluster, train_runs, sweep.say, interrupt, done)


def _search(sweep: RunningSweep, execution: Execution, starts: Sequence[Start]) -> None:
    """All trials; what trains when a stop is requested is saved where it stands."""
    try:
        with sweep.requests.only_between_events():
            run_tune_experiment(sweep, execution, starts)
    except SweepStopped:
        with contextlib.suppress(RayError):
            execution.save()
        raise


def _monitors(sweep: RunningSweep, execution: Execution, console: Console) -> list[Monitor]:
    config, record = sweep.config, sweep.record
    monitors: list[Monitor] = [
        TableMonitor(record, config.train.training.num_epochs, console),
        GaugeMonitor(record.name),
    ]
    if config.log_wandb:
        monitors.append(
            WandbMonitor(
                sweep.directory / "wandb_runs",
                config.train.logging.wandb_project,
                record.name,
                json.loads(config.train.model_dump_json()),
                execution.num_tools,
                execution.hidden_size,
                sweep.say,
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
