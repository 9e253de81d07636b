"""A table that leaves out whole columns on a narrow terminal: what it shows can be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

BETWEEN = 2  # blanks between two columns
FEWEST = 6  # cells that still tell one status from another


@dataclass(frozen=True)
class Shown:
    """How a column is shown; those of greater ``rank`` go first where there is no room.

    With ``least`` cells a column may be narrower than what is in it, and ``overflow`` says how.
    """

    rank: int
    justify: Literal["left", "right"] = "left"
    least: int | None = None
    overflow: Literal["ellipsis", "fold"] = "ellipsis"
    wraps: bool = False


class FittingTable(Table):
    """Rows that are told apart by their first column, which is always there and whole."""

    def __init__(self, columns: Mapping[str, Shown], header_style: str = "") -> None:
        super().__init__(box=None, pad_edge=False, header_style=header_style)
        self._shown = tuple(columns.values())
        for name in columns:
            self.add_column(name)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = self._widths(options.max_width)
        fitted = Table(box=None, pad_edge=False, header_style=self.header_style)
        for place, width in widths.items():
            how = self._shown[place]
            fitted.add_column(
                self.columns[place].header,
                justify=how.justify,
                width=width,
                overflow=how.overflow if place else "fold",
                no_wrap=bool(place) and not how.wraps and how.overflow == "ellipsis",
            )
        cells = [list(column.cells) for column in self.columns]
        for row in range(self.row_count):
            fitted.add_row(*(cells[place][row] for place in widths))
        yield fitted

    def _widths(self, room: int) -> dict[int, int]:
        """The columns that there is room for, in their order, each with its width."""
        whole = [self._whole(place) for place in range(len(self.columns))]
        widths = {0: min(whole[0], room)}
        left = room - widths[0]
        for place in sorted(range(1, len(whole)), key=lambda p: self._shown[p].rank):
            least = self._shown[place].least
            wanted = whole[place] if least is None else min(whole[place], least)
            if least is not None and len(widths) == 1 and left >= FEWEST + BETWEEN:
                wanted = min(wanted, left - BETWEEN)  # beside the first column rather than nothing
            if wanted + BETWEEN <= left:
                widths[place] = wanted
                left -= wanted + BETWEEN
        for place in sorted(widths, key=lambda p: self._shown[p].rank):
            more = min(left, whole[place] - widths[place])
            widths[place] += more
            left -= more
        return dict(sorted(widths.items()))

    def _whole(self, place: int) -> int:
        """The cells that the longest line in a column takes."""
        column = self.columns[place]
        texts = (t.plain if isinstance(t, Text) else str(t) for t in (column.header, *column.cells))
        return max((cell_len(text) for text in texts), default=0)
