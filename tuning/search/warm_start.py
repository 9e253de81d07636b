"""A new sweep that first tries the best configurations of another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from search_spaces.ranges import nearest, varies
from search_spaces.schema import Range
from trainables.errors import UserError
from trainables.yaml_config import shown
from tuning.config.space import searched_values
from tuning.config.sweep import (
    ResolvedSweep,
)
from tuning.history.record import SweepRecord
from tuning.history.sweeps import read_sweep
from tuning.search.suggestions import Params

MOST = 5  # of 16 trials by default: the rest is for what the new sweep finds itself


def warm_started(sweep: ResolvedSweep, other: Path) -> ResolvedSweep:
    """``sweep`` with the best parameters of the one in ``other``, brought into its own space.

    Another LLM may have another D: the heads become the nearest number that divides it.
    """
    record = read_sweep(other)
    config = sweep.config
    best = best_params(record, min(MOST, config.num_trials))
    if not best:
        raise UserError(f"--warm_start_from: no trial of `{record.name}` has ended well yet")
    base = searched_values(config.train, config.search_space)
    first: list[dict[str, Any]] = []
    for params in best:
        adapted: dict[str, Any] = {}
        for key, spec in config.search_space.root.items():
            if varies(spec, adapted):
                adapted[key] = _carried(spec, params.get(key, base[key]), key)
        if adapted not in first:
            first.append(adapted)
    return ResolvedSweep(sweep.name, config.model_copy(update={"warm_start": first}))


def _carried(spec: Range, value: Any, key: str) -> Any:
    try:
        return nearest(spec, value)
    except ValueError:
        raise UserError(
            f"--warm_start_from: `{key}` was {shown(value)}, of which no number can be made"
        ) from None


def best_params(record: SweepRecord, count: int) -> list[Params]:
    """The parameters of the best trials that ended well, best first; equal ones only once."""
    found: list[Params] = []
    for trial in record.by_value():
        if trial.params not in found:
            found.append(trial.params)
    return found[:count]
