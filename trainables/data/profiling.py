"""The profiling table: each row a tool with its six resource figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables.data.columns import Line
from trainables.data.faults import MOST_SHOWN, Faults
from trainables.data.numbers import trouble
from trainables.data.registry import Tool
from trainables.data.table import read_table
from trainables.errors import DataError, did_you_mean
from trainables.files import exists
from trainables.models.features import INPUT_SIZES, RESOURCES, raw_features
from trainables.names import comparable
from trainables.text import FileText, decode

COLUMNS = ("tool", *RESOURCES)
# Inclusive bounds: a share is a percentage, latency and cores cannot be nothing.
MINIMUM = {"cpu_core": 0.0, "cpu_mem_gb": 0.0, "gpu_sm": 0.0, "gpu_mem_gb": 0.0, "latency_ms": 0.0}
MAXIMUM = {"gpu_sm": 100.0}


@dataclass(frozen=True)
class Row:
    """A line of the table: its tool's place in the registry, its six figures, numbers as float."""

    tool_index: int
    resources: dict[str, Any]


def load_profiling(path: Path, tools: Sequence[Tool]) -> list[Row]:
    """Read and check a table; every problem names the line, the column and the value.

    Raises DataError with everything that is wrong with the file.
    """
    content, faults = _content(path), Faults(path)
    if content.trouble:
        text = f"cannot be read as CSV: {content.trouble} (a spreadsheet: export it as `CSV UTF-8`)"
        faults.add(0, "encoding", text)
    if content.text is None:
        faults.refuse()
    table = read_table(content.text or "", COLUMNS, faults)
    rows = _Rows(tools, table.places, faults)
    read = [rows.read(line) for line in table.lines]
    rows.tell_unknown_tools()
    faults.refuse()
    if not read:
        raise DataError(f"{path}: no rows below the header; at least two are needed")
    return [row for row in read if row is not None]


def raw_feature_matrix(rows: Sequence[Row]) -> npt.NDArray[np.float64]:
    """[N, R], unscaled."""
    return np.array([raw_features(row.resources) for row in rows], dtype=np.float64)


def _content(path: Path) -> FileText:
    if not exists(path, "`data.profiling_data`"):
        raise DataError(f"{path}: no such file; `data.profiling_data` must name a CSV")
    if not path.is_file():
        raise DataError(f"{path}: is not a regular file; `data.profiling_data` must name a CSV")
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}") from None


class _Rows:
    """What the lines of a table say, and what is wrong with them."""

    def __init__(self, tools: Sequence[Tool], places: dict[str, int], faults: Faults) -> None:
        self._names = [tool.name for tool in tools]
        self._index = {comparable(tool.name): i for i, tool in enumerate(tools)}
        kinds = {"tool": self._tool, "input_size": self._input_size}
        self._columns: list[tuple[str, int, Callable[[int, str, str], Any]]] = [
            (name, place, kinds.get(name, self._number)) for name, place in places.items()
        ]
        self._faults = faults
        self._unknown: dict[str, list[int]] = {}  # tools by their names, with their lines
        self._known: set[str] = set()

    def read(self, line: Line) -> Row | None:
        """The row of a line; None if one of its values cannot be used."""
        found = {
            name: read(line.number, name, line.cells[place]) for name, place, read in self._columns
        }
        if len(found) < len(COLUMNS) or None in found.values():
            return None
        return Row(found.pop("tool"), {name: found[name] for name in RESOURCES})

    def tell_unknown_tools(self) -> None:
        """One fault for each, however many rows it has."""
        if len(self._unknown) > 1 and not self._known:
            self._tell_other_registry()
            return
        for number, (name, lines) in enumerate(self._unknown.items()):
            hint = did_you_mean(name, self._names) if number < MOST_SHOWN else ""
            rows = "the row" if len(lines) == 1 else f"its {len(lines)} rows"
            text = (
                f"line {lines[0]}: tool `{name}` is not in the registry{hint}; add it to "
                f"`data.tool_registry` or remove {rows}"
            )
            self._faults.add(lines[0], ("tool", name), text)

    def _tell_other_registry(self) -> None:
        name, lines = next(iter(self._unknown.items()))
        hint = did_you_mean(name, self._names)
        text = (
            f"line {lines[0]}: tool `{name}` is not in the registry{hint}, nor is another of the "
            f"table's {len(self._unknown)} tools; do `data.tool_registry` and "
            "`data.profiling_data` belong together?"
        )
        self._faults.add(lines[0], "registry", text)

    def _tool(self, line: int, column: str, name: str) -> int | None:
        place = self._index.get(name)
        if place is None:
            place = self._index.get(comparable(name))
        if place is not None:
            self._known.add(name)
        elif name:
            self._unknown.setdefault(comparable(name), []).append(line)
        else:
            self._faults.add(line, column, f"line {line}: {column} is empty; name it")
        return place

    def _input_size(self, line: int, column: str, text: str) -> str | None:
        if text in INPUT_SIZES:
            return text
        hint, allowed = did_you_mean(text, INPUT_SIZES), ", ".join(INPUT_SIZES)
        what = f"is `{text}`{hint}, but must be" if text else "is empty, but must be"
        self._faults.add(line, column, f"line {line}: {column} {what} one of {allowed}")
        return None

    def _number(self, line: int, name: str, text: str) -> float | None:
        try:
            value = float(text)
        except ValueError:
            found = trouble(name, text)
            what = f"is `{text}`" if text else "is empty"
            text = f"line {line}: {name} {what}, but must be a number{found}"
            self._faults.add(line, (name, found.what), text)
            return None
        low, high = MINIMUM[name], MAXIMUM.get(name, math.inf)
        if math.isfinite(value) and low <= value <= high:
            return value
        limit = f"between {low:g} and {high:g}" if name in MAXIMUM else f"finite and >= {low:g}"
        missing = trouble(name, text) if math.isnan(value) else ""
        text = f"line {line}: {name} is {text}, but must be {limit}{missing}"
        self._faults.add(line, (name, "bounds"), text)
        return None
