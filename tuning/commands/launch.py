"""The commands that run a sweep: ``launch``, ``resume``, ``stop``; and ``validate``."""

from __future__ import annotations

import argparse
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from trainables.errors import UserError
from tuning.commands.arguments import (
    TRAIN_FLAGS,
    add_command,
    add_set,
    add_storage,
    find_named,
    overrides_of,
)
from tuning.history.record import SweepState
from tuning.terminal import DEFAULT_STORAGE, run_tune_on, say_on_stdout

STOP_SECONDS = 60  # in order it takes about ten


def add_launch(commands: Any) -> None:
    """``launch``, ``resume``, ``stop`` and ``validate``."""
    _add_launch(commands)
    _add_resume(commands)
    _add_stop(commands)
    _add_validate(commands)


def _add_launch(commands: Any) -> None:
    parser = add_command(commands, "launch", _launch, "run a sweep")
    _add_sweep_options(parser)
    parser.add_argument("--name", help="the sweep's name (default: date and time)")
    parser.add_argument("--time_budget", metavar="T", help="end in order after 45s, 90m, 12h, 2d")
    text = "try the best settings of another sweep first"
    parser.add_argument("--warm_start_from", metavar="NAME", help=text)
    parser.add_argument("--log_wandb", action="store_true")


def _add_sweep_options(parser: Any) -> None:
    parser.add_argument("--config", type=Path, metavar="SWEEP.yaml")
    parser.add_argument("--num_trials", metavar="N")
    parser.add_argument("--batch_size", metavar="N")
    parser.add_argument("--num_epochs", metavar="N")
    add_storage(parser)
    add_set(parser)


def _add_resume(commands: Any) -> None:
    text = "go on with an interrupted sweep, or extend one that has finished"
    parser = add_command(commands, "resume", _resume, text)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--num_trials", metavar="N", help="in all, those that ended included")
    parser.add_argument("--time_budget", metavar="T", help="end in order after 45s, 90m, 12h, 2d")
    parser.add_argument("--search_space", metavar="FILE", help="another one, wider or narrower")
    text = "also those that failed, from their checkpoints"
    parser.add_argument("--retry_failed", action="store_true", help=text)
    add_storage(parser)
    add_set(parser)


def _add_stop(commands: Any) -> None:
    text = "end a running sweep in order; `resume` goes on with it"
    parser = add_command(commands, "stop", _stop, text)
    parser.add_argument("name", metavar="NAME")
    add_storage(parser)


def _add_validate(commands: Any) -> None:
    text = "check a sweep's configuration and data without training; estimate its cost"
    _add_sweep_options(add_command(commands, "validate", _validate, text))


def checked_sweep(options: argparse.Namespace, name: str) -> Any:
    """A checked sweep: configuration, search space, data, heads, name and storage."""
    from tuning.checks import check_sweep, settle_llm
    from tuning.config.sweep import ResolvedSweep, load_sweep

    flags = {"num_trials": "num_trials", "storage": "storage"}
    if hasattr(options, "time_budget"):
        flags["time_budget"] = "time_budget"
    overrides = overrides_of(options, flags)
    trained = {k: TRAIN_FLAGS[k] for k in ("batch_size", "num_epochs")}
    of_train = [
        f"train.{v}={getattr(options, k)}"
        for k, v in trained.items()
        if getattr(options, k) is not None
    ]
    wandb = ["log_wandb=true"] if getattr(options, "log_wandb", False) else []
    config = settle_llm(load_sweep(options.config, of_train + wandb + overrides))
    data = check_sweep(ResolvedSweep(name, config))
    return ResolvedSweep(name, config.with_rungs(len(data.train_rows))), data


def _launch(options: argparse.Namespace) -> int:
    from tuning.config.sweep import check_name

    name = check_name(options.name or datetime.now().strftime("sweep_%Y%m%d_%H%M%S"))
    sweep, _ = checked_sweep(options, name)
    from tuning.checks import check_name_is_free
    from tuning.sweep.launch import launch

    check_name_is_free(sweep)
    if options.warm_start_from is not None:
        from tuning.history.sweeps import find_sweep
        from tuning.search.warm_start import warm_started

        storage = Path(options.storage or DEFAULT_STORAGE)
        sweep = warm_started(sweep, find_sweep(storage, options.warm_start_from))
    launch(sweep, say_on_stdout())
    return _summary(sweep.directory)


def _resume(options: argparse.Namespace) -> int:
    directory = find_named(options)
    flags = {key: key for key in ("num_trials", "time_budget", "search_space")}
    overrides = overrides_of(options, flags)
    from tuning.history.sweeps import read_sweep

    over = read_sweep(directory).state == SweepState.FINISHED
    if over and not overrides and not options.retry_failed:
        raise UserError(
            f"sweep `{options.name}` has finished; see `best` and `export`, or go on with more "
            "trials: --num_trials N"
        )
    from tuning.sweep.launch import resume

    resume(directory, overrides, say_on_stdout(), retry_failed=options.retry_failed)
    return _summary(directory)


def _stop(options: argparse.Namespace) -> None:
    from tuning.history.lock import is_locked
    from tuning.history.sweeps import STOP_FILE

    directory = find_named(options)
    if not is_locked(directory):
        raise UserError(f"sweep `{options.name}` is not running")
    (directory / STOP_FILE).touch()
    end = time.monotonic() + STOP_SECONDS
    while is_locked(directory):
        if time.monotonic() > end:
            raise UserError(
                f"sweep `{options.name}` has not ended within {STOP_SECONDS} s; look at "
                f"{directory / 'logs' / 'ray.log'}"
            )
        time.sleep(0.1)
    print(f"stopped; go on with: {run_tune_on(directory, 'resume')}")


def _validate(options: argparse.Namespace) -> None:
    sweep, data = checked_sweep(options, "validate")
    from trainables.inputs.probing import check_llm
    from tuning.cost import describe_sweep

    probed = check_llm(sweep.config.train, data)
    for line in describe_sweep(sweep.config, data, probed):
        print(line)


def _summary(directory: Path) -> int:
    from tuning.commands.answers import show_summary
    from tuning.history.sweeps import read_sweep
    from tuning.terminal import make_console

    record = read_sweep(directory)
    show_summary(record, directory, make_console())
    return 0 if record.state == SweepState.FINISHED else 1
