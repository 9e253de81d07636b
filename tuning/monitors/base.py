"""What a monitor is: told of every event, with the record as it stands after it."""

from __future__ import annotations

from typing import Any, Protocol

from tuning.history.record import Event, SweepRecord


class Monitor(Protocol):
    """One that cannot start raises at once; one that fails later only warns and is left out."""

    def on_event(self, record: SweepRecord, event: Event, report: dict[str, Any]) -> None:
        """``report`` is the trial's full report, step series included; empty but for epochs."""

    def close(self) -> None: ...
