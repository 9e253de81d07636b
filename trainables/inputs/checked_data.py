"""Registry and table read and checked together, with the split that follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.config import PretrainConfig
from trainables.data.profiling import Row, load_profiling
from trainables.data.registry import Tool, load_registry
from trainables.errors import DataError
from trainables.inputs.shared_inputs import IntArray


@dataclass(frozen=True)
class CheckedData:
    """Registry and table as read, and the split into training and held-out rows."""

    tools: list[Tool]
    rows: list[Row]
    train_rows: IntArray
    val_rows: IntArray


def read_data(config: PretrainConfig) -> CheckedData:
    """Read and check everything of ``config.data``; no LLM is needed."""
    tools = load_registry(Path(config.data.tool_registry))
    rows = load_profiling(Path(config.data.profiling_data), tools)
    index = np.array([row.tool_index for row in rows], dtype=np.int64)
    train_rows, val_rows = split_rows(
        index, config.data.validation_fraction, config.data.split_seed
    )
    check_sizes(train_rows, val_rows, config.training.batch_size)
    return CheckedData(tools, rows, train_rows, val_rows)


def split_rows(
    tool_index: IntArray, validation_fraction: float, seed: int
) -> tuple[IntArray, IntArray]:
    """Training and held-out rows, the same share of every tool; one-row tools are only trained."""
    rng = np.random.default_rng(seed)
    held_out: list[int] = []
    for tool in np.unique(tool_index):
        rows = np.flatnonzero(tool_index == tool)
        if len(rows) > 1:
            count = min(max(1, round(validation_fraction * len(rows))), len(rows) - 1)
            held_out.extend(rng.permutation(rows)[:count].tolist())
    val_rows = np.array(sorted(held_out), dtype=np.int64)
    train_rows = np.setdiff1d(np.arange(len(tool_index), dtype=np.int64), val_rows)
    return train_rows, val_rows


def check_sizes(train_rows: IntArray, val_rows: IntArray, batch_size: int) -> None:
    """A held-out set must exist and a batch must fit into the training set."""
    if not len(val_rows):
        raise DataError(
            "no tool has two rows or more, so that nothing can be held out for validation; add rows"
        )
    if batch_size > len(train_rows):
        raise DataError(
            f"`training.batch_size` is {batch_size}, but must be at most {len(train_rows)}, the "
            "number of training rows"
        )
