"""A sweep's directory: what is written while it runs and read by every command after.

    sweep.yaml       the resolved configuration          inputs/     copies of the data files
    manifest.json    versions, hashes                    tune/       Ray Tune's experiment
    trials.jsonl     append-only history of events       best/       the best trial, exported
    study.journal    the Optuna study                    logs/       Ray's own chatter
    lock             held by the process that runs it

Nothing here imports Ray or torch.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from trainables.errors import UserError, did_you_mean
from trainables.files import exists, write_text

EVENTS_FILE = "trials.jsonl"
CONFIG_FILE = "sweep.yaml"
MANIFEST_FILE = "manifest.json"
LOCK_FILE = "lock"
FORMAT_VERSION = 1
HISTORY_KEYS = ("epoch", "train_loss", "val_loss", "gate_alpha", "semantic_retention")
# A trial with one of these statuses is over and has a result that counts.
MAX_FIGURE = 1e300
GOOD = ("finished", "stopped early")

_log = logging.getLogger(__name__)
Event = dict[str, Any]


@dataclass
class TrialRecord:
    """One trial as its events tell it."""

    trial_id: str
    params: dict[str, Any]
    status: str = "pending"
    message: str = ""
    started: float | None = None
    ended: float | None = None
    waited: float | None = None  # seconds from being requested to the end of the first step
    checkpoint: str | None = None  # relative to the sweep's directory
    reports: dict[int, dict[str, Any]] = field(default_factory=dict)  # by epoch

    @property
    def epoch(self) -> int:
        return max(self.reports, default=0)

    @property
    def metrics(self) -> dict[str, Any]:
        """The figures of the last epoch."""
        return self.reports[self.epoch] if self.reports else {}

    @property
    def history(self) -> list[dict[str, Any]]:
        return [{k: self.reports[e].get(k) for k in HISTORY_KEYS} for e in sorted(self.reports)]

    @property
    def described_status(self) -> str:
        """The status with its reason, as a person reads it."""
        if self.status == "stopped early":
            return f"stopped early at epoch {self.epoch}"
        return f"{self.status}: {self.message}" if self.message else self.status


@dataclass
class SweepRecord:
    """Everything the events of one sweep tell."""

    name: str
    metric: str
    mode: str
    num_trials: int
    trials: dict[str, TrialRecord] = field(default_factory=dict)
    state: str = "running"
    message: str = ""
    busy: float | None = None  # share of the hosts' time that was spent in training steps

    def apply(self, event: Event) -> None:
        """Take in one event; an epoch that is told again replaces what followed it before."""
        _check_event(event)
        if event["event"] == "sweep":
            self.state, self.message = event["state"], event.get("message", "")
            self.num_trials = event.get("num_trials", self.num_trials)
            return
        if event["event"] == "hosts":
            self.busy = _share_in_steps(event["hosts"], event["time"])
            return
        trial_id = event["trial_id"]
        if event["event"] == "trial" and trial_id not in self.trials:
            self.trials[trial_id] = TrialRecord(trial_id, event["params"])
        trial = self.trials[trial_id]
        match event["event"]:
            case "trial" if trial.params != event["params"]:
                self.trials[trial_id] = TrialRecord(trial_id, event["params"])
            case "params":  # of a population: the trial goes on with others
                trial.params = event["params"]
            case "start":
                trial.status, trial.message, trial.ended = "running", "", None
                trial.started = trial.started or event["time"]
            case "first_step":
                trial.waited = trial.waited or event["waited"]
            case "epoch":
                epoch = event["metrics"]["epoch"]
                trial.reports = {e: r for e, r in trial.reports.items() if e < epoch}
                trial.reports[epoch] = event["metrics"]
            case "checkpoint":
                trial.checkpoint = event["path"]
            case "end":
                trial.status, trial.message = event["status"], event.get("message", "")
                trial.ended = event["time"]

    def value(self, trial: TrialRecord) -> float | None:
        """The objective at the trial's last epoch, if it is a finite number."""
        value = trial.metrics.get(self.metric)
        return value if isinstance(value, int | float) and math.isfinite(value) else None

    def best(self) -> TrialRecord | None:
        """The best trial that has ended well and left a checkpoint; ties go to the earlier."""
        ended = [t for t in self.trials.values() if t.status in GOOD and t.checkpoint]
        scored = [(value, t) for t in ended if (value := self.value(t)) is not None]
        if not scored:
            return None
        sign = 1 if self.mode == "min" else -1
        return min(scored, key=lambda pair: sign * pair[0])[1]

    def counts(self) -> dict[str, int]:
        return dict(Counter(t.status for t in self.trials.values()))


EVENT_FIELDS: dict[str, dict[str, Any]] = {
    "sweep": {"state": str},
    "hosts": {"hosts": list, "time": int | float},
    "first_step": {"trial_id": str, "waited": int | float},
    "trial": {"trial_id": str, "params": dict},
    "params": {"trial_id": str, "params": dict},
    "start": {"trial_id": str, "time": int | float},
    "epoch": {"trial_id": str, "metrics": dict},
    "checkpoint": {"trial_id": str, "path": str},
    "end": {"trial_id": str, "status": str, "time": int | float},
}


