"""What several commands' arguments have in common."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainables.files import PLAIN_PATH, is_uri
from tuning.terminal import DEFAULT_STORAGE

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


def add_command(commands: Any, name: str, run: Callable[..., Any], text: str) -> Any:
    """A command's own parser."""
    parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(command=run)
    return parser


def path_text(text: str) -> str:
    """The type of an argument that is a path; a URI would become a folder named ``s3:``."""
    if is_uri(text):
        raise argparse.ArgumentTypeError(f"{text!r} is a URI, but must be {PLAIN_PATH}")
    return text


def local_path(text: str) -> Path:
    return Path(path_text(text))


def add_storage(parser: Any) -> None:
    parser.add_argument(
        "--storage", type=path_text, metavar="DIR", help=f"all sweeps (default {DEFAULT_STORAGE})"
    )


def add_set(parser: Any) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="a.b=c", help="set any key; may be repeated"
    )


def find_named(options: argparse.Namespace) -> Path:
    """The directory of the sweep that NAME and ``--storage`` mean."""
    from tuning.history.sweeps import find_sweep

    return find_sweep(Path(options.storage or DEFAULT_STORAGE), options.name)


def overrides_of(options: argparse.Namespace, keys: dict[str, str], prefix: str = "") -> list[str]:
    """The given flags as overrides; ``--set`` comes last and wins."""
    given = [(key, getattr(options, flag)) for flag, key in keys.items()]
    texts = {key: json.dumps(v) if key in TEXT_FLAGS else v for key, v in given if v is not None}
    return [f"{prefix}{key}={text}" for key, text in texts.items()] + options.set
