"""One process at a time runs a sweep. Nothing here imports Ray or torch."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import IO

from trainables.errors import UserError

LOCK_FILE = "lock"
LOCK_ATTEMPTS, LOCK_SECONDS = 10, 0.02


class SweepLock:
    """Held while a process runs the sweep; freed by the system when that process dies."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK_FILE
        self._file: IO[bytes] | None = None

    # flock, not a file that is there or not: the system frees it when the process dies.
    def acquire(self) -> None:
        try:
            self._file = self._path.open("ab", buffering=0)
        except OSError as error:
            raise UserError(f"{self._path} cannot be written: {error.strerror}") from None
        if not self._locked(self._file):
            holder = self._path.read_text(errors="replace", encoding="utf-8").strip()
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
        with (directory / LOCK_FILE).open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none, or nobody can take it
        return False
    return False
