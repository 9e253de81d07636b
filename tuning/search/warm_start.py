"""A new sweep that first tries the best configurations of another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from search_spaces.schema import Choice, Fixed, FloatRange, IntRange, Range
from trainables.errors import UserError
from trainables.statuses import GOOD
from tuning.config.space import searched_values
from tuning.config.sweep import (
    ResolvedSweep,
)
from tuning.history.record import SweepRecord
from tuning.history.sweeps import read_sweep
from tuning.search.suggestions import Params

MOST = 5


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
            if spec.when and any(adapted.get(k) != v for k, v in spec.when.items()):
                continue
            adapted[key] = nearest(spec, params.get(key, base[key]), key)
        if adapted not in first:
            first.append(adapted)
    return ResolvedSweep(sweep.name, config.model_copy(update={"warm_start": first}))


def nearest(spec: Range, value: Any, key: str) -> Any:
    """The value of a range that is nearest to ``value``."""
    match spec:
        case Fixed():
            return spec.value
        case Choice():
            choices = [c for c in spec.choices if c == value and type(c) is type(value)]
            if choices:
                return choices[0]
            numbers = [c for c in spec.choices if type(c) in (int, float)]
            if numbers and type(value) in (int, float):
                return min(numbers, key=lambda c: (abs(c - value), c))
            return spec.choices[0]
        case FloatRange() | IntRange() if type(value) in (int, float):
            inside = min(max(value, spec.low), spec.high)
            if spec.step:
                inside = spec.low + round((inside - spec.low) / spec.step) * spec.step
                inside = inside if inside <= spec.high else inside - spec.step
            return int(inside) if isinstance(spec, IntRange) else float(inside)
    raise UserError(f"--warm_start_from: `{key}` was {value!r}, of which no number can be made")


def best_params(record: SweepRecord, count: int) -> list[Params]:
    """The parameters of the best trials that ended well, best first; equal ones only once."""
    sign = 1 if record.mode == "min" else -1
    scored = [
        (sign * value, t.number, t.params)
        for t in record.trials.values()
        if t.status in GOOD and (value := record.value(t)) is not None
    ]
    found: list[Params] = []
    for _, _, params in sorted(scored, key=lambda item: item[:2]):
        if params not in found:
            found.append(params)
    return found[:count]
