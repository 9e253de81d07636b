"""Everything that is wrong with a file, told at once."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

from trainables.errors import DataError

MOST_SHOWN = 10


@dataclass(frozen=True)
class Fault:
    """``place`` orders the faults of a file; of each ``kind`` one is shown before a second."""

    place: int
    kind: Hashable
    text: str


class Faults:
    """The faults of one file, so that a person mends all of them before the next try."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: list[Fault] = []

    def add(self, place: int, kind: Hashable, text: str) -> None:
        self._found.append(Fault(place, kind, text))

    def __bool__(self) -> bool:
        return bool(self._found)

    def refuse(self) -> None:
        """Raises DataError if there are any."""
        if len(self._found) == 1:
            raise DataError(f"{self._path}: {self._found[0].text}")
        if self._found:
            texts = [fault.text for fault in self._shown()]
            more = len(self._found) - len(texts)
            texts += [f"and {more} more"] if more else []
            raise DataError(f"{self._path}: {len(self._found)} faults:", texts)

    def _shown(self) -> list[Fault]:
        """The first of every kind, then the first of the others, in their order in the file."""
        ordered = sorted(self._found, key=lambda fault: fault.place)
        firsts: dict[Hashable, int] = {}
        for number, fault in enumerate(ordered):
            firsts.setdefault(fault.kind, number)
        others = sorted(set(range(len(ordered))) - set(firsts.values()))
        chosen = [*firsts.values(), *others]
        return [ordered[number] for number in sorted(chosen[:MOST_SHOWN])]
