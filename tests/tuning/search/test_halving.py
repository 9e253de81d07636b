"""The same losses give the same decisions, in whatever order they arrive."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.schema import SearchSpace
from tuning.config.sweep import ASHA, load_sweep
from tuning.search.halving import Halving
from tuning.search.schedulers import make_scheduler


def test_rungs_lie_before_the_end() -> None:
    assert ASHA(grace_epochs=1).rungs(10) == (1, 3, 9)
    assert ASHA(grace_epochs=2, reduction_factor=2).rungs(8) == (2, 4)
    assert ASHA(grace_epochs=5).rungs(5) == ()


@pytest.mark.parametrize(
    ("steps", "epochs", "warmup", "first"),
    [
        *((96, 10, 0.05, 1), (48, 10, 0.05, 1), (47, 10, 0.05, 2), (2, 40, 0.05, 24)),
        *((96, 30, 0.05, 2), (96, 30, 0.2, 6), (96, 30, 0.0, 1), (1, 10, 0.0, 48)),
    ],
)
def test_no_rung_comes_before_losses_mean_something(
    steps: int, epochs: int, warmup: float, first: int
) -> None:
    assert ASHA().settled(steps, warmup * epochs).grace_epochs == first
    assert ASHA(grace_epochs=5).settled(steps, 9).grace_epochs == 5, "who sets it knows it"
    searched = {
        "training.batch_size": {"type": "choice", "choices": [8, 64]},
        "training.warmup_ratio": {"type": "float", "low": 0, "high": warmup + 1e-9},
    }
    config = load_sweep(None, [f"train.training.num_epochs={epochs}"])
    training = config.train.training.model_copy(update={"warmup_ratio": 0.0})
    train = config.train.model_copy(update={"training": training})
    space = SearchSpace.model_validate(searched)
    wide = config.model_copy(update={"search_space": space, "train": train})
    scheduler = wide.with_rungs(64 * steps).scheduler
    assert isinstance(scheduler, ASHA)
    widest = max(first, math.ceil((warmup + 1e-9) * epochs))
    assert scheduler.grace_epochs == widest, "the largest batch and the longest warm-up decide"


def test_a_rung_is_decided_when_the_group_has_arrived() -> None:
    halving = Halving((1,), 3, group=3, num_trials=6)
    halving.report(0, 1, 2.0)
    halving.report(1, 1, 1.0)
    assert halving.goes_on(0, 1) is None
    halving.end(2)  # it diverged before the rung
    assert (halving.goes_on(0, 1), halving.goes_on(1, 1)) == (False, True)
    assert halving.goes_on(0, 2) is True, "no rung"


def test_later_groups_are_compared_with_those_before() -> None:
    halving = Halving((1,), 3, group=3, num_trials=6)
    for number, loss in enumerate([1.0, 2.0, 3.0, 4.0, 1.5, 9.0]):
        halving.report(number, 1, loss)
    assert [halving.goes_on(n, 1) for n in range(6)] == [True, False, False, False, True, False]


def test_the_last_group_may_be_small_and_equal_values_go_by_number() -> None:
    halving = Halving((1,), 2, group=4, num_trials=2, maximize=True)
    halving.report(0, 1, 1.0)
    halving.report(1, 1, 1.0)
    assert (halving.goes_on(0, 1), halving.goes_on(1, 1)) == (True, False)


@pytest.mark.parametrize(
    ("number", "older", "epoch"),
    [(4, 4, 0), (5, 4, 0), (4, 0, 1), (11, 0, 1), (12, 0, 3), (36, 0, float("inf"))],
)
def test_later_rungs_are_known_later(number: int, older: int, epoch: float) -> None:
    assert Halving((1, 3), 3, group=4, num_trials=99).known_until(number, older) == epoch


def test_without_rungs_a_group_waits_for_the_ends_of_the_one_before() -> None:
    halving = Halving((), 2, group=2, num_trials=4)
    assert halving.known_until(2, 1) == float("inf")
    halving.end(0)
    assert not halving.knows_enough(2)
    halving.end(1)
    assert halving.knows_enough(2)


def play(losses: list[list[float]], seed: int, group: int) -> list[int]:
    """Epochs that each trial trains, when a random one of those that may train does next."""
    chance = random.Random(seed)
    halving = Halving((1, 2, 4), 2, group, len(losses))
    done = [0] * len(losses)
    ended: set[int] = set()
    while len(ended) < len(losses):
        decisions = {n: halving.goes_on(n, done[n]) for n in range(len(losses)) if n not in ended}
        for number in [n for n, goes_on in decisions.items() if goes_on is False]:
            ended.add(number)
            halving.end(number)
        ready = [
            n
            for n, goes_on in decisions.items()
            if goes_on and n not in ended and (done[n] or halving.knows_enough(n))
        ]
        if not ready:
            assert False in decisions.values(), "somebody must be able to train"
            continue
        number = chance.choice(ready)
        done[number] += 1
        halving.report(number, done[number], losses[number][done[number] - 1])
        if done[number] == len(losses[number]):
            ended.add(number)
            halving.end(number)
    return done


@given(
    st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=6), min_size=1, max_size=9),
    st.integers(1, 4),
    st.integers(0, 99),
)
def test_the_order_of_arrival_decides_nothing(
    losses: list[list[float]], group: int, seed: int
) -> None:
    """Trials of unlike length: a short one diverges or reaches its target."""
    assert play(losses, seed, group) == play(losses, seed + 1, group)


@pytest.mark.parametrize("name", ["asha", "median", "hyperband", "none"])
def test_a_trials_directory_has_its_name_whatever_is_there(name: str) -> None:
    """Ray would add letters to it beside another sweep of the same second."""
    sweep = load_sweep(None, [f"scheduler={{type: {name}}}"])
    scheduler = make_scheduler(sweep.scheduler, 9, sweep.search_space, "val_loss", "min")
    named: Any = type(
        "Named",
        (SimpleNamespace,),
        {"__str__": lambda self: "trial_0003", "__hash__": object.__hash__},
    )
    trial = named(trial_id="abc", storage=SimpleNamespace(), last_result={})
    scheduler.on_trial_add(SimpleNamespace(get_trials=list), trial)
    assert (trial.relative_logdir, trial.storage.trial_dir_name) == ("trial_0003", "trial_0003")
