"""Registry and table read and checked together, with the split of their rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.config import DataConfig, PretrainConfig
from trainables.data.profiling import Row, load_profiling
from trainables.data.registry import Tool, load_registry
from trainables.inputs.shared_inputs import IntArray
from trainables.inputs.split import check_sizes, first_equal, split_rows
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
