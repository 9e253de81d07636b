"""Kills parts of a deterministic sweep at random, resumes it, compares it with one left alone.

    python -m tests.chaos [--kills 100] [--seed 0] [--keep DIR]

A sweep of 24 trials on a tiny LLM is launched again and again. At a random moment, in its start or
while it trains, SIGKILL meets one of its processes, all of them, or two within a second; a sweep
whose driver has ended is resumed, until it has finished. Then its trials, parameters, statuses and
losses must be those of a sweep that nobody disturbed, bit for bit. What a killed driver leaves
running is left running, as it would be on a user's machine. Exit status 1: something was lost,
done twice or came out otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.conftest import write_data, write_llm

RUN_TUNE = Path(__file__).parents[1] / "run_tune.py"
TRIALS = 24
EPOCHS = 27
SWEEP = {
    "train": {
        "model": {"llm_model": "llm", "num_attention_heads": 4, "num_soft_tokens": 2},
        "data": {"tool_registry": "data/tools.json", "profiling_data": "data/profiling.csv"},
        "training": {
            "batch_size": 2,
            "num_epochs": EPOCHS,
            "precision": "fp32",
            "field_accuracy_samples": 4,
        },
    },
    "search_space": {
        "training.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
        "model.dropout": {"type": "float", "low": 0.0, "high": 0.3},
    },
    "search": {"type": "auto"},
    "scheduler": {"type": "asha", "grace_epochs": 1},
    "num_trials": TRIALS,
    "deterministic": True,
    "retries": 100,  # a trial whose process is killed a third time would be given up
}
# What a process is called, by what is killed; the driver is known by its process id.
TITLES = {
    "host": "ray::RayTrainWorker",
    "trial actor": "ray::Trial",
    "controller": "ray::TrainController",
    "switchboard": "ray::Switchboard",
    "raylet": "raylet/raylet",
    "gcs": "gcs/gcs_server",
}
TARGETS = ("driver", *TITLES, "everything")
START_SHARE, START_SECONDS, TRAINING_SECONDS = 0.25, 12.0, 6.0
TWO_SHARE = 0.25
HANG_SECONDS = 240.0
FRUITLESS = 6  # starts in a row without a new epoch
SAME = (
    "params",
    "status",
    "history",
    "message",
    "best_epoch",
)  # of a trial, whatever happened on the way


@dataclass
class Tally:
    """What the kills did."""

    kills: list[tuple[str, ...]] = field(default_factory=list)
    first_epochs: dict[tuple[str, float], float] = field(default_factory=dict)  # by process
    redone: Counter[int] = field(default_factory=Counter)  # epochs, by how many kills
    sweeps: int = 0
    faults: list[str] = field(default_factory=list)


def workplace(directory: Path, trials: int = TRIALS) -> Path:
    directory.mkdir(exist_ok=True)
    write_llm(directory / "llm")
    write_data(directory / "data")
    (directory / "sweep.yaml").write_text(json.dumps({**SWEEP, "num_trials": trials}))
    return directory


class Sweep:
    """One sweep and the process that runs it at the moment."""

    def __init__(self, place: Path, name: str) -> None:
        self.directory = place / "sweeps" / name
        self._place = place
        self._name = name
        self._output = (place / f"{name}.log").open("a")
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0  # the process, seconds since 1970
        self.since = 0.0  # the process, or the last kill that it has outlived

    def start(self) -> None:
        """Launch it, or resume it if it has begun."""
        begun = (self.directory / "trials.jsonl").is_file()
        how = ["resume", self._name] if begun else ["launch", "--name", self._name]
        how += [] if begun else ["--config", "sweep.yaml"]
        self.started = self.since = time.time()
        self.process = subprocess.Popen(
            [sys.executable, str(RUN_TUNE), *how],
            cwd=self._place,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    def close(self) -> None:
        """Once its process has ended, or must."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self._output.close()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def finished(self) -> bool:
        return any(e.get("state") == "finished" for e in self.events("sweep"))

    def events(self, kind: str, since: float = 0.0) -> list[dict[str, Any]]:
        """As a reader sees them; a line that a kill cut off is no event."""
        from tuning.history.event_log import read_events

        if not (self.directory / "trials.jsonl").is_file():
            return []
        found = read_events(self.directory, warn=False)
        return [e for e in found if e["event"] == kind and e["time"] >= since]

    def outcome(self) -> dict[str, dict[str, Any]]:
        from tuning.history.sweeps import read_sweep

        return {
            name: {key: getattr(trial, key) for key in SAME}
            for name, trial in read_sweep(self.directory).trials.items()
        }


