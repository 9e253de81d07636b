"""What a migration did, each with its reason: printed, and written beside the result."""

from __future__ import annotations

from typing import NamedTuple


class Change(NamedTuple):
    """``verb`` is one word or two of the report: dropped, set, carried, computed, left out."""

    verb: str
    what: str
    why: str

    def __str__(self) -> str:
        return (
            f"{self.verb:<9} {self.what}: {self.why}" if self.why else f"{self.verb:<9} {self.what}"
        )
