"""Tells the user that trials wait for room: the hosts meet the full disk, and cannot say so."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Callback

from tuning.history.disk import free_bytes, used_bytes
from tuning.history.record import SweepRecord

CHECK_SECONDS = 5.0


class RoomCallback(Callback):
    """Says once that there is no room for another checkpoint, and once that there is again."""

    def __init__(self, directory: Path, record: SweepRecord, say: Callable[[str], None]) -> None:
        self._directory = directory
        self._record = record
        self._say = say
        self._checked = 0.0
        self._full = False

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self._checked < CHECK_SECONDS:
            return
        self._checked = time.monotonic()
        free = free_bytes(self._directory)
        full = free < self._checkpoint_bytes()
        if full and not self._full:
            self._say(
                f"no room left for a checkpoint in {self._directory} ({free / 2**20:.1f} MiB): "
                "trials wait until there is some; nothing is lost"
            )
        elif self._full and not full:
            self._say(f"there is room again in {self._directory}")
        self._full = full

    def _checkpoint_bytes(self) -> int:
        """The size of the newest checkpoint; before the first one: anything."""
        for trial in reversed(self._record.trials.values()):
            if trial.checkpoint and (size := used_bytes(self._directory / trial.checkpoint)):
                return size
        return 1