def ours() -> Iterator[tuple[int, str]]:
    """Processes of this harness's clusters: their ids and titles."""
    mark = f"RAY_TMPDIR={os.environ['RAY_TMPDIR']}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if mark in (entry / "environ").read_bytes() and int(entry.name) != os.getpid():
                yield int(entry.name), title
        except OSError:
            continue


def kill(target: str, sweep: Sweep, rng: random.Random) -> bool:
    """SIGKILL to one process of that kind, or to all; False if there is none."""
    driver = sweep.process.pid if sweep.process and sweep.running else None
    match target:
        case "driver":
            victims = [driver] if driver else []
        case "everything":
            victims = [pid for pid, _ in ours()]
        case _:
            victims = [pid for pid, title in ours() if TITLES[target] in title]
            victims = [rng.choice(victims)] if victims else []
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(victims)


def wait(sweep: Sweep, seconds: float, *, after_progress: bool) -> None:
    """Until the moment has come, or the process has ended."""
    end = None if after_progress else sweep.since + seconds
    while sweep.running and (end is None or time.time() < end):
        if end is None and sweep.events("epoch", since=sweep.since):
            end = time.time() + seconds
        if time.time() - sweep.since > HANG_SECONDS:
            raise TimeoutError(f"no progress for {HANG_SECONDS:.0f} s")
        time.sleep(0.05)


def disturb(
    sweep: Sweep, rng: random.Random, tally: Tally, kills: int, targets: Sequence[str]
) -> None:
    """Run one sweep to its end, with as many kills as are still wanted."""
    fruitless = 0
    while not sweep.finished:
        if not sweep.running:
            sweep.start()
            fruitless += 1
            if fruitless > FRUITLESS:
                raise TimeoutError(f"{FRUITLESS} starts without a new epoch")
        in_start = rng.random() < START_SHARE
        seconds = rng.uniform(0, START_SECONDS if in_start else TRAINING_SECONDS)
        wait(sweep, seconds, after_progress=not in_start)
        if len(tally.kills) < kills and sweep.running:
            tally.kills += strike(sweep, rng, targets)
        else:
            let_it_end(sweep)
        if told := sweep.events("epoch", since=sweep.started):
            fruitless = 0
            tally.first_epochs[sweep.directory.name, sweep.started] = (
                told[0]["time"] - sweep.started
            )
        sweep.since = time.time()


def strike(sweep: Sweep, rng: random.Random, among: Sequence[str]) -> list[tuple[str, ...]]:
    """One kill, or two within a second; what was hit."""
    targets = rng.sample(among, 2 if rng.random() < TWO_SHARE else 1)
    hit = []
    for target in targets:
        if kill(target, sweep, rng):
            hit.append(target)
        time.sleep(rng.uniform(0, 1) if len(targets) > 1 else 0)
    return [tuple(hit)] if hit else []


def let_it_end(sweep: Sweep) -> None:
    """Wait for the process, as long as it makes progress."""
    seen, moved = -1, time.time()
    while sweep.running:
        if (count := len(sweep.events("epoch"))) != seen:
            seen, moved = count, time.time()
        if time.time() - moved > HANG_SECONDS:
            raise TimeoutError(f"no progress for {HANG_SECONDS:.0f} s")
        time.sleep(0.2)


