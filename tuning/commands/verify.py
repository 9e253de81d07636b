"""The command ``verify``."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from trainables.config import DEFAULT_CONFIG
from trainables.errors import UserError, did_you_mean
from tuning.commands.arguments import add_set
from tuning.verification.names import MODULES

NEEDS_RAY = "object_store"


def add_verify(commands: Any) -> None:
    text = "check that every part does what it promises; needs no training data"
    parser = commands.add_parser("verify", help=text, description=text, allow_abbrev=False)
    text = f"of {', '.join(MODULES)}; default: all"
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=text)
    text = "whose LLM and data are checked"
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, metavar="TRAIN.yaml", help=text
    )
    add_set(parser)
    parser.set_defaults(command=_verify)


def _verify(options: argparse.Namespace) -> int:
    from trainables.config import load_config

    for name in options.modules:
        if name not in MODULES:
            raise UserError(
                f"there is nothing called `{name}` to verify{did_you_mean(name, MODULES)}; "
                f"MODULE is one of {', '.join(MODULES)}"
            )
    config = load_config(options.config, options.set)
    chosen = [name for name in MODULES if name in options.modules or not options.modules]
    if NEEDS_RAY in chosen:  # what is wrong with its place is told before all others are checked
        from tuning.execution.finding_ray import find_ray

        find_ray()
    from tuning.verification.run import verify

    return 0 if verify(chosen, config, partial(print, flush=True)) else 1
