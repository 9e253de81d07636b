"""A whole sweep in packed execution against the same trials in other ways, on the CPU cores.

python -m benchmarks.whole_sweep [--repeats 2] [--trials 64] [--trials-slow 16] [--only NAME ...]

Every sweep has a fresh interpreter, one after the other, all of them in each repeat. A trial is
the project's own training loop everywhere, of 60 steps of batch 16 in 4 epochs, with an evaluation
and a checkpoint per epoch. The clock starts when Ray is up and the shared inputs are prepared,
just before the first process that trains is started, and stops when the last trial has ended;
each alternative's own page says it exactly. Ratios are of seconds per trial. Exit status 1: the
same trial ended with another loss somewhere.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.workload import (
    SWEEP_FILE,
    Workload,
    prepare,
    print_table,
    relative_difference,
    write_json,
)
from tuning.history.event_log import read_events
from tuning.history.sweeps import read_sweep

PROJECT = Path(__file__).parents[1]
LARGEST_DIFFERENCE = 1e-3  # thread counts may change the last bits, no more
PACKED = "packed"
# The packed sweep's clock: from this line of its output, which it prints when Ray is up and
# before its fleet is started, to the last event of this kind. ("sweep" is the event after the
# search has returned and everything was written: the stricter one.)
PACKED_FROM = "[3/4]"
PACKED_TO = "end"


@dataclass(frozen=True)
class Measured:
    """One sweep: its seconds, and the last val_loss of each trial by number."""

    seconds: float
    val_loss: dict[int, float]


@dataclass(frozen=True)
class Contestant:
    run: Callable[[int, Path], Measured]  # trials, an empty directory
    slow: bool = False
    goal: str = ""


def run_packed(workload: Workload, execution: str, trials: int, directory: Path) -> Measured:
    """The project's own sweep, by its command line."""
    command = [sys.executable, str(PROJECT / "run_tune.py"), "launch"]
    command += ["--config", str(workload.directory / SWEEP_FILE), "--name", PACKED]
    command += ["--num_trials", str(trials), "--storage", str(directory)]
    command += ["--set", f"execution={{type: {execution}}}"]
    lines, started = _output(command, directory, PACKED_FROM)
    if started is None:
        raise SystemExit("".join(lines[-20:]) + f"no line began with {PACKED_FROM}")
    record = read_sweep(directory / PACKED)
    events = [e for e in read_events(directory / PACKED) if e["event"] == PACKED_TO]
    ended = {int(name.rpartition("_")[2]): trial for name, trial in record.trials.items()}
    for number, params in enumerate(workload.trials(trials)):
        assert ended[number].params == params, f"trial {number} has other parameters"
    losses = {number: trial.metrics["val_loss"] for number, trial in sorted(ended.items())}
    return Measured(max(event["time"] for event in events) - started, losses)


def run_alternative(
    workload: Workload, module: str, flags: tuple[str, ...], trials: int, directory: Path
) -> Measured:
    """One of ``benchmarks.alternatives``; its answer is the last line that it prints."""
    command = [sys.executable, "-m", f"benchmarks.alternatives.{module}"]
    command += ["--workload", str(workload.directory), "--trials", str(trials), *flags]
    lines, _ = _output(command, directory)
    answer: dict[str, Any] = json.loads(lines[-1])
    losses = {int(number): loss for number, loss in answer["val_loss"].items()}
    return Measured(answer["seconds"], losses)


