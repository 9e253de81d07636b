"""The profiling table: each row a tool with its six resource figures."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables.data.registry import Tool
from trainables.errors import DataError, did_you_mean
from trainables.files import exists
from trainables.models.features import FIGURES, INPUT_SIZES, raw_features

COLUMNS = ("tool", *FIGURES)
# Inclusive bounds: a share is a percentage, latency and cores cannot be nothing.
MINIMUM = {"cpu_core": 0.0, "cpu_mem_gb": 0.0, "gpu_sm": 0.0, "gpu_mem_gb": 0.0, "latency_ms": 0.0}
MAXIMUM = {"gpu_sm": 100.0}


@dataclass(frozen=True)
class Row:
    """One row: the tool's place in the registry and its figures, numbers as float."""

    tool_index: int
    figures: dict[str, Any]


def load_profiling(path: Path, tools: Sequence[Tool]) -> list[Row]:
    """Read and check a table; every problem names the line, the column and the value."""
    index = {tool.name: i for i, tool in enumerate(tools)}
    if not exists(path, "`data.profiling_data`"):
        raise DataError(f"{path}: no such file; `data.profiling_data` must name a CSV")
    if not path.is_file():
        raise DataError(f"{path}: is not a regular file; `data.profiling_data` must name a CSV")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, None)
            if header is None:
                raise DataError(f"{path}: empty; the first line must be {','.join(COLUMNS)}")
            order = _column_order(path, [name.strip() for name in header])
            rows = [
                _row(f"{path}: line {reader.line_num}", order, row, index) for row in reader if row
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}") from None
    if not rows:
        raise DataError(f"{path}: no rows below the header; at least two are needed")
    return rows


def raw_feature_matrix(rows: Sequence[Row]) -> npt.NDArray[np.float64]:
    """[N, R], unscaled."""
    return np.array([raw_features(row.figures) for row in rows], dtype=np.float64)


def _column_order(path: Path, header: list[str]) -> list[int]:
    for name in header:
        if name not in COLUMNS:
            hint = did_you_mean(name, COLUMNS)
            raise DataError(f"{path}: unknown column `{name}`{hint}; allowed: {','.join(COLUMNS)}")
    for name in COLUMNS:
        if header.count(name) != 1:
            found = "missing" if name not in header else "there more than once"
            raise DataError(f"{path}: column `{name}` is {found}; needed: {','.join(COLUMNS)}")
    return [header.index(name) for name in COLUMNS]


def _row(where: str, order: list[int], row: list[str], index: dict[str, int]) -> Row:
    if len(row) != len(order):
        raise DataError(f"{where} has {len(row)} values, but the header names {len(order)}")
    tool, *values = (row[i].strip() for i in order)
    if tool not in index:
        hint = did_you_mean(tool, index)
        raise DataError(
            f"{where}: tool `{tool}` is not in the registry{hint}; add it to `data.tool_registry` "
            "or remove the row"
        )
    figures: dict[str, Any] = dict(zip(FIGURES, values, strict=True))
    if figures["input_size"] not in INPUT_SIZES:
        raise DataError(
            f"{where}: input_size is `{figures['input_size']}`, but must be one of "
            f"{', '.join(INPUT_SIZES)}"
        )
    for name in FIGURES[1:]:
        figures[name] = _number(where, name, figures[name])
    return Row(index[tool], figures)


def _number(where: str, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise DataError(f"{where}: {name} is `{text}`, but must be a number") from None
    low, high = MINIMUM[name], MAXIMUM.get(name, math.inf)
    if not math.isfinite(value) or not low <= value <= high:
        limit = f"between {low:g} and {high:g}" if name in MAXIMUM else f"finite and >= {low:g}"
        raise DataError(f"{where}: {name} is {text}, but must be {limit}")
    return value
