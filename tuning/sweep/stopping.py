"""Ending a sweep in order before it is done: by a signal, a file, or when its time is up."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from ray.tune import Callback

from tuning.history.sweeps import STOP_FILE

CHECK_SECONDS = 0.5  # looking for a file at each of hundreds of events a second is too often
AT_ONCE = 130  # 128 + SIGINT
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class SweepStopped(BaseException):
    """Somebody wants the sweep to end now; no error, so that nobody handles it as one."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class StopCallback(Callback):
    """Raises SweepStopped between two of Ray Tune's events."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._check()


class StopRequests:
    """Whether the sweep in ``directory`` shall end, and why.

    The first signal ends it in order; a second one ends this process at once. The sweep can be
    resumed after either.
    """

    def __init__(self, directory: Path, seconds: float | None) -> None:
        self._file = directory / STOP_FILE
        self._deadline = time.monotonic() + seconds if seconds is not None else None
        self._signal: int | None = None
        self._between_events = False
        self._checked = 0.0
        self._reason: str | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Signals are requests inside this block, which an exception may leave anywhere."""
        before = {number: signal.signal(number, self._on_signal) for number in NAMES}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def only_between_events(self) -> Iterator[None]:
        """In this block a signal waits for ``check``, so that no event is torn."""
        self._between_events = True
        try:
            yield
        finally:
            self._between_events = False

    def check(self) -> None:
        """Raises SweepStopped if there was a request, and from then on always."""
        if self._signal is not None:
            raise SweepStopped(f"stopped by {NAMES[signal.Signals(self._signal)]}")
        if self._reason is not None:
            raise SweepStopped(self._reason)
        now = time.monotonic()
        if now - self._checked < CHECK_SECONDS:
            return
        self._checked = now
        if self._deadline is not None and now > self._deadline:
            self._reason = "its time_budget is used up"
        if self._file.exists():
            self._file.unlink(missing_ok=True)
            self._reason = "stopped by `stop`"
        if self._reason is not None:
            raise SweepStopped(self._reason)

    def wait(self, seconds: float) -> None:
        """Sleep for something that may never come; raises SweepStopped if there was a request."""
        self.check()
        time.sleep(seconds)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            os.write(2, b"\nleaving at once; the sweep can be resumed\n")
            os._exit(AT_ONCE)
        self._signal = number
        os.write(2, b"\nstopping; what is trained is written down; once more leaves at once\n")
        if not self._between_events:
            self.check()
