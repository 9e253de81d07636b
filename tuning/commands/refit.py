"""The command ``refit``."""

from __future__ import annotations

import argparse
from typing import Any

from tuning.commands.arguments import add_command, add_storage, find_named, local_path

MOST_SEEDS = 1000


def add_refit(commands: Any) -> None:
    parser = add_command(
        commands,
        "refit",
        _refit,
        "train the best trial's configuration anew, with other seeds",
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--num_epochs", type=_count, metavar="N", help="default: the sweep's")
    parser.add_argument(
        "--seeds", type=_count, default=3, metavar="K", help="trainings (default 3)"
    )
    parser.add_argument("--trial", metavar="TRIAL", help="another one than the best")
    parser.add_argument("--out", type=local_path, metavar="DIR", help="default: NAME's refit/")
    add_storage(parser)


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= MOST_SEEDS:
        raise argparse.ArgumentTypeError(
            f"{text!r}, but must be a whole number from 1 to {MOST_SEEDS}"
        )
    return value


def _refit(options: argparse.Namespace) -> None:
    directory = find_named(options)
    from tuning.history.refitted import REFIT_DIR
    from tuning.refit import refit

    refit(
        directory,
        options.out or directory / REFIT_DIR,
        seeds=options.seeds,
        num_epochs=options.num_epochs,
        trial_id=options.trial,
    )
