"""What is said between the one who hands out runs and the processes that train them.

A host is told ``Command``s and answers with reports (``trainables.training.reports``), through
the methods of ``Board``. Nothing here imports torch: the light processes that only forward need
it, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from trainables.config import PretrainConfig
from trainables.errors import UserError
from trainables.training.reports import Report

LANES_IN_TURN = 2  # of a host that trains its runs one after the other, if nothing else is said


@dataclass(frozen=True)
class Assignment:
    """A run for a lane: how it is trained, where it starts, where its checkpoints go.

    ``inherited``: the checkpoint is another run's, whose hyperparameters may differ.
    """

    config: PretrainConfig
    directory: str
    checkpoint: str | None = None
    inherited: bool = False


@dataclass(frozen=True)
class Command:
    """``assign`` a run to a lane, let it ``go_on`` with its next epoch, ``release`` it.

    ``save`` all runs where they stand, ``close`` the host.
    """

    kind: Literal["assign", "go_on", "release", "save", "close"]
    key: str = ""
    assignment: Assignment | None = None


@dataclass(frozen=True)
class HostFacts:
    """What a host says of itself; ``joined`` in seconds since 1970, ``reason`` for its lanes."""

    lanes: int
    reason: str
    pid: int
    node: int
    joined: float
    seconds_in_steps: float = 0.0


class Link(Protocol):
    """A host's connection to whoever hands out the runs."""

    def receive(self, wait: bool) -> list[Command]:
        """What has been said since the last time; with ``wait`` at least one command."""

    def send(self, key: str, report: Report, seconds_in_steps: float) -> None:
        """Pass a run's report on; returns at once."""

    def saved(self) -> None:
        """All runs have been saved where they stand."""

    def pace(self, seconds_per_row: float) -> None:
        """How long a row takes, by the first steps; returns at once."""


class Board(Protocol):
    """What a host asks of whoever hands out the runs, an actor elsewhere."""

    async def join(self, host: str, facts: HostFacts) -> None:
        """From now on the host takes runs into its lanes."""

    async def cannot_start(self, error: UserError) -> None:
        """The host never joins, and a restart would only meet the same."""

    async def commands(self, host: str, timeout: float) -> list[Command]:
        """What the host has to do; waits up to ``timeout`` seconds for the first command."""

    async def report(self, host: str, key: str, report: Report, seconds_in_steps: float) -> None:
        """What a run in one of the host's lanes says; ``seconds_in_steps`` of the host so far."""

    async def saved(self, host: str) -> None:
        """The host has saved its runs where they stand."""

    async def pace(self, seconds_per_row: float) -> None:
        """How long a row takes on a host, by its first steps."""

    async def inputs(self, timeout: float) -> Any:
        """The shared inputs as a list of one object reference; None if there are none yet."""

    async def share(self, inputs: Any) -> None:
        """Keep what the first host has prepared for all."""
