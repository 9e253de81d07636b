"""When a run has nothing left to train. No torch: whoever takes up a sweep asks the same."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainables.config import TrainingConfig
from trainables.metrics import Metrics


def is_over(history: Sequence[Metrics], training: TrainingConfig) -> bool:
    """Whether the epochs so far were the last ones, by their figures alone.

    All of ``num_epochs`` are made, ``target_loss`` is reached, or none of the last ``patience``
    epochs had a lower val_loss than those before.
    """
    if not history:
        return False
    losses = [row.get("val_loss", math.inf) for row in history]
    if history[-1]["epoch"] >= training.num_epochs:
        return True
    if training.target_loss is not None and losses[-1] <= training.target_loss:
        return True
    patience = training.patience
    if patience is None or len(losses) <= patience:
        return False
    return min(losses[-patience:]) >= min(losses[:-patience])
