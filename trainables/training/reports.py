"""What a run says: a report after each epoch, and an ending if it cannot go on. No torch.

Both are built once and passed on whole, from the lane to the history. A dictionary of them exists
only where Ray demands one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from trainables.metrics import Metrics
from trainables.statuses import Status
from trainables.training.diagnosis import Finding


@dataclass(frozen=True)
class EpochReport:
    """What a run did in one epoch.

    ``series`` has one value per optimiser step of the epoch, by metric. ``status`` is `running`,
    or how the run ended with this epoch: `finished`, or `stopped early` for the reason in
    ``message``. ``lineage`` are the epochs of another run whose weights were taken over, with the
    first report after that. ``checkpoint`` and ``first_step_at`` (seconds since 1970) are known
    where the run is packed.
    """

    metrics: Metrics
    series: dict[str, list[float]] = field(default_factory=dict)
    status: Status = Status.RUNNING
    message: str = ""
    findings: tuple[Finding, ...] = ()
    lineage: tuple[Metrics, ...] = ()
    checkpoint: str | None = None
    first_step_at: float | None = None

    @property
    def epoch(self) -> int:
        return int(self.metrics["epoch"])

    @property
    def last(self) -> bool:
        """Whether the run has ended."""
        return self.status != Status.RUNNING


@dataclass(frozen=True)
class Ending:
    """Why a run could not go on: it has no new epoch, ``metrics`` are those of its last one."""

    status: Status
    message: str
    metrics: Metrics = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """The last epoch that was told; 0 if there was none."""
        return int(self.metrics.get("epoch", 0))

    @property
    def last(self) -> bool:
        return True


Report = EpochReport | Ending


def to_plain(report: Report) -> dict[str, Any]:
    """A report as Ray Train takes it: plain values, which it also writes as JSON."""
    return {"kind": type(report).__name__, **asdict(report)}


def from_plain(plain: Mapping[str, Any]) -> Report:
    """The report that ``to_plain`` was given."""
    values = {key: value for key, value in plain.items() if key != "kind"}
    values["status"] = Status(values["status"])
    if plain["kind"] == Ending.__name__:
        return Ending(**values)
    values["findings"] = tuple(Finding(**finding) for finding in values["findings"])
    values["lineage"] = tuple(values["lineage"])
    return EpochReport(**values)
