"""Trials that were stopped at different epochs, as if all had been trained equally long."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median

Curve = Mapping[int, float]  # a metric by epoch, as far as it may be seen


def at_a_common_epoch(curves: Sequence[Curve]) -> list[float | None]:
    """What each trial would have come to at the last epoch of all; None where nothing is seen.

    Between two of the epochs at which trials stand, a trial changes as the median of those that
    were trained through both. Positive metrics are brought to their logarithm first, in which a
    falling loss changes alike whatever its size; the values are then logarithms, too. It makes
    stopped trials comparable with finished ones, and keeps the order of those stopped together.
    """
    values = [value for curve in curves for value in curve.values()]
    scale = math.log if all(value > 0 for value in values) else float
    ends = sorted({max(curve) for curve in curves if curve})
    ahead = {ends[-1]: 0.0} if ends else {}
    for early, late in reversed(list(pairwise(ends))):
        changes = [
            scale(curve[late]) - scale(curve[early])
            for curve in curves
            if early in curve and late in curve
        ]
        ahead[early] = ahead[late] + (median(changes) if changes else 0.0)
    return [scale(curve[max(curve)]) + ahead[max(curve)] if curve else None for curve in curves]
