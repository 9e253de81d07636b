"""A search says what it learns from, where that is less than its name promises."""

from __future__ import annotations

import pytest

from tuning.config.learning import describe_learning
from tuning.config.sweep import load_sweep


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([], []),
        (["search.type=random"], []),
        (["group=16"], ["no result is known before all 16 trials are drawn"]),
        (["group=16", "scheduler.type=median"], []),
        (["search.type=tpe", "scheduler.type=median"], ["the first 10 of 16 trials"]),
        (["search.type=tpe"], ["the first 12 of 16 trials are drawn at random"]),
        (["search.type=tpe", "deterministic=false"], ["the first 10 of 16 trials"]),
        (["search.type=tpe", "num_trials=8"], ["the first 8 of 8 trials"]),
        (["search.type=tpe", "search.startup_trials=0"], []),
        (
            ["search.type=gp", "scheduler.grace_epochs=1"],
            ["about 1 of 16 will finish: all are drawn"],
        ),
        (["search.type=gp", "scheduler.type=none"], []),
        (["search.type=gp", "scheduler.type=none", "num_trials=10"], ["all are drawn at random"]),
        (
            ["search.type=cma_es", "scheduler.grace_epochs=9"],
            ["finished trials alone, about 2 of 16"],
        ),
    ],
)
def test_what_a_search_learns_from(settings: list[str], said: list[str]) -> None:
    lines = list(describe_learning(load_sweep(None, settings)))
    assert len(lines) == len(said)
    for line, part in zip(lines, said, strict=True):
        assert part in line
