"""A sweep's directory: what is written while it runs and read by every command after.

    sweep.yaml       the resolved configuration          inputs/     copies of the data files
    manifest.json    versions, hashes                    tune/       Ray Tune's experiment
    trials.jsonl     append-only history of events       best/       the best trial, exported
    study.journal    the Optuna study                    logs/       Ray's own chatter
    lock             held by the process that runs it

Nothing here imports Ray or torch.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import math
import os
import re
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from trainables.errors import UserError, did_you_mean
from trainables.files import exists, wait_for_room, write_text

EVENTS_FILE = "trials.jsonl"
CONFIG_FILE = "sweep.yaml"
MANIFEST_FILE = "manifest.json"
LOCK_FILE = "lock"
TUNE_DIR = "tune"
STOP_FILE = "stop"  # made by who wants the sweep to end
FORMAT_VERSION = 2
CRC = ', "crc32": '
DURABLE = ("created", "sweep", "end")  # told to the disk at once, should the power fail
TRIAL_ID = re.compile(r"trial_\d{1,9}")
SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")  # never a way to another directory
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
    pruned: bool = False  # its checkpoints are not worth their room
    reports: dict[int, dict[str, Any]] = field(default_factory=dict)  # by epoch
    search_state: dict[str, Any] = field(default_factory=dict)  # what a sampler keeps with it

    @property
    def number(self) -> int:
        return int(self.trial_id.rpartition("_")[2])

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

    def ordered(self) -> list[TrialRecord]:
        """The trials by number."""
        return sorted(self.trials.values(), key=lambda trial: trial.number)

    def apply(self, event: Event) -> None:
        """Take in one event; an epoch that is told again replaces what followed it before."""
        _check_event(event)
        if event["event"] == "created":
            return
        if event["event"] == "sweep":
            self.state, self.message = event["state"], event.get("message", "")
            self.num_trials = event.get("num_trials", self.num_trials)
            return
        if event["event"] == "hosts":
            self.busy = _share_in_steps(event["hosts"], event["time"])
            return
        trial_id = event["trial_id"]
        if trial_id not in self.trials:  # by `trial`, or by another that has all one must know
            state = event.get("state", {})
            self.trials[trial_id] = TrialRecord(trial_id, event["params"], search_state=state)
        trial = self.trials[trial_id]
        match event["event"]:
            case "trial" if trial.params != event["params"]:
                self.trials[trial_id] = TrialRecord(trial_id, event["params"])
            case "history":
                trial.reports = {m["epoch"]: m for m in event["history"]}
            case "pruned":
                trial.checkpoint, trial.pruned = None, True
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
                trial.checkpoint, trial.pruned = event["path"], False
            case "end":
                trial.status, trial.message = event["status"], event.get("message", "")
                trial.ended = event["time"]

    def value(self, trial: TrialRecord) -> float | None:
        """The objective at the trial's last epoch, if it is a finite number."""
        value = trial.metrics.get(self.metric)
        return value if isinstance(value, int | float) and math.isfinite(value) else None

    def ranked(self) -> list[TrialRecord]:
        """Trials that have ended well and left a checkpoint, best first; ties: the earlier."""
        ended = [t for t in self.trials.values() if t.status in GOOD and t.checkpoint]
        scored = [(value, t) for t in ended if (value := self.value(t)) is not None]
        sign = 1 if self.mode == "min" else -1
        return [t for _, t in sorted(scored, key=lambda pair: sign * pair[0])]

    def best(self) -> TrialRecord | None:
        return next(iter(self.ranked()), None)

    def counts(self) -> dict[str, int]:
        return dict(Counter(t.status for t in self.trials.values()))