def _output(
    command: list[str], directory: Path, mark: str | None = None
) -> tuple[list[str], float | None]:
    """What a command printed, and when a line that begins with ``mark`` came."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "WANDB_MODE": "offline"}
    errors = directory / "stderr.log"
    with (
        errors.open("w", encoding="utf-8") as stderr,
        subprocess.Popen(
            command,
            cwd=PROJECT,
            env=environment,
            encoding="utf-8",
            stdout=subprocess.PIPE,
            stderr=stderr,
        ) as process,
    ):
        assert process.stdout is not None
        lines, marked = [], None
        for line in process.stdout:
            lines.append(line)
            if mark and marked is None and line.startswith(mark):
                marked = time.time()
    if process.returncode:
        tail = "".join(lines[-20:]) + errors.read_text(encoding="utf-8")[-4000:]
        raise SystemExit(f"{tail}\n{' '.join(command)}: exit status {process.returncode}")
    return lines, marked


def contestants(workload: Workload, execution: str, reuse: bool) -> dict[str, Contestant]:
    """By name, in the order in which they run."""

    def alternative(module: str, *flags: str) -> Callable[[int, Path], Measured]:
        return partial(run_alternative, workload, module, flags)

    recipe, kept = "ray_recipe", "--reuse-actors"
    found = {
        PACKED: Contestant(partial(run_packed, workload, execution)),
        "Optuna in plain processes": Contestant(alternative("optuna_processes"), goal=">= 0.95"),
        "Tune function": Contestant(alternative("tune_function"), goal=">= 2"),
        "Ray recipe, repaired": Contestant(alternative(recipe, "--repaired"), True, ">= 4"),
        "Ray recipe": Contestant(alternative(recipe), True, ">= 10"),
    }
    if reuse:
        found |= {
            "Tune function, processes kept": Contestant(alternative("tune_function", kept)),
            "Ray recipe, repaired, drivers kept": Contestant(
                alternative(recipe, "--repaired", kept), True
            ),
        }
    return found


def largest_difference(sweeps: list[Measured], reference: Measured) -> float:
    """Of any trial's loss from the reference's; every trial must be there."""
    pairs = [
        (loss, reference.val_loss[number])
        for sweep in sweeps
        for number, loss in sweep.val_loss.items()
    ]
    return max(relative_difference(loss, expected) for loss, expected in pairs)


def report(
    taken: dict[str, list[Measured]], rivals: dict[str, Contestant], path: Path | None
) -> int:
    per_trial = {
        name: median(sweep.seconds / len(sweep.val_loss) for sweep in sweeps)
        for name, sweeps in taken.items()
    }
    differences = {
        name: largest_difference(sweeps, taken[PACKED][0]) for name, sweeps in taken.items()
    }
    header = ("sweep", "trials", "seconds", "s/trial", "of packed", "goal", "loss differs by")
    rows = [
        (
            name,
            str(len(sweeps[0].val_loss)),
            " ".join(f"{sweep.seconds:.1f}" for sweep in sweeps),
            f"{per_trial[name]:.2f}",
            f"{per_trial[name] / per_trial[PACKED]:.2f}x",
            rivals[name].goal,
            f"{differences[name]:.1e}",
        )
        for name, sweeps in taken.items()
    ]
    print_table(header, rows)
    seconds = {name: [sweep.seconds for sweep in sweeps] for name, sweeps in taken.items()}
    document = {"seconds": seconds, "seconds_per_trial": per_trial, "differences": differences}
    write_json(path, document)
    return int(max(differences.values()) > LARGEST_DIFFERENCE)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--trials-slow", type=int, default=16, help="of the Ray recipe")
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps of a trial")
    parser.add_argument("--execution", default=PACKED, help="of the project's own sweep")
    parser.add_argument("--reuse", action="store_true", help="also with Tune's reuse_actors")
    text = "these beside the packed one, by their names in the table; default: all"
    parser.add_argument("--only", nargs="*", metavar="NAME", help=text)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    taken: dict[str, list[Measured]] = {}
    with tempfile.TemporaryDirectory() as directory:
        workload = prepare(Path(directory) / "workload", options.steps)
        rivals = contestants(workload, options.execution, options.reuse)
        if options.only is not None:
            rivals = {n: rival for n, rival in rivals.items() if n in (PACKED, *options.only)}
        for repeat in range(options.repeats):
            for name, rival in rivals.items():
                out = Path(directory) / "out"
                out.mkdir()
                trials = options.trials_slow if rival.slow else options.trials
                sweep = rival.run(trials, out)
                taken.setdefault(name, []).append(sweep)
                shutil.rmtree(out)
                print(f"{repeat + 1}/{options.repeats} {name}: {sweep.seconds:.1f} s", flush=True)
    return report(taken, rivals, options.json)


if __name__ == "__main__":
    raise SystemExit(main())
