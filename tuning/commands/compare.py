"""The command line of ``compare``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from trainables.config import DEFAULT_CONFIG, load_config
from trainables.errors import UserError
from tuning.commands.arguments import add_set, local_path

DESCRIPTION = """\
Without names: trains the gated architecture and the earlier one on the same data, seeds and
budget, each at its own tuned learning rate, and writes a table and a picture.
With the names of two sweeps that are over: their best, the time to reach a loss, parameters.
"""
FEWEST_SEEDS = 2  # a spread needs two
MOST = 1000


def add_compare(commands: Any) -> None:
    parser = commands.add_parser(
        "compare",
        help="both architectures, or two sweeps, side by side",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help="none, or two")
    parser.add_argument("--out", type=local_path, metavar="DIR", help="default: compare_DATE_TIME")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="TRAIN.yaml")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="of each (default 5)")
    text = "learning rates tried of each, and more where the best is an end (default 4)"
    parser.add_argument("--trials", type=int, default=4, metavar="N", help=text)
    parser.add_argument("--num_epochs", metavar="N")
    text = "trainings at a time (default: one per core, with a GPU one)"
    parser.add_argument("--workers", type=int, metavar="N", help=text)
    add_set(parser)
    parser.add_argument("--storage", type=local_path, default=Path("sweeps"), metavar="DIR")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(command=_compare)


def _compare(options: argparse.Namespace) -> None:
    out = options.out or Path(datetime.now().strftime("compare_%Y%m%d_%H%M%S"))
    match len(options.sweeps):
        case 0:
            answer, text = _architectures(options, out)
        case 2:
            answer, text = _sweeps(options, out)
        case number:
            raise UserError(f"compare: {number} sweep names; give two, or none for architectures")
    if options.json:
        print(json.dumps(answer, indent=2, allow_nan=False))
    else:
        print(f"\n{text}\nwritten to {out}")


def _architectures(options: argparse.Namespace, out: Path) -> tuple[dict[str, Any], str]:
    _in_range("--seeds", options.seeds, FEWEST_SEEDS)
    _in_range("--trials", options.trials, 1)
    epochs = [f"training.num_epochs={options.num_epochs}"] if options.num_epochs else []
    config = load_config(options.config, epochs + options.set)
    cores, on_gpu = os.cpu_count() or 1, Path("/dev/nvidia0").exists()
    workers = (1 if on_gpu else cores) if options.workers is None else options.workers
    _in_range("--workers", workers, 1)
    from tuning.comparison.architectures import REPORT_FILE, compare_architectures
    from tuning.comparison.experiment import Plan

    plan = Plan(config, options.seeds, options.trials, workers, max(1, cores // workers))
    say = partial(print, file=sys.stderr if options.json else sys.stdout, flush=True)
    return compare_architectures(plan, out, say), (out / REPORT_FILE).read_text(encoding="utf-8")


def _sweeps(options: argparse.Namespace, out: Path) -> tuple[dict[str, Any], str]:
    from tuning.comparison.sweeps import compare_sweeps, read_comparable, write_comparison
    from tuning.history.sweeps import find_sweep

    sweeps = read_comparable([find_sweep(options.storage, name) for name in options.sweeps])
    answer = compare_sweeps(sweeps)
    return answer, write_comparison(sweeps, answer, out)


def _in_range(flag: str, value: int, least: int) -> None:
    if not least <= value <= MOST:
        raise UserError(f"{flag} is {value}, but must be from {least} to {MOST}")
