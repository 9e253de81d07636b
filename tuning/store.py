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
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from trainables.errors import UserError, did_you_mean
from trainables.files import exists, wait_for_room, write_text
from tuning.record import FILE_NAME, Event, SweepRecord, check_event

EVENTS_FILE = "trials.jsonl"
CONFIG_FILE = "sweep.yaml"
MANIFEST_FILE = "manifest.json"
LOCK_FILE = "lock"
STOP_FILE = "stop"  # made by who wants the sweep to end
FORMAT_VERSION = 2
CRC = ', "crc32": '
DURABLE = ("created", "sweep", "end")  # told to the disk at once, should the power fail
SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")

LOCK_ATTEMPTS, LOCK_SECONDS = 10, 0.02
_log = logging.getLogger(__name__)


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
                check_event(event)
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
        if not self._locked(self._file):
            holder = self._path.read_text(errors="replace").strip()
            self._file.close()
            raise UserError(
                f"{self._path.parent}: this sweep is already running ({holder or 'elsewhere'}); "
                "wait for it, or stop it first"
            )
        with contextlib.suppress(OSError):  # held all the same, though the disk be full
            self._file.truncate(0)
            self._file.write(f"pid {os.getpid()}".encode())

    @staticmethod
    def _locked(file: IO[bytes]) -> bool:
        """Several attempts: ``is_locked`` takes it, too, for a moment."""
        for _ in range(LOCK_ATTEMPTS):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(LOCK_SECONDS)
            else:
                return True
        return False

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
