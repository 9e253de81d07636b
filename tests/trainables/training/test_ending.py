"""When a run is over, by its history alone."""

from __future__ import annotations

from typing import Any

import pytest

from trainables.config import TrainingConfig
from trainables.training.ending import is_over


def history(*losses: float) -> list[dict[str, Any]]:
    return [{"epoch": i, "val_loss": loss} for i, loss in enumerate(losses, start=1)]


@pytest.mark.parametrize(
    ("losses", "settings", "over"),
    [
        ((), {"num_epochs": 1}, False),
        ((3.0, 2.0), {"num_epochs": 3}, False),
        ((3.0, 2.0, 1.0), {"num_epochs": 3}, True),
        ((3.0, 2.0), {"target_loss": 2.0}, True),
        ((2.0, 3.0), {"target_loss": 2.0}, False),
        ((3.0, 2.0, 2.1), {"patience": 2}, False),
        ((3.0, 2.0, 2.1, 2.0), {"patience": 2}, True),  # as good is not better
        ((3.0, 2.0, 2.1, 1.9), {"patience": 2}, False),
        ((3.0, 2.0, 2.1, 1.9, 1.95), {"patience": 1}, True),
        ((3.0,), {"patience": 1}, False),
    ],
)
def test_a_run_is_over_when_nothing_is_left_to_gain(
    losses: tuple[float, ...], settings: dict[str, Any], over: bool
) -> None:
    assert is_over(history(*losses), TrainingConfig(**settings)) is over
