"""What a monitor is: told of every event, with the record as it stands after it."""

from __future__ import annotations

from typing import Protocol

from trainables.training.reports import EpochReport
from tuning.history.record import Event, SweepRecord


class Monitor(Protocol):
    """One that cannot start raises at once; one that fails later only warns and is left out."""

    def on_event(self, record: SweepRecord, event: Event, report: EpochReport | None) -> None:
        """``report`` comes with an event of kind `epoch`, with the series of its steps."""

    def close(self) -> None: ...