def _share_in_steps(hosts: list[dict[str, Any]], until: float) -> float | None:
    """Of the time since each host joined; None for hosts that never trained."""
    up = sum(until - host["joined"] for host in hosts)
    return sum(host.get("seconds_in_steps", 0.0) for host in hosts) / up if up > 0 else None


def _check_event(event: Event) -> None:
    """A line that is JSON but no event of ours must not reach those who show it."""
    for key, kind in EVENT_FIELDS[event["event"]].items():
        if not isinstance(event[key], kind):
            raise TypeError(f"`{key}` is {type(event[key]).__name__}")
    if event["event"] == "epoch":
        metrics = event["metrics"]
        if not all(type(v) in (int, float) and abs(v) < MAX_FIGURE for v in metrics.values()):
            raise TypeError("a metric is no number")
        if type(metrics["epoch"]) is not int:
            raise TypeError("`epoch` is no whole number")


class EventLog:
    """The append-only history; every line is flushed before the next event is made."""

    def __init__(self, directory: Path) -> None:
        self._file: IO[str] = (directory / EVENTS_FILE).open("a", encoding="utf-8")

    def write(self, event: Event) -> None:
        self._file.write(json.dumps(event) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def now() -> float:
    """Seconds since 1970, to the millisecond."""
    return round(time.time(), 3)


def write_manifest(directory: Path, content: dict[str, Any]) -> None:
    document = {"format_version": FORMAT_VERSION, **content}
    write_text(directory / MANIFEST_FILE, json.dumps(document, indent=2) + "\n")


MANIFEST_FIELDS = {
    "name": str,
    "metric": str,
    "mode": str,
    "num_trials": int,
    "created": float | int,
}


def read_manifest(directory: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((directory / MANIFEST_FILE).read_text())
        version = manifest["format_version"]
        for key, kind in MANIFEST_FIELDS.items():
            if not isinstance(manifest[key], kind):
                raise TypeError(f"`{key}` is {type(manifest[key]).__name__}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{directory}: `{MANIFEST_FILE}` cannot be read: {error!r}") from None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{directory}: format version {version}; this release reads {FORMAT_VERSION}"
        )
    return dict(manifest)


def read_events(directory: Path) -> Iterator[Event]:
    """All whole lines of the history; a damaged one is reported and skipped."""
    try:
        lines = (directory / EVENTS_FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{directory / EVENTS_FILE}: cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line)
            if not isinstance(event, dict) or "event" not in event:
                raise ValueError("not an event")
        except (ValueError, RecursionError) as error:
            _log.warning("%s line %d skipped: %s", directory / EVENTS_FILE, number, error)
            continue
        yield event


def read_sweep(directory: Path) -> SweepRecord:
    """The record of a sweep, its state corrected if the process that ran it is gone."""
    manifest = read_manifest(directory)
    record = SweepRecord(
        manifest["name"], manifest["metric"], manifest["mode"], manifest["num_trials"]
    )
    for event in read_events(directory):
        try:
            record.apply(event)
        except (KeyError, TypeError, AttributeError) as error:
            _log.warning("%s: an event was skipped: %r", directory / EVENTS_FILE, error)
    if record.state == "running" and not is_locked(directory):
        record.state = "interrupted"
    if record.state != "running":
        for trial in record.trials.values():
            if trial.status in ("pending", "running"):
                trial.status = "interrupted"
    return record


def list_sweeps(storage: Path) -> list[Path]:
    """The directories of all sweeps, oldest first."""
    if not exists(storage, "--storage"):
        return []
    try:
        found = [p for p in storage.iterdir() if (p / MANIFEST_FILE).is_file()]
    except OSError as error:
        raise UserError(f"--storage {storage}: cannot be listed: {error.strerror}") from None
    return sorted(found, key=lambda p: (_created(p), p.name))


def _created(directory: Path) -> float:
    try:
        return float(read_manifest(directory)["created"])
    except (UserError, OverflowError):
        return 0.0


def find_sweep(storage: Path, name: str) -> Path:
    """A sweep by its name, or by the path of its directory."""
    for directory in (storage / name, Path(name)):
        if exists(directory / MANIFEST_FILE, "NAME"):
            return directory.absolute()
    names = [p.name for p in list_sweeps(storage)]
    hint = did_you_mean(name, names)
    known = f"; there are: {', '.join(names)}" if names else "; there is none yet, see `launch`"
    raise UserError(f"no sweep `{name}` in {storage}{hint}{known}")


class SweepLock:
    """Held while a process runs the sweep; freed by the system when that process dies."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK_FILE
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        self._file = self._path.open("a")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = self._path.read_text().strip()
            self._file.close()
            raise UserError(
                f"{self._path.parent}: this sweep is already running ({holder or 'elsewhere'}); "
                "wait for it, or stop it first"
            ) from None
        self._file.truncate(0)
        self._file.write(f"pid {os.getpid()}")
        self._file.flush()

    def release(self) -> None:
        if self._file is not None:
            self._file.close()


def is_locked(directory: Path) -> bool:
    try:
        with (directory / LOCK_FILE).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
