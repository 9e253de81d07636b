"""What is said between the one who hands out runs and the process that trains them.

Nothing here imports torch: the light processes that only forward need it, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from trainables.config import PretrainConfig

LANES_IN_TURN = 2  # of a host that trains its runs one after the other, if nothing else is said
CRASHED = "crashed"  # the outcome of a run that ended by an exception of its own


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


class Link(Protocol):
    """A host's connection to whoever hands out the runs."""

    def receive(self, wait: bool) -> list[Command]:
        """What has been said since the last time; with ``wait`` at least one command."""

    def send(self, key: str, report: dict[str, Any]) -> None:
        """Pass a run's report on; returns at once."""

    def saved(self) -> None:
        """All runs have been saved where they stand."""
