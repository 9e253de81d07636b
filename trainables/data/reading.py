"""Registry and table read and checked together, with the split that follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.config import PretrainConfig
from trainables.data.dataset import IntArray, check_sizes, split_rows
from trainables.data.profiling import Configuration, load_profiling
from trainables.data.registry import Tool, load_registry


@dataclass(frozen=True)
class CheckedData:
    """Registry and table as read, and the split into training and held-out rows."""

    tools: list[Tool]
    rows: list[Configuration]
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