def check(sweep: Sweep, calm: dict[str, dict[str, Any]], tally: Tally) -> None:
    """Note everything in which a disturbed sweep differs from the calm one."""
    outcome = sweep.outcome()
    faults = [f"{name} was lost" for name in calm if name not in outcome]
    for name, trial in outcome.items():
        for key in SAME:
            if name not in calm or trial[key] != calm[name][key]:
                faults.append(f"{name}: `{key}` came out otherwise")
    told: defaultdict[tuple[str, int], int] = defaultdict(int)
    ended = Counter(e["trial_id"] for e in sweep.events("end"))
    for event in sweep.events("epoch"):
        told[event["trial_id"], event["metrics"]["epoch"]] += 1
    faults += [f"{name} ended {count} times" for name, count in ended.items() if count > 1]
    tally.redone.update(count - 1 for count in told.values() if count > 1)
    faults += _study_faults(sweep.directory, len(calm))
    tally.faults += [f"{sweep.directory.name}: {fault}" for fault in faults]
    tally.sweeps += 1


def _study_faults(directory: Path, trials: int) -> list[str]:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(directory / "study.journal")))
    try:
        study = optuna.load_study(study_name=directory.name, storage=storage)
    except KeyError:
        return ["there is no Optuna study"]
    states = Counter(t.state.name for t in study.trials)
    if len(study.trials) != trials or states["RUNNING"]:
        return [f"the Optuna study has {dict(states)}"]
    return []


def run(place: Path, kills: int, rng: random.Random, targets: Sequence[str] = TARGETS) -> Tally:
    """Disturb sweeps until there were so many kills."""
    calm = Sweep(place, "calm")
    calm.start()
    let_it_end(calm)
    calm.close()
    expected = calm.outcome()
    wanted = json.loads((place / "sweep.yaml").read_text())["num_trials"]
    if len(expected) != wanted or not calm.finished:
        raise SystemExit((place / "calm.log").read_text())
    tally, began = Tally(), time.time()
    print(f"undisturbed: {time.time() - calm.started:.0f} s", flush=True)
    while len(tally.kills) < kills and not tally.faults:
        sweep = Sweep(place, f"sweep{tally.sweeps:03d}")
        before = len(tally.kills)
        try:
            disturb(sweep, rng, tally, kills, targets)
            check(sweep, expected, tally)
        except TimeoutError as error:
            tally.faults.append(f"{sweep.directory.name}: {error} after {tally.kills[-3:]}")
        sweep.close()
        per_kill = (time.time() - began) / max(1, len(tally.kills))
        left = per_kill * (kills - len(tally.kills)) / 60
        print(
            f"{sweep.directory.name}: {len(tally.kills) - before} kills; {len(tally.kills)} of "
            f"{kills}, {len(tally.faults)} faults, about {left:.0f} min left",
            flush=True,
        )
        if not tally.faults:
            shutil.rmtree(sweep.directory)
    kill("everything", calm, rng)
    return tally


def report(tally: Tally) -> None:
    by_target = Counter(target for targets in tally.kills for target in targets)
    print(f"\nkills survived: {len(tally.kills)} in {tally.sweeps} sweeps of {TRIALS} trials")
    print("of: " + ", ".join(f"{target} {count}" for target, count in by_target.most_common()))
    print(f"two within a second: {sum(len(targets) > 1 for targets in tally.kills)}")
    epochs = sum(count * times for times, count in tally.redone.items())
    print(f"epochs told again: {epochs}, {epochs / max(1, len(tally.kills)):.2f} per kill")
    if tally.first_epochs:
        times = sorted(tally.first_epochs.values())
        print(
            f"from start or resume to the first epoch told: median {median(times):.1f} s, "
            f"longest {times[-1]:.1f} s"
        )
    print(f"lost, run twice or different: {len(tally.faults)}")
    for fault in tally.faults[:20]:
        print(f"  {fault}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave everything there")
    options = parser.parse_args()
    os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray_")  # short: socket paths are limited
    with tempfile.TemporaryDirectory() as directory:
        place = workplace(options.keep or Path(directory))
        tally = run(place, options.kills, random.Random(options.seed))
    shutil.rmtree(os.environ["RAY_TMPDIR"], ignore_errors=True)
    report(tally)
    return int(bool(tally.faults))


if __name__ == "__main__":
    raise SystemExit(main())