EVENT_FIELDS: dict[str, dict[str, Any]] = {
    "created": {"manifest": dict, "sweep": str},
    "sweep": {"state": str},
    "history": {"trial_id": str, "history": list},
    "pruned": {"trial_id": str},
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
    if not isinstance(event.get("params", {}), dict):
        raise TypeError("`params` is no mapping")
    told = [event["metrics"]] if event["event"] == "epoch" else event.get("history", [])
    for metrics in told:
        if not all(type(v) in (int, float) and abs(v) < MAX_FIGURE for v in metrics.values()):
            raise TypeError("a metric is no number")
        if type(metrics["epoch"]) is not int:
            raise TypeError("`epoch` is no whole number")
    if "trial_id" in event and not TRIAL_ID.fullmatch(event["trial_id"]):
        raise TypeError("`trial_id` is not one of ours")
    if event["event"] == "checkpoint":
        folder, _, name = event["path"].rpartition("/")
        if folder != f"{TUNE_DIR}/{event['trial_id']}" or not FILE_NAME.fullmatch(name):
            raise ValueError(f"`path` is none of {event['trial_id']}'s checkpoints")


class EventLog:
    """The append-only history; every line is whole on disk before the next event is made.

    While the disk is full the sweep waits here: ``say`` is told, and nothing is lost.
    """

    def __init__(
        self,
        directory: Path,
        say: Callable[[str], None] = lambda line: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = directory / EVENTS_FILE
        self._file: IO[bytes] = self._path.open("ab", buffering=0)
        self._say = say
        self._sleep = sleep
        if _ends_within_a_line(self._path):  # a kill cut it off
            self._append(b"\n")

    def write(self, event: Event) -> None:
        self._append(encode(event))
        if event["event"] in DURABLE:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _append(self, line: bytes) -> None:
        end = self._path.stat().st_size

        def append() -> None:
            try:
                if self._file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                os.truncate(self._path, end)
                raise OSError(error.errno, error.strerror, str(self._path)) from None

        wait_for_room(append, self._path, self._say, self._sleep)


def encode(event: Event) -> bytes:
    """One line; its end is a checksum of what stands before it."""
    text = json.dumps(event)[:-1]
    return f"{text}{CRC}{zlib.crc32(text.encode())}}}\n".encode()


def decode(line: bytes) -> Event:
    """The event of a line; ValueError says what is wrong with it."""
    text, found, rest = line.rpartition(CRC.encode())
    if not found:
        raise ValueError("it has no checksum")
    if not rest.rstrip(b"}").isdigit() or zlib.crc32(text) != int(rest.rstrip(b"}")):
        raise ValueError("its checksum does not match")
    event = json.loads(text + b"}")
    if not isinstance(event, dict) or "event" not in event:
        raise ValueError("not an event")
    return event


def _ends_within_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def trial_name(number: int) -> str:
    """What a trial is called everywhere."""
    return f"trial_{number:04d}"


def now() -> float:
    """Seconds since 1970, to the millisecond."""
    return round(time.time(), 3)


def write_manifest(directory: Path, content: dict[str, Any]) -> None:
    write_text(directory / MANIFEST_FILE, json.dumps(with_checksum(content), indent=2) + "\n")


def with_checksum(content: dict[str, Any]) -> dict[str, Any]:
    """A manifest as it is written: with the version of its format and a checksum."""
    document = {**content, "format_version": FORMAT_VERSION}
    return {**document, "checksum": _checksum(document)}


def _checksum(document: dict[str, Any]) -> str:
    """Of everything but the checksum itself."""
    rest = {key: value for key, value in document.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


MANIFEST_FIELDS = {
    "name": str,
    "metric": str,
    "mode": str,
    "num_trials": int,
    "created": float | int,
    "python": str,
    "versions": dict,
    "inputs": dict,
}


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest; a damaged one is reported, and the copy in the history read instead."""
    try:
        manifest = json.loads((directory / MANIFEST_FILE).read_text())
        version = manifest["format_version"]
        if version == FORMAT_VERSION:
            _check_manifest(manifest)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        recorded = read_created(directory)
        if recorded is None:
            raise UserError(f"{directory}: `{MANIFEST_FILE}` cannot be read: {error!r}") from None
        _log.warning(
            "%s cannot be read (%s); using the copy in %s",
            directory / MANIFEST_FILE,
            error,
            EVENTS_FILE,
        )
        return dict(recorded["manifest"])
    if version != FORMAT_VERSION:
        raise UserError(
            f"{directory}: format version {version}; this release reads {FORMAT_VERSION}"
        )
    return dict(manifest)


def _check_manifest(manifest: dict[str, Any]) -> None:
    for key, kind in MANIFEST_FIELDS.items():
        if not isinstance(manifest[key], kind):
            raise TypeError(f"`{key}` is {type(manifest[key]).__name__}")
    if manifest["checksum"] != _checksum(manifest):
        raise ValueError("its checksum does not match")
    if not SWEEP_NAME.fullmatch(manifest["name"]) or manifest["mode"] not in ("min", "max"):
        raise ValueError("`name` or `mode` is none that a sweep can have")
    if not all(map(FILE_NAME.fullmatch, manifest["inputs"])):
        raise ValueError("`inputs` has names that are no file's")


def read_created(directory: Path) -> Event | None:
    """How the sweep was created or last changed, as its history has it; None if it does not."""
    with contextlib.suppress(UserError):
        found = [e for e in read_events(directory, warn=False) if e["event"] == "created"]
        with contextlib.suppress(KeyError, TypeError, ValueError):
            for event in found:
                _check_event(event)
                _check_manifest(event["manifest"])
            return found[-1] if found else None
    return None


def read_events(directory: Path, warn: bool = True) -> Iterator[Event]:
    """All whole lines of the history; a damaged one is reported and skipped."""
    try:
        lines = (directory / EVENTS_FILE).read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        raise UserError(
            f"{directory / EVENTS_FILE} is missing, and with it all that is known of the trials; "
            "put it back"
        ) from None
    except OSError as error:
        raise UserError(f"{directory / EVENTS_FILE}: cannot be read: {error.strerror}") from None
    if lines and not lines[-1].endswith(b"\n") and is_locked(directory):
        lines.pop()  # it is being written
    for number, line in enumerate(map(bytes.rstrip, lines), start=1):
        if not line:
            continue
        try:
            event = decode(line)
        except (ValueError, RecursionError) as error:
            if warn:
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
        except (KeyError, TypeError, ValueError, AttributeError) as error:
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
        marks = (MANIFEST_FILE, EVENTS_FILE)
        found = [
            path
            for path in storage.iterdir()
            if not path.name.startswith(".")  # one that is being made, or was not made whole
            and any((path / mark).is_file() for mark in marks)
        ]
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
        if any(exists(directory / file, "NAME") for file in (MANIFEST_FILE, EVENTS_FILE)):
            return directory.absolute()
    names = [p.name for p in list_sweeps(storage)]
    hint = did_you_mean(name, names)
    known = f"; there are: {', '.join(names)}" if names else "; there is none yet, see `launch`"
    raise UserError(f"no sweep `{name}` in {storage}{hint}{known}")


class SweepLock:
    """Held while a process runs the sweep; freed by the system when that process dies."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK_FILE
        self._file: IO[bytes] | None = None

    def acquire(self) -> None:
        try:
            self._file = self._path.open("ab", buffering=0)
        except OSError as error:
            raise UserError(f"{self._path} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = self._path.read_text(errors="replace").strip()
            self._file.close()
            raise UserError(
                f"{self._path.parent}: this sweep is already running ({holder or 'elsewhere'}); "
                "wait for it, or stop it first"
            ) from None
        with contextlib.suppress(OSError):  # held all the same, though the disk be full
            self._file.truncate(0)
            self._file.write(f"pid {os.getpid()}".encode())

    def release(self) -> None:
        if self._file is not None:
            self._file.close()


def is_locked(directory: Path) -> bool:
    try:
        with (directory / LOCK_FILE).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none, or nobody can take it
        return False
    return False
