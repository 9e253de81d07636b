"""Registry and table read and checked together, with the split that follows from them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.config import DataConfig, PretrainConfig
from trainables.data.profiling import Row, load_profiling
from trainables.data.registry import Tool, load_registry
from trainables.errors import DataError
from trainables.inputs.shared_inputs import IntArray
from trainables.text import listed

NAMES_SHOWN = 5
EXPECTED = 0.02  # difference of the share that is held out from the one that was asked for


@dataclass(frozen=True)
class CheckedData:
    """Registry and table as read, and the split into training and held-out rows.

    ``repeated`` counts the rows that equal one before them, ``leaked`` the held-out rows that
    equal one that is trained.
    """

    tools: list[Tool]
    rows: list[Row]
    train_rows: IntArray
    val_rows: IntArray
    repeated: int = 0
    leaked: int = 0


def read_data(config: PretrainConfig) -> CheckedData:
    """Read and check everything of ``config.data``; no LLM is needed."""
    data = config.data
    tools = load_registry(Path(data.tool_registry))
    rows = load_profiling(Path(data.profiling_data), tools)
    index = np.array([row.tool_index for row in rows], dtype=np.int64)
    first = first_equal(rows)
    train_rows, val_rows = split_rows(
        index,
        data.validation_fraction,
        data.split_seed,
        first if data.split == "distinct_rows" else None,
    )
    check_sizes(train_rows, val_rows, config.training.batch_size)
    repeated = int((first != np.arange(len(rows))).sum())
    leaked = int(np.isin(first[val_rows], first[train_rows]).sum())
    return CheckedData(tools, rows, train_rows, val_rows, repeated, leaked)


def describe_split(config: DataConfig, data: CheckedData) -> list[str]:
    """What a person would not expect of the split: another share, rows that repeat."""
    lines = []
    count, asked = len(data.rows), config.validation_fraction
    share = len(data.val_rows) / count
    if abs(share - asked) > EXPECTED:
        lines.append(
            f"held out: {share:.0%} of the rows, not {asked:.0%}: of each tool it is a whole "
            "number of different rows, at least one and never all"
        )
    spared = set(range(len(data.tools))) - {data.rows[i].tool_index for i in data.val_rows}
    if spared:
        names = listed([f"`{data.tools[i].name}`" for i in sorted(spared)], NAMES_SHOWN)
        lines.append(f"never held out: {names}, with fewer than two different rows")
    if data.repeated:
        kept = (
            f"{data.leaked} held-out rows are trained, too (`data.split: rows`)"
            if data.leaked
            else "none is both trained and held out"
        )
        lines.append(f"repeated: {data.repeated} of {count} rows equal one before them; {kept}")
    return lines


def first_equal(rows: Sequence[Row]) -> IntArray:
    """[N]: the place of the first row with the same tool and the same six figures."""
    first: dict[Hashable, int] = {}
    keys = ((row.tool_index, *row.figures.values()) for row in rows)
    return np.array([first.setdefault(key, i) for i, key in enumerate(keys)], dtype=np.int64)


def split_rows(
    tool_index: IntArray, validation_fraction: float, seed: int, first: IntArray | None = None
) -> tuple[IntArray, IntArray]:
    """Training and held-out rows, the same share of every tool; one-row tools are only trained.

    ``first`` [N] has the same place for all copies of a row, which then stay together; without it,
    or where nothing repeats, each row is drawn by itself.
    """
    first = np.arange(len(tool_index), dtype=np.int64) if first is None else first
    rng = np.random.default_rng(seed)
    held_out: list[int] = []
    for tool in np.unique(tool_index):
        rows = np.unique(first[tool_index == tool])
        if len(rows) > 1:
            count = min(max(1, round(validation_fraction * len(rows))), len(rows) - 1)
            held_out.extend(rng.permutation(rows)[:count].tolist())
    is_held_out = np.isin(first, held_out)
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def check_sizes(train_rows: IntArray, val_rows: IntArray, batch_size: int) -> None:
    """A held-out set must exist and a batch must fit into the training set."""
    if not len(val_rows):
        raise DataError(
            "no tool has two different rows or more, so that nothing can be held out for "
            "validation; add rows"
        )
    if batch_size > len(train_rows):
        raise DataError(
            f"`training.batch_size` is {batch_size}, but must be at most {len(train_rows)}, the "
            "number of training rows"
        )
