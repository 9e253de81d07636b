"""The commands that only read a sweep: ``list``, ``status``, ``trials``, ``best``, ``export``."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuning.commands.arguments import add_command, add_storage, find_named, local_path
from tuning.terminal import DEFAULT_STORAGE


def add_reading(commands: Any) -> None:
    _add(commands, "list", _list, "all sweeps, oldest first", named=False)
    _add(commands, "status", _status, "state, counts and best of one sweep")
    _add(commands, "trials", _trials, "every trial with its history")
    _add(commands, "best", _best, "the best trial, its parameters and its checkpoint")
    export = _add(
        commands, "export", _export, "write the best or another trial's encoder to a directory"
    )
    export.add_argument("--out", type=local_path, required=True, metavar="DIR")
    export.add_argument("--trial", metavar="TRIAL", help="another one's than the best")


def _add(commands: Any, name: str, run: Callable[..., Any], text: str, named: bool = True) -> Any:
    parser = add_command(commands, name, run, text)
    if named:
        parser.add_argument("name", metavar="NAME")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    add_storage(parser)
    return parser


def _list(options: argparse.Namespace) -> None:
    from tuning.commands import answers as reading

    storage = Path(options.storage or DEFAULT_STORAGE)
    _answer(options, lambda: reading.list_answer(storage), lambda c: reading.show_list(storage, c))


def _status(options: argparse.Namespace) -> None:
    from tuning.commands import answers as reading

    path = find_named(options)
    _answer(options, lambda: reading.status_answer(path), lambda c: reading.show_status(path, c))


def _trials(options: argparse.Namespace) -> None:
    from tuning.commands import answers as reading

    path = find_named(options)
    _answer(options, lambda: reading.trials_answer(path), lambda c: reading.show_trials(path, c))


def _best(options: argparse.Namespace) -> None:
    from tuning.commands import answers as reading

    path = find_named(options)
    _answer(options, lambda: reading.best_answer(path), lambda c: reading.show_best(path, c))


def _export(options: argparse.Namespace) -> None:
    from tuning.history.export import export_trial
    from tuning.history.sweeps import read_sweep

    path = find_named(options)
    out = export_trial(path, read_sweep(path), options.out, options.trial)
    if options.json:
        print(json.dumps({"exported": str(out.absolute())}))
    else:
        print(f"exported to {out}; load it with Encoder.from_pretrained({str(out)!r})")


def _answer(
    options: argparse.Namespace, data: Callable[[], Any], show: Callable[[Any], None]
) -> None:
    if options.json:
        print(json.dumps(_finite(data()), indent=2, allow_nan=False))
        return
    from tuning.terminal import make_console

    show(make_console())


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null instead."""
    match value:
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list():
            return [_finite(item) for item in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value
