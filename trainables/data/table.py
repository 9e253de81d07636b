"""A table as people export it: its lines cut into cells, its header found, its faults told."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence

from trainables.data.columns import Line, Table, find_columns
from trainables.data.faults import Faults
from trainables.names import folded
from trainables.text import listed
from trainables.yaml_config import shown

# What may separate values, as one and as many.
SEPARATORS = {
    ",": ("comma", "commas"),
    ";": ("semicolon", "semicolons"),
    "\t": ("tab", "tabs"),
    "|": ("bar", "bars"),
    " ": ("blank", "blanks"),
}
TOP = 20  # lines in which a header is looked for
CERTAIN = 2  # names of columns by which a line is taken for the header
LINES_SHOWN = 3
NUMBER = re.compile(r"[+-]?[\d.]+")


def read_table(text: str, columns: Sequence[str], faults: Faults) -> Table:
    """The table of a file's text; what is wrong with it is added to ``faults``.

    With faults, it has what could be read all the same, to be checked for more of them.
    """
    numbered = enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1)
    lines = [(number, line) for number, line in numbered if line.strip()]
    if not lines:
        faults.add(1, "empty", f"empty; the first line must be {','.join(columns)}")
        return Table([], {})
    if text.lstrip().startswith(("[", "{")):
        faults.add(1, "JSON", f"JSON (the registry?); the first line must be {','.join(columns)}")
        return Table([], {})
    top, separator = _find_header(lines, columns)
    if separator != ",":
        what = f"its values are separated by {SEPARATORS[separator][1]}"
        faults.add(0, "separator", f"{what}; write it with commas, and numbers with a point")
    if top:
        (number, line), (header, _) = lines[0], lines[top]
        what = f"line {number} is {shown(line)}, but the header stands in line {header}"
        faults.add(number, "above", f"{what}; remove what is above it")
    return _Reader(columns, separator, faults).read(lines[top:])


def _find_header(lines: Sequence[tuple[int, str]], columns: Sequence[str]) -> tuple[int, str]:
    """The place of the line that names most columns, and what separates its values."""
    known = {folded(column) for column in columns}
    best, found = CERTAIN - 1, (0, "")
    for place, (_, line) in enumerate(lines[:TOP]):
        for separator in SEPARATORS:
            names = {folded(cell) for cell in line.split(separator)}
            if len(names & known) > best:
                best, found = len(names & known), (place, separator)
    if found[1]:
        return found
    first = lines[0][1]
    return 0, max(SEPARATORS, key=lambda separator: first.count(separator) * (separator != " "))


class _Reader:
    """From the lines of a file to a table; faults that lines share are told once for all."""

    def __init__(self, columns: Sequence[str], separator: str, faults: Faults) -> None:
        self._columns = columns
        self._separator = separator
        self._faults = faults
        self._alike: dict[str, list[int]] = {}

    def read(self, lines: Sequence[tuple[int, str]]) -> Table:
        cut = [Line(number, cells) for number, line in lines if (cells := self._cut(number, line))]
        table = self._below_header(cut) if cut else Table([], {})
        for text, numbers in self._alike.items():
            which = listed([str(number) for number in numbers], LINES_SHOWN)
            where = f"line{'s' * (len(numbers) > 1)} {which}"
            self._faults.add(numbers[0], text, f"{where}: {text}")
        return table

    def _tell(self, line: int, text: str) -> None:
        self._alike.setdefault(text, []).append(line)

    def _cut(self, number: int, line: str) -> list[str]:
        """The values of a line, none of one without. None goes on in the next line."""
        try:
            cells = self._cells(line)
            if len(cells) == 1 and self._separator in cells[0]:
                self._tell(number, "in quotes as a whole; quotes belong around single values")
                cells = self._cells(cells[0])
        except csv.Error as error:
            self._tell(number, _explain(error))
            return []
        if not any(cells):
            what = f"only {SEPARATORS[self._separator][1]}, as of rows that were emptied"
            self._tell(number, f"{what}; delete it")
            return []
        if cells[0].startswith("#"):
            self._tell(number, "a comment? a table has none; delete it")
            return []
        return cells

    def _cells(self, line: str) -> list[str]:
        if '"' in line:
            cells = next(csv.reader([line], strict=True, delimiter=self._separator))
        else:
            cells = line.split(self._separator)
        cells = [cell.strip() for cell in cells]
        return [cell for cell in cells if cell] if self._separator == " " else cells

    def _below_header(self, cut: Sequence[Line]) -> Table:
        header, lines = cut[0], cut[1:]
        named = any(cell in self._columns for cell in header.cells)
        if not named and any(map(NUMBER.fullmatch, header.cells)):
            what = f"no header: line {header.number} is {shown(','.join(header.cells))}"
            needed = ",".join(self._columns)
            self._faults.add(header.number, "header", f"{what}, but must be {needed}")
            if len(header.cells) != len(self._columns):
                return Table([], {})
            header, lines = Line(header.number, list(self._columns)), cut
        rows = [line for line in lines if not self._is_header_again(line, header)]
        header, rows = self._without_last_separator(header, rows)
        return find_columns(header, rows, self._columns, self._faults)

    def _is_header_again(self, line: Line, header: Line) -> bool:
        if header.cells[0].casefold() not in line.cells[0].casefold():  # nearly always, and quick
            return False
        again = list(map(folded, line.cells)) == list(map(folded, header.cells))
        if again:
            self._tell(line.number, "the header again (two files put together?); delete it")
        return again

    def _without_last_separator(
        self, header: Line, rows: Sequence[Line]
    ) -> tuple[Line, list[Line]]:
        """Header and rows without empty values behind the last column that has a name."""
        what = f"a trailing {SEPARATORS[self._separator][0]}"
        width = max((place for place, name in enumerate(header.cells, start=1) if name), default=0)
        named = width == len(header.cells)
        if not named and any(any(line.cells[width:]) for line in rows):
            return header, list(rows)  # a column without a name
        if not named:
            text = f"column {width + 1} has neither a name nor values: {what}; remove it"
            self._faults.add(header.number, "last separator", f"{text}, in the rows as well")
        shorter = []
        for line in rows:
            if len(line.cells) > width and not any(line.cells[width:]):
                if named:
                    self._tell(line.number, f"{what}, which the header has not; remove it")
                line = Line(line.number, line.cells[:width])
            shorter.append(line)
        return Line(header.number, header.cells[:width]), shorter


def _explain(error: csv.Error) -> str:
    text = str(error)
    if text == "unexpected end of data":
        return "a quote is opened, but not closed in this line"
    if "expected after" in text:
        return "something stands between a closing quote and the next separator"
    return text
