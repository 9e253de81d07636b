"""Which column of a table is which, and the lines that have a value for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainables.data.faults import Faults
from trainables.errors import did_you_mean
from trainables.names import difference, folded, nearest

INDEX = "an index column? write the file without it (pandas: `to_csv(..., index=False)`)"
ROW_NAMES = "row names? write the file without them (R: `row.names = FALSE`)"


@dataclass(frozen=True)
class Line:
    """A line of the file, its values cut apart."""

    number: int
    cells: list[str]


@dataclass(frozen=True)
class Table:
    """The lines below the header, and where in them the value of each column stands."""

    lines: list[Line]
    places: dict[str, int]


def find_columns(
    header: Line, lines: Sequence[Line], columns: Sequence[str], faults: Faults
) -> Table:
    """A name that is written otherwise is told, and taken for what it means all the same."""
    whole, shift = _of_full_width(len(header.cells), lines, faults)
    places: dict[str, int] = {}
    for place, name in enumerate(header.cells):
        if name in places:
            text = f"column `{name}` is there more than once; needed: {','.join(columns)}"
            faults.add(header.number, ("column", name), text)
        elif name in columns:
            places[name] = place
    for place, name in enumerate(header.cells):
        if name not in columns:
            left = [column for column in columns if column not in places]
            values = [line.cells[place + shift] for line in whole]
            text = _explain(place, name, values, left, columns)
            faults.add(header.number, ("column", place), text)
            if meant := nearest(name, left):
                places[meant] = place
    missing = [f"`{column}`" for column in columns if column not in places]
    if missing:
        which = "column {} is" if len(missing) == 1 else "columns {} are"
        text = f"{which.format(', '.join(missing))} missing; needed: {','.join(columns)}"
        faults.add(header.number, "missing", text)
    return Table(whole, {column: place + shift for column, place in places.items()})


def _explain(
    place: int, name: str, values: Sequence[str], left: Sequence[str], columns: Sequence[str]
) -> str:
    """What a column is that has none of the known names."""
    if not name:
        if place == 0 or _counts(values):
            return f"column {place + 1} has no name: {INDEX}"
        return f"column {place + 1} has no name; give it one, or remove it"
    if meant := nearest(name, left):
        if folded(name) == folded(meant):
            found = difference(name, meant)
            return f"column `{name}` must be written `{meant}`{f': {found}' if found else ''}"
        return f"unknown column `{name}`{did_you_mean(name, left)}; allowed: {','.join(columns)}"
    if _counts(values):
        return f"unknown column `{name}`: {INDEX}"
    return f"unknown column `{name}`; allowed: {','.join(columns)}"


def _counts(values: Sequence[str]) -> bool:
    """Whether the values are the whole numbers from 0, 1 or some other one on."""
    numbers = [int(value) for value in values if value.isascii() and value.isdigit()]
    return len(numbers) > 1 and numbers == list(range(numbers[0], numbers[0] + len(values)))


def _of_full_width(width: int, lines: Sequence[Line], faults: Faults) -> tuple[list[Line], int]:
    """The lines with as many values as the header has names, and how many stand before the first.

    R writes names of rows without a name for their column.
    """
    whole = [line for line in lines if len(line.cells) == width]
    if whole or len(lines) < 2 or any(len(line.cells) != width + 1 for line in lines):
        for line in lines:
            if len(line.cells) != width:
                faults.add(line.number, "width", f"line {line.number} {_unfit(line, width)}")
        return whole, 0
    first = lines[0]
    if _counts([line.cells[0] for line in lines]):
        text = f"line {first.number} and all others have a value more than the header: {ROW_NAMES}"
        faults.add(first.number, "width", text)
        return list(lines), 1
    text = f"line {first.number}, as every other, {_unfit(first, width)}"
    faults.add(first.number, "width", text)
    return [], 0


def _unfit(line: Line, width: int) -> str:
    text = f"has {len(line.cells)} values, but the header names {width}"
    if len(line.cells) < width:
        return text
    return f"{text}; a comma within a value? numbers have a point, texts with commas have quotes"
