"""Which rows are trained and which are held out for validation."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from trainables.data.profiling import Row
from trainables.errors import DataError
from trainables.inputs.shared_inputs import IntArray


def first_equal(rows: Sequence[Row]) -> IntArray:
    """[N]: the place of the first row with the same tool and the same six figures."""
    first: dict[Hashable, int] = {}
    keys = ((row.tool_index, *row.resources.values()) for row in rows)
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
