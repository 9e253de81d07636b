"""The searcher tells Optuna the truth, draws the same points again, and survives a restart."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from pydantic import TypeAdapter

from search_spaces.schema import SearchSpace
from tuning.config import Search
from tuning.search import OptunaSearcher, export_study

SPACE = SearchSpace.model_validate(
    {
        "training.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
        "model.num_attention_heads": {"type": "choice", "choices": [1, 2, 4]},
    }
)


def make_searcher(kind: str = "tpe", mode: str = "min", **options: Any) -> OptunaSearcher:
    search = TypeAdapter(Search).validate_python({"type": kind, **options})
    return OptunaSearcher(SPACE, search, "val_loss", mode)


def report(searcher: OptunaSearcher, trial: str, losses: list[float]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for epoch, loss in enumerate(losses, start=1):
        result = {"val_loss": loss, "epoch": epoch, "outcome": "running"}
        searcher.on_trial_result(trial, result)
    return result


def finish(searcher: OptunaSearcher, trial: str, losses: list[float]) -> None:
    result = report(searcher, trial, losses)
    searcher.on_trial_complete(trial, {**result, "outcome": "finished"})


def test_every_ending_is_told_as_what_it_was() -> None:
    searcher = make_searcher()
    for trial in "abcde":
        searcher.suggest(trial)
    finished = report(searcher, "a", [3.0, 2.0])
    searcher.on_trial_complete("a", {**finished, "outcome": "finished"})
    searcher.on_trial_complete("b", report(searcher, "b", [4.0]))
    diverged = {"epoch": 1, "outcome": "diverged", "message": "loss is nan"}
    searcher.on_trial_complete("c", diverged)
    searcher.on_trial_complete("d", {"epoch": 0, "outcome": "out of memory"})
    searcher.on_trial_complete("e", error=True)
    complete, pruned, nan, oom, failed = searcher.study.trials
    assert (complete.state, complete.value) == (TrialState.COMPLETE, 2.0)
    assert (pruned.state, pruned.intermediate_values) == (TrialState.PRUNED, {1: 4.0})
    assert nan.state == oom.state == TrialState.COMPLETE
    assert nan.value == oom.value == 8.0  # worse than the worst seen by its own size, at least
    assert nan.user_attrs == {"outcome": "diverged", "message": "loss is nan"}
    assert failed.state == TrialState.FAIL


def test_the_result_that_stopped_a_trial_is_told_too() -> None:
    """Tune tells the searcher of it only through ``on_trial_complete``."""
    searcher = make_searcher()
    searcher.suggest("a")
    stopped = {"val_loss": 4.0, "epoch": 1, "outcome": "running"}
    searcher.on_trial_complete("a", stopped)
    assert searcher.study.trials[0].intermediate_values == {1: 4.0}


def test_a_sweep_without_any_value_leaves_nothing_running() -> None:
    searcher = make_searcher()
    searcher.suggest("a")
    searcher.on_trial_complete("a", {"epoch": 0, "outcome": "diverged"})
    searcher.close()
    assert searcher.study.trials[0].state == TrialState.FAIL


def test_bad_trials_wait_until_something_shows_what_bad_is() -> None:
    searcher = make_searcher(mode="max")
    for trial in "ab":
        searcher.suggest(trial)
    searcher.on_trial_complete("a", {"epoch": 0, "outcome": "diverged"})
    assert searcher.study.trials[0].state == TrialState.RUNNING
    report(searcher, "b", [1.0, 5.0])
    searcher.on_trial_complete("b", {"epoch": 2, "outcome": "finished", "val_loss": 5.0})
    assert searcher.study.trials[0].value == -3.0


def draws_beyond_the_cliff(told_as_failure: bool) -> int:
    """The loss falls towards a learning rate of 1e-3; everything above diverges."""
    searcher = make_searcher()
    beyond = 0
    for i in map(str, range(60)):
        rate = searcher.suggest(i)["params"]["training.learning_rate"]
        if rate <= 1e-3:
            finish(searcher, i, [-math.log10(rate)])
        elif told_as_failure:
            searcher.on_trial_complete(i, error=True)
        else:
            searcher.on_trial_complete(i, {"epoch": 0, "outcome": "diverged"})
        beyond += rate > 1e-3
    return beyond


def test_a_bad_region_is_avoided_because_it_is_not_told_as_failure() -> None:
    assert draws_beyond_the_cliff(told_as_failure=False) < 0.6 * draws_beyond_the_cliff(True)


@pytest.mark.parametrize("kind", ["tpe", "random", "qmc", "cma_es", "gp"])
def test_every_sampler_repeats_itself_across_a_restart(kind: str, tmp_path: Path) -> None:
    def tell(searcher: OptunaSearcher, i: int) -> dict[str, Any]:
        suggestion = searcher.suggest(str(i))
        value = suggestion["params"]["training.learning_rate"] * 100
        searcher.on_trial_complete(
            str(i), report(searcher, str(i), [value]) | {"outcome": "finished"}
        )
        return suggestion["params"]

    straight = make_searcher(kind, seed=3)
    expected = [tell(straight, i) for i in range(12)]
    before = make_searcher(kind, seed=3)
    drawn = [tell(before, i) for i in range(6)]
    before.save(str(tmp_path / "state.pkl"))
    after = make_searcher(kind, seed=99)
    after.restore(str(tmp_path / "state.pkl"))
    drawn += [tell(after, i) for i in range(6, 12)]
    assert drawn == expected


def test_the_exported_study_opens_in_optuna(tmp_path: Path) -> None:
    searcher = make_searcher()
    searcher.suggest("a")
    searcher.suggest("left open")
    finish(searcher, "a", [3.0])
    for _ in range(2):  # a second export replaces the first
        export_study(searcher.study, tmp_path / "study.journal", "mine")
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
    )
    study = optuna.load_study(study_name="mine", storage=storage)
    assert [(t.state, t.value) for t in study.trials] == [(TrialState.COMPLETE, 3.0)]
