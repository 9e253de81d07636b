"""Suggestions come from the history alone; Optuna is told the truth about every trial."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState
from pydantic import TypeAdapter

from search_spaces.schema import SearchSpace
from tuning.config.sweep import Search
from tuning.history.record import SweepRecord, trial_name
from tuning.search.halving import Halving
from tuning.search.optuna_trials import frozen_trials
from tuning.search.ranges import distributions
from tuning.search.ray_searcher import OptunaSearcher, Start
from tuning.search.suggestions import Suggestions
from tuning.search.warm_start import best_params

SPACE = SearchSpace.model_validate(
    {
        "training.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
        "model.num_attention_heads": {"type": "choice", "choices": [1, 2, 4]},
    }
)
POINT = {"training.learning_rate": 1e-3, "model.num_attention_heads": 2}


def make_record(mode: str = "min", num_trials: int = 60) -> SweepRecord:
    return SweepRecord("mine", "val_loss", mode, num_trials)


def tell(
    record: SweepRecord,
    number: int,
    losses: list[float],
    status: str | None = None,
    params: dict[str, Any] | None = None,
    message: str = "",
) -> None:
    trial = {"trial_id": trial_name(number)}
    record.apply({"event": "trial", **trial, "params": params or POINT})
    for epoch, loss in enumerate(losses, start=1):
        metrics = {"epoch": epoch, "val_loss": loss}
        record.apply({"event": "epoch", **trial, "metrics": metrics})
    if status:
        end = {"status": status, "message": message, "time": 1}
        record.apply({"event": "end", **trial, **end})


def search(kind: str, **options: Any) -> Any:
    return TypeAdapter(Search).validate_python({"type": kind, **options})


def frozen(record: SweepRecord, until: float = math.inf) -> list[FrozenTrial]:
    return frozen_trials(record, [(t, until) for t in record.ordered()], distributions(SPACE), {})


def test_a_trial_that_fails_after_a_rung_looks_at_the_rung_as_it_did_before_it_failed() -> None:
    before, after = make_record(), make_record()
    tell(before, 0, [3.0, 2.0])
    tell(after, 0, [3.0, 2.0], "failed")
    (running,), (failed,) = frozen(before, until=2), frozen(after, until=2)
    assert running.state == failed.state == TrialState.PRUNED
    assert running.intermediate_values == failed.intermediate_values
    assert frozen(after)[0].state == TrialState.FAIL


def test_every_ending_is_told_as_what_it_was() -> None:
    record = make_record()
    tell(record, 0, [3.0, 2.0], "finished")
    tell(record, 1, [4.0], "stopped early")
    tell(record, 2, [], "diverged", message="loss is nan")
    tell(record, 3, [], "out of memory")
    tell(record, 4, [], "failed")
    tell(record, 5, [2.5])
    complete, pruned, nan, oom, failed, running = frozen(record)
    assert (complete.state, complete.value) == (TrialState.COMPLETE, 2.0)
    assert (pruned.state, pruned.intermediate_values) == (TrialState.PRUNED, {1: 4.0})
    assert nan.state == oom.state == TrialState.COMPLETE
    assert nan.value == oom.value == 8.0  # worse than the worst seen by its own size, at least
    assert nan.user_attrs["outcome"] == "diverged"
    assert nan.user_attrs["message"] == "loss is nan"
    assert failed.state == TrialState.FAIL
    assert running.state == TrialState.RUNNING


def test_a_bad_value_is_bad_in_the_direction_of_the_sweep() -> None:
    record = make_record("max")
    tell(record, 0, [], "diverged")
    assert frozen(record)[0].state == TrialState.FAIL, "nothing shows yet what bad is"
    tell(record, 1, [1.0, 5.0], "finished")
    assert frozen(record)[0].value == -3.0


def test_what_may_not_be_known_yet_is_not_told() -> None:
    record = make_record()
    tell(record, 0, [3.0, 2.0, 1.0], "finished")
    tell(record, 1, [3.0, 2.0], "diverged")
    tell(record, 2, [4.0], "stopped early")
    early = frozen(record, until=1)
    assert [t.state for t in early] == [TrialState.PRUNED] * 3
    assert [t.intermediate_values for t in early] == [{1: 3.0}, {1: 3.0}, {1: 4.0}]
    assert [t.state for t in frozen(record, until=0)] == [TrialState.RUNNING] * 3


def test_a_changed_space_keeps_what_still_belongs_to_it() -> None:
    record = make_record()
    tell(record, 0, [1.0], "finished")
    tell(record, 1, [1.0], "finished", {**POINT, "model.num_attention_heads": 1})
    wider = SearchSpace.model_validate(
        {
            "training.learning_rate": {"type": "float", "low": 1e-6, "high": 1, "log": True},
            "model.num_attention_heads": {"type": "choice", "choices": [2, 8]},
            "model.dropout": {"type": "float", "low": 0, "high": 0.5},
        }
    )
    views = [(t, math.inf) for t in record.ordered()]
    (kept,) = frozen_trials(record, views, distributions(wider), {"model.dropout": 0.1})
    assert kept.params == {**POINT, "model.dropout": 0.1}
    assert kept.distributions == distributions(wider)


def draws_beyond_the_cliff(status: str) -> int:
    """The loss falls towards a learning rate of 1e-3; everything above ends with ``status``."""
    record = make_record()
    suggestions = Suggestions(SPACE, search("tpe"), record)
    beyond = 0
    for number in range(50):
        params = suggestions.draw(number).params
        rate = params["training.learning_rate"]
        if rate <= 1e-3:
            tell(record, number, [-math.log10(rate)], "finished", params)
        else:
            tell(record, number, [], status, params)
        beyond += rate > 1e-3
    return beyond


def test_a_bad_region_is_avoided_because_it_is_not_told_as_failure() -> None:
    assert draws_beyond_the_cliff("diverged") < 0.6 * draws_beyond_the_cliff("failed")


def sequence(kind: str, restart_at: int | None = None) -> list[dict[str, Any]]:
    """The points of 14 trials; a restart leaves nothing but the history."""
    record = make_record()
    options = {"startup_trials": 4} if kind == "tpe" else {}
    suggestions = Suggestions(SPACE, search(kind, seed=3, **options), record)
    found = []
    for number in range(14):
        if number == restart_at:
            suggestions = Suggestions(SPACE, search(kind, seed=3, **options), record)
        drawn = suggestions.draw(number)
        found.append(drawn.params)
        tell(record, number, [drawn.params["training.learning_rate"]], "finished", drawn.params)
        record.trials[trial_name(number)].search_state = drawn.state
    return found


@pytest.mark.parametrize("kind", ["auto", "tpe", "random", "qmc", "cma_es", "gp"])
def test_every_sampler_repeats_itself_across_a_restart(kind: str) -> None:
    points = sequence(kind)
    assert points == sequence(kind, restart_at=9)
    assert all(point not in points[:i] for i, point in enumerate(points))


@pytest.mark.parametrize("kind", ["auto", "tpe", "cma_es", "gp"])
def test_samplers_learn_from_the_history(kind: str) -> None:
    """The best learning rate is the lowest one; at random its decade would be drawn 1 in 3."""
    record = make_record()
    suggestions = Suggestions(SPACE, search(kind, seed=1), record)
    low = 0
    for number in range(40):
        drawn = suggestions.draw(number)
        loss = math.log10(drawn.params["training.learning_rate"])
        tell(record, number, [loss], "finished", drawn.params)
        record.trials[trial_name(number)].search_state = drawn.state
        low += number >= 20 and loss < -4
    assert low > 10


def test_a_group_is_suggested_when_the_group_before_is_known() -> None:
    record = make_record()
    halving = Halving((1, 3), 3, group=2, num_trials=60)
    suggestions = Suggestions(SPACE, search("tpe", startup_trials=2), record, halving)
    assert suggestions.ready(1), "random ones wait for nothing"
    assert not suggestions.ready(2)
    for number in (0, 1):
        tell(record, number, [float(number)])
        halving.report(number, 1, float(number))
    assert suggestions.ready(2)
    known = suggestions.draw(2), suggestions.draw(3)
    tell(record, 0, [0.0, 0.1], "finished")  # what comes later than the rung changes nothing
    again = Suggestions(SPACE, search("tpe", startup_trials=2), record, halving)
    assert (again.draw(2), again.draw(3)) == known


def make_searcher(
    record: SweepRecord, starts: list[Start], decisions: dict[int, bool | None]
) -> tuple[OptunaSearcher, list[int]]:
    stopped: list[int] = []
    searcher = OptunaSearcher(
        Suggestions(SPACE, search("random"), record, first=[POINT]),
        record,
        starts,
        room=lambda live: True,
        goes_on=lambda start: decisions[start.number],
        stop=stopped.append,
    )
    return searcher, stopped


def test_what_was_interrupted_comes_first_and_only_missing_numbers_are_new() -> None:
    record = make_record(num_trials=6)
    for number in (0, 1, 3, 4):
        tell(record, number, [1.0])
    decisions: dict[int, bool | None] = {0: True, 1: None, 3: False, 4: True}
    starts = [Start(n, POINT, Path(f"c{n}")) for n in (0, 1, 3, 4)]
    searcher, stopped = make_searcher(record, starts, decisions)
    handed = [searcher.suggest(str(i)) for i in range(4)]
    assert all(isinstance(item, dict) for item in handed)
    numbers = [(item["number"], item["start"]) for item in handed if isinstance(item, dict)]
    assert numbers == [(0, "c0"), (4, "c4"), (2, None), (5, None)]
    assert stopped == [3]
    assert searcher.suggest("waits") is None
    decisions[1] = True
    last = searcher.suggest("last")
    assert isinstance(last, dict)
    assert last["number"] == 1
    assert searcher.suggest("none") == "FINISHED"


def test_given_points_are_tried_first() -> None:
    searcher, _ = make_searcher(make_record(), [], {})
    first, second = searcher.suggest("a"), searcher.suggest("b")
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first["params"] == POINT
    assert second["params"] != POINT


def test_the_best_parameters_are_named_once() -> None:
    record = make_record()
    tell(record, 0, [3.0], "finished", {"a": 1})
    tell(record, 1, [2.0], "stopped early", {"a": 2})
    tell(record, 2, [1.0], "failed", {"a": 3})
    tell(record, 3, [2.5], "finished", {"a": 2})
    assert best_params(record, 5) == [{"a": 2}, {"a": 1}]
