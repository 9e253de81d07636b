"""How many reports one sweep handles, and what its driver's memory does over a thousand trials.

python -m benchmarks.reports [--trials 1000] [--epochs 10] [--json FILE]

Everything of a packed sweep but the training: Ray Tune with its trials' processes, the searcher,
the history on disk, the gauges. In the place of the switchboard stands one that answers at once
with a report of the usual size, the step series of an epoch inside. Rates and memory are taken
from trial 100 on, when everything is loaded.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import tempfile
import time
from pathlib import Path

import ray

from benchmarks.workload import print_table, write_json
from trainables.metrics import METRICS
from trainables.packing.protocol import Assignment
from trainables.statuses import Status
from trainables.training.reports import EpochReport
from tuning.config.sweep import load_sweep
from tuning.execution.cluster import ray_cluster
from tuning.execution.execution import Execution, trial_class
from tuning.execution.finding_ray import find_ray
from tuning.execution.packed_trial import PackedSettings, PackedTrial
from tuning.history.event_log import EventLog
from tuning.history.manifest import write_manifest
from tuning.history.record import Event, EventKind, SweepRecord
from tuning.history.sweeps import read_sweep
from tuning.monitors.gauges import GaugeMonitor
from tuning.sweep.history_writer import SweepCallback
from tuning.sweep.running import RunningSweep
from tuning.sweep.stopping import StopRequests
from tuning.sweep.tune_run import run_tune_experiment

CONCURRENT = 4
WARM = 100
STEPS = 96  # of an epoch of the shipped data


class InstantSwitchboard:
    """Answers for every epoch at once, from when all trials' processes are up."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._epoch: dict[str, int] = {}
        self._all_up = asyncio.Event()

    async def train(self, key: str, trial: str, assignment: Assignment | None) -> EpochReport:
        epoch = self._epoch[key] = self._epoch.get(key, 0) + 1
        if len(self._epoch) == CONCURRENT:
            self._all_up.set()
        await self._all_up.wait()
        metrics = {m.key: 1.0 / epoch for m in METRICS if not m.at_end}
        return EpochReport(
            metrics | {"epoch": epoch, "step": epoch * STEPS},
            {name: [0.5] * STEPS for name in ("loss", "gate_alpha", "learning_rate")},
            Status.FINISHED if epoch == self._epochs else Status.RUNNING,
        )

    async def release(self, key: str) -> None:
        self._epoch.pop(key, None)


class Watch:
    """A monitor that notes time and memory at each trial's end."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []  # seconds, bytes

    def on_event(self, record: SweepRecord, event: Event, report: EpochReport | None) -> None:
        if event["event"] == EventKind.END:
            self.ends.append((time.perf_counter(), _resident()))

    def close(self) -> None:
        return


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    config = load_sweep(
        None,
        [
            f"num_trials={options.trials}",
            "scheduler={type: none}",
            "search={type: random, seed: 0}",
            f"train.training.num_epochs={options.epochs}",
        ],
    )
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with ray_cluster(find_ray(), directory / "logs" / "ray.log"):
            board = ray.remote(num_cpus=0, max_concurrency=100)(InstantSwitchboard)
            settings = PackedSettings(config.train, board.remote(options.epochs))
            trainable = trial_class(PackedTrial, settings)
            record = SweepRecord("reports", config.metric, config.mode, options.trials)
            watch = Watch()
            history = SweepCallback(record, EventLog(directory), directory)
            history.watch([watch, GaugeMonitor("reports")])
            requests = StopRequests(directory, None)
            sweep = RunningSweep(directory, config, record, print, requests, history)
            execution = Execution(
                trainable, lambda: CONCURRENT, CONCURRENT, 7, 128, reuse_actors=True
            )
            run_tune_experiment(sweep, execution, [])
            history.close()
        told = sum(len(t.reports) for t in _record(directory, record).trials.values())
    assert told == options.trials * options.epochs, f"{told} reports arrived"
    (start, before), (end, after) = watch.ends[WARM - 1], watch.ends[-1]
    trials = len(watch.ends) - WARM
    figures = {
        "reports per second": (trials * options.epochs / (end - start), ">= 300"),
        "driver's growth per trial (KiB)": ((after - before) / trials / 1024, "<= 100"),
        "driver's memory at the end (MiB)": (after / 2**20, ""),
    }
    rows = [(name, f"{value:.3g}", goal) for name, (value, goal) in figures.items()]
    print_table(("figure", "measured", "goal"), rows)
    write_json(options.json, {name: value for name, (value, _) in figures.items()})


def _record(directory: Path, record: SweepRecord) -> SweepRecord:
    """The history as it stands on disk."""
    manifest = {"name": record.name, "metric": record.metric, "mode": record.mode}
    write_manifest(directory, {**manifest, "num_trials": record.num_trials, "created": 0.0})
    return read_sweep(directory)


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    main()
