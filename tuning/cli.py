"""The command line. Reading commands, ``validate`` and ``--help`` import neither Ray nor torch."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from trainables.config import DEFAULT_CONFIG
from trainables.errors import TrialEndedError, UserError
from tuning.comparison.command import add_compare
from tuning.migrate_command import add_migrate
from tuning.reading_command import add_command, add_reading, add_storage, find
from tuning.terminal import (
    DEFAULT_STORAGE,
    output_is_broken,
    prepare_terminal,
    run_tune_on,
    say_on_stdout,
)
from tuning.verify_command import add_verify

USER_ERROR = 2
INTERRUPTED = 130
STOP_SECONDS = 60

DESCRIPTION = """\
Tune the pretraining of a resource encoder on Ray.

  launch     run a sweep              list      all sweeps
  resume     go on with one, or more  status    one sweep in short
  stop       end one in order         trials    every trial of a sweep
  train      train one encoder        best      the best trial
  validate   check without training   export    its encoder, to use elsewhere
  verify     check its parts          migrate   files of earlier releases
  compare    both architectures, or two sweeps, side by side
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, 2 for an error that the user can mend."""
    logging.basicConfig(format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        prepare_terminal()
        options = make_parser().parse_args(arguments)
        status = int(options.command(options) or 0)
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except TrialEndedError as error:
        print(f"error: training ended, {error.status}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if not output_is_broken():
            raise
        if not isinstance(error, BrokenPipeError):
            print(f"error: standard output cannot be written: {error.strerror}", file=sys.stderr)
        return 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="run_tune.py",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_train(commands)
    _add_launch(commands)
    _add_resume(commands)
    _add_stop(commands)
    _add_validate(commands)
    add_reading(commands)
    add_migrate(commands)
    add_verify(commands)
    add_compare(commands)
    return parser


def _add_set(parser: Any) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="a.b=c", help="set any key; may be repeated"
    )


def _add_train(commands: Any) -> None:
    parser = add_command(commands, "train", _train, "train one encoder")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="TRAIN.yaml")
    parser.add_argument("--batch_size", metavar="N")
    parser.add_argument("--num_epochs", metavar="N")
    parser.add_argument("--learning_rate", metavar="X")
    parser.add_argument("--output_dir", metavar="DIR")
    parser.add_argument("--seed", metavar="N")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="through Ray Train")
    parser.add_argument("--log_wandb", action="store_true")
    _add_set(parser)


def _add_launch(commands: Any) -> None:
    parser = add_command(commands, "launch", _launch, "run a sweep")
    _add_sweep_options(parser)
    parser.add_argument("--name", help="the sweep's name (default: date and time)")
    parser.add_argument("--time_budget", metavar="T", help="end in order after 45s, 90m, 12h, 2d")
    text = "try the best configurations of another sweep first"
    parser.add_argument("--warm_start_from", metavar="NAME", help=text)
    parser.add_argument("--log_wandb", action="store_true")


def _add_sweep_options(parser: Any) -> None:
    parser.add_argument("--config", type=Path, metavar="SWEEP.yaml")
    parser.add_argument("--num_trials", metavar="N")
    parser.add_argument("--batch_size", metavar="N")
    parser.add_argument("--num_epochs", metavar="N")
    add_storage(parser)
    _add_set(parser)


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
    _add_set(parser)


def _add_stop(commands: Any) -> None:
    text = "end a running sweep in order; `resume` goes on with it"
    parser = add_command(commands, "stop", _stop, text)
    parser.add_argument("name", metavar="NAME")
    add_storage(parser)


def _add_validate(commands: Any) -> None:
    text = "check a sweep's configuration and data without training; estimate its cost"
    _add_sweep_options(add_command(commands, "validate", _validate, text))


def _flags(options: argparse.Namespace, keys: dict[str, str], prefix: str = "") -> list[str]:
    """The given flags as overrides; ``--set`` comes last and wins."""
    given = [(key, getattr(options, flag)) for flag, key in keys.items()]
    texts = {key: json.dumps(v) if key in TEXT_FLAGS else v for key, v in given if v is not None}
    return [f"{prefix}{key}={text}" for key, text in texts.items()] + options.set


TEXT_FLAGS = (
    "storage",
    "search_space",
    "time_budget",
    "logging.output_dir",
)  # taken as they are, not read as YAML
TRAIN_FLAGS = {
    "batch_size": "training.batch_size",
    "num_epochs": "training.num_epochs",
    "learning_rate": "training.learning_rate",
    "seed": "training.seed",
}


def _train(options: argparse.Namespace) -> None:
    from tuning.training import train

    flags = {**TRAIN_FLAGS, "output_dir": "logging.output_dir"}
    train(
        options.config, _flags(options, flags), options.resume, options.workers, options.log_wandb
    )


def _sweep(options: argparse.Namespace, name: str) -> Any:
    """A checked sweep: configuration, search space, data, heads, name and storage."""
    from tuning.checks import check_sweep
    from tuning.config import ResolvedSweep, load_sweep

    flags = {"num_trials": "num_trials", "storage": "storage"}
    if hasattr(options, "time_budget"):
        flags["time_budget"] = "time_budget"
    overrides = _flags(options, flags)
    trained = {k: TRAIN_FLAGS[k] for k in ("batch_size", "num_epochs")}
    of_train = [
        f"train.{v}={getattr(options, k)}"
        for k, v in trained.items()
        if getattr(options, k) is not None
    ]
    if getattr(options, "log_wandb", False):
        overrides.append("log_wandb=true")
    sweep = ResolvedSweep(name, load_sweep(options.config, of_train + overrides))
    return sweep, check_sweep(sweep)


def _launch(options: argparse.Namespace) -> int:
    from tuning.config import check_name

    name = check_name(options.name or datetime.now().strftime("sweep_%Y%m%d_%H%M%S"))
    sweep, _ = _sweep(options, name)
    from tuning.checks import check_name_is_free
    from tuning.sweep import launch

    check_name_is_free(sweep)
    if options.warm_start_from is not None:
        from tuning.store import find_sweep
        from tuning.warm_start import warm_started

        storage = Path(options.storage or DEFAULT_STORAGE)
        sweep = warm_started(sweep, find_sweep(storage, options.warm_start_from))
    launch(sweep, say_on_stdout())
    return _summary(sweep.directory)


def _resume(options: argparse.Namespace) -> int:
    directory = find(options)
    flags = {key: key for key in ("num_trials", "time_budget", "search_space")}
    overrides = _flags(options, flags)
    from tuning.store import read_sweep

    if read_sweep(directory).state == "finished" and not overrides and not options.retry_failed:
        raise UserError(
            f"sweep `{options.name}` has finished; see `best` and `export`, or go on with more "
            "trials: --num_trials N"
        )
    from tuning.sweep import resume

    resume(directory, overrides, say_on_stdout(), retry_failed=options.retry_failed)
    return _summary(directory)


def _stop(options: argparse.Namespace) -> None:
    from tuning.store import STOP_FILE, is_locked

    directory = find(options)
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
    sweep, facts = _sweep(options, "validate")
    from tuning.checks import describe_sweep

    for line in describe_sweep(sweep.config, facts):
        print(line)


def _summary(directory: Path) -> int:
    from tuning.monitors.table import make_console
    from tuning.reading import show_summary
    from tuning.store import read_sweep

    record = read_sweep(directory)
    show_summary(record, directory, make_console())
    return 0 if record.state == "finished" else 1
