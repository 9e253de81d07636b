"""Tells the user that trials wait for room: the hosts meet the full disk, and cannot say so."""

from __future__ import annotations

import time
from typing import Any

from ray.tune import Callback

from tuning.history.disk import free_bytes, used_bytes
from tuning.sweep.running import RunningSweep

CHECK_SECONDS = 5.0  # asking the file system costs time between two of Tune's events


class RoomCallback(Callback):
    """Says once that there is no room for another checkpoint, and once that there is again."""

    def __init__(self, sweep: RunningSweep) -> None:
        self._sweep = sweep
        self._checked = 0.0
        self._full = False

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self._checked < CHECK_SECONDS:
            return
        self._checked = time.monotonic()
        directory, say = self._sweep.directory, self._sweep.say
        free = free_bytes(directory)
        full = free < self._checkpoint_bytes()
        if full and not self._full:
            say(
                f"no room left for a checkpoint in {directory} ({free / 2**20:.1f} MiB): "
                "trials wait until there is some; nothing is lost"
            )
        elif self._full and not full:
            say(f"there is room again in {directory}")
        self._full = full

    def _checkpoint_bytes(self) -> int:
        """The size of the newest checkpoint; before the first one: anything."""
        for trial in reversed(self._sweep.record.trials.values()):
            if trial.checkpoint and (size := used_bytes(self._sweep.directory / trial.checkpoint)):
                return size
        return 1
