"""The append-only history of a sweep: one event a line, each with a checksum.

Nothing here imports Ray or torch.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from trainables.errors import UserError
from trainables.files import wait_for_room
from tuning.history.lock import is_locked
from tuning.history.record import EARLIER_KINDS, Event, EventKind

EVENTS_FILE = "trials.jsonl"
CRC = ', "crc32": '
# Flushed to the disk at once, should the power fail. An epoch's line is not: the epoch would be
# trained again, and there may be hundreds of such lines a second.
DURABLE = (EventKind.CREATED, EventKind.SWEEP, EventKind.END)
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
        # Without a buffer a line is with the system when `write` returns, whatever kills us next.
        self._file: IO[bytes] = self._path.open("ab", buffering=0)
        self._say = say
        self._sleep = sleep
        # Ended, not cut away: what is left of the line is for whoever looks into the damage.
        if _ends_within_a_line(self._path):  # a kill cut it off
            self._append(b"\n")

    def write(self, event: Event) -> None:
        self._append(encode(event))
        if event["event"] in DURABLE:
            os.fsync(self._file.fileno())

    def when_there_is_room(self, write: Callable[[], object], path: Path) -> None:
        """Call ``write`` again and again while the disk is full; a stop request ends that."""
        wait_for_room(write, path, self._say, self._sleep)

    def close(self) -> None:
        self._file.close()

    def _append(self, line: bytes) -> None:
        end = self._path.stat().st_size

        def append() -> None:
            try:
                if self._file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                os.truncate(self._path, end)  # half a line on a full disk is no line
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
    kind = event["event"]
    return {**event, "event": EARLIER_KINDS.get(kind, kind)} if isinstance(kind, str) else event


def _ends_within_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def now() -> float:
    """Seconds since 1970, to the millisecond."""
    return round(time.time(), 3)


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
