"""The words for what becomes of a trial and its run, declared once. No torch."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """Written into histories as these texts, so that none of them may ever change."""

    PENDING = "pending"
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED_EARLY = "stopped early"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out of memory"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


# A trial with one of these statuses is over and has a result that counts.
GOOD = (Status.FINISHED, Status.STOPPED_EARLY)
# A trial with one of these got a value that the sampler is to avoid.
BAD = (Status.DIVERGED, Status.OUT_OF_MEMORY)
OVER = (*GOOD, *BAD, Status.FAILED)
