"""What a packed sweep spends besides its training steps: starting, refilling, processes.

python -m benchmarks.overheads [--trials 64] [--steps 60] [--json FILE]

One sweep by the command line, in a fresh interpreter. A trial's wait is from the moment at which
Ray Tune asks for it to the end of its first optimiser step, for the trials that found the fleet
up (all but the first ones). The fleet's start is from the line that is printed when Ray is up to
the first optimiser step of all. Memory is a trial's process alone: what it shares with others
(the interpreter's and the libraries' pages) is counted as resident, but not as its own.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.workload import SWEEP_FILE, Workload, prepare, print_table, write_json
from trainables.inputs.cache import find_inputs
from trainables.training.batches import CPU, DeviceInputs
from tuning.history.event_log import read_events
from tuning.history.sweeps import read_sweep

PROJECT = Path(__file__).parents[1]
NAME = "packed"
RAY_IS_UP = "[3/4]"
TRIAL_TITLE = re.compile(rb"ray::\w*[Tt]rial")
MIB = 2**20


def trial_processes(tmpdir: str) -> list[dict[str, int]]:
    """Resident and own bytes of every process of a trial of this sweep."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if not TRIAL_TITLE.match((entry / "cmdline").read_bytes()):
                continue
            if f"RAY_TMPDIR={tmpdir}".encode() not in (entry / "environ").read_bytes():
                continue
            fields = dict(
                line.split(":", 1)
                for line in (entry / "smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
            )
        except (OSError, ValueError):
            continue
        size = {key: int(value.split()[0]) * 1024 for key, value in fields.items()}
        own = size["Private_Clean"] + size["Private_Dirty"]
        found.append({"resident": size["Rss"], "own": own})
    return found


def run_sweep(workload: Workload, trials: int, directory: Path) -> dict[str, Any]:
    """One sweep; when Ray was up, and the most that its trials' processes took."""
    command = [sys.executable, str(PROJECT / "run_tune.py"), "launch", "--name", NAME]
    command += ["--config", str(workload.directory / SWEEP_FILE), "--storage", str(directory)]
    command += ["--num_trials", str(trials)]
    with tempfile.TemporaryDirectory(prefix="ray_") as tmpdir:
        environment = {**os.environ, "RAY_TMPDIR": tmpdir, "CUDA_VISIBLE_DEVICES": ""}
        up, concurrent, processes = 0.0, 0, []
        with subprocess.Popen(
            command, cwd=PROJECT, env=environment, encoding="utf-8", stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(RAY_IS_UP):
                    up = time.time()
                if found := re.search(r"(\d+) trials at a time", line):
                    concurrent = int(found[1])
                if " started: " in line:
                    processes = max(processes, trial_processes(tmpdir), key=len)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
    return {"up": up, "concurrent": concurrent, "processes": processes}


def seconds_of(action: Any, repeats: int = 5) -> float:
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return median(taken)


def prepare_again(workload: Workload) -> None:
    """What a second sweep on the same data and LLM does before its fleet starts."""
    assert find_inputs(workload.config, on_gpu=False) is not None


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, round(share * (len(values) - 1)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps of a trial")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        workload = prepare(directory / "workload", options.steps)
        sweep = run_sweep(workload, options.trials, directory)
        record = read_sweep(directory / NAME)
        events = list(read_events(directory / NAME))
        preparation = seconds_of(lambda: prepare_again(workload))
        attach = seconds_of(lambda: DeviceInputs(workload.inputs, CPU))
    firsts = [event for event in events if event["event"] == "first_step"]
    hosts = next(event["hosts"] for event in events if event["event"] == "hosts")
    first_step = min(event["at"] for event in firsts)
    joined = max(host["joined"] for host in hosts)
    waits = [e["waited"] for e in firsts if e["at"] - e["waited"] > joined]
    processes = sweep["processes"]
    assert processes, "no process of a trial was seen"
    largest = {key: max(p[key] for p in processes) / MIB for key in ("resident", "own")}
    figures = {
        "trial's wait for its first step, p50 (ms)": (1e3 * quantile(waits, 0.5), "<= 50"),
        "trial's wait for its first step, p99 (ms)": (1e3 * quantile(waits, 0.99), "<= 300"),
        "trials that found the fleet up": (len(waits), ""),
        "fleet start (s)": (first_step - sweep["up"], "<= 8"),
        "hosts' time in steps (share)": (record.busy or 0.0, ">= 0.85"),
        "processes per concurrent trial": (len(processes) / sweep["concurrent"], "<= 1"),
        "a trial's process, own memory (MiB)": (largest["own"], "<= 150"),
        "a trial's process, resident (MiB)": (largest["resident"], ""),
        "inputs of a second sweep (s)": (preparation, "<= 0.5"),
        "attaching the inputs (ms)": (1e3 * attach, "<= 1"),
    }
    rows = [(name, f"{value:.3g}", goal) for name, (value, goal) in figures.items()]
    print_table(("figure", "measured", "goal"), rows)
    write_json(
        options.json, {name: value for name, (value, _) in figures.items()} | {"waits": waits}
    )


if __name__ == "__main__":
    main()
