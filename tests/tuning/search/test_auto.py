"""The default search: what it begins with, what it is told, and that it stays cheap."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from search_spaces.schema import SearchSpace
from tests.tuning.search.test_suggestions import make_record, search, tell
from tuning.config.sweep import START
from tuning.history.record import SweepRecord
from tuning.search.auto import BEST_TOLD, NEWEST_TOLD, AutoSampler
from tuning.search.halving import Halving
from tuning.search.ordered import OrderedSpace
from tuning.search.suggestions import Suggestions

RATE, HEADS, DROPOUT = "training.learning_rate", "model.num_attention_heads", "model.dropout"
SPACE = SearchSpace.model_validate(
    {
        RATE: {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
        HEADS: {"type": "choice", "choices": [16, 1, 4, 2, 8]},
        DROPOUT: {"type": "float", "low": 0, "high": 0.5},
    }
)
BASE = {RATE: 1e-3, HEADS: 8, DROPOUT: 0.1}


def loss(params: dict[str, Any]) -> float:
    """0.5 at best: at a rate of 3e-3, 4 heads and no dropout."""
    heads = math.log2(params[HEADS]) - 2
    return 0.5 + (math.log10(params[RATE]) + 2.5) ** 2 + 0.05 * heads**2 + params[DROPOUT]


def sampler(record: SweepRecord, base: dict[str, Any] = BASE) -> AutoSampler:
    everything = Suggestions(SPACE, search("random"), record)
    return AutoSampler(SPACE, 0, record, base, base, everything)


def test_it_begins_with_what_would_be_trained_without_a_sweep() -> None:
    suggestions = Suggestions(SPACE, search("auto"), make_record(), fixed=BASE)
    points = [suggestions.draw(number).params for number in range(START)]
    assert points[0] == BASE
    assert len({point[RATE] for point in points}) == START
    beyond = Suggestions(SPACE, search("auto"), make_record(), fixed={**BASE, RATE: 1.0, HEADS: 3})
    assert beyond.draw(0).params == {RATE: 1e-2, HEADS: 2, DROPOUT: 0.1}, "the nearest inside"
    warm = Suggestions(
        SPACE, search("auto"), make_record(), first=[{**BASE, RATE: 0.005}], fixed=BASE
    )
    assert [warm.draw(n).params[RATE] for n in (0, 1)] != [0.005, BASE[RATE]]
    assert warm.draw(0).params[RATE] == 0.005


@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_it_finds_the_best_of_a_smooth_response_within_sixteen_trials(scale: float) -> None:
    record = make_record("min" if scale > 0 else "max")
    suggestions = Suggestions(SPACE, search("auto"), record, fixed=BASE)
    for number in range(16):
        params = suggestions.draw(number).params
        tell(record, number, [scale * loss(params)], "finished", params)
    values = [abs(record.value(trial) or 0) for trial in record.ordered()]
    assert min(values) < 0.53
    assert min(values[:START]) > 0.53, "which its beginning alone does not"


def test_a_kept_study_suggests_what_a_new_one_would() -> None:
    """Trials that finish, are stopped, diverge, fail and train, known as far as halving allows."""
    record = make_record(num_trials=24)
    halving = Halving((1, 3), 3, group=4, num_trials=24)
    kept = Suggestions(SPACE, search("auto", seed=5), record, halving, fixed=BASE)
    endings = ["finished", "stopped early", "diverged", "failed", "stopped early"]
    for number in range(24):
        new = Suggestions(SPACE, search("auto", seed=5), record, halving, fixed=BASE)
        params = kept.draw(number).params
        assert new.draw(number).params == params, number
        ending = endings[number % 5]
        epochs = {"finished": 9, "stopped early": 1 + 2 * (number % 2), "diverged": 2, "failed": 0}
        losses = [loss(params) * (1 + 1 / e) for e in range(1, epochs[ending] + 1)]
        tell(record, number, losses, ending, params)


def told(record: SweepRecord, number: int, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The trials that the model of a suggestion is told of."""
    found: list[Any] = []

    def keep(study: optuna.Study, *_: Any) -> Any:
        found.extend(study.get_trials(deepcopy=False))
        raise StopIteration

    monkeypatch.setattr(optuna.Study, "ask", keep)
    with pytest.raises(StopIteration):
        sampler(record).draw(number, learns=True)
    return found


def test_bad_trials_are_told_as_worse_than_all_and_those_that_train_as_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = make_record()
    for number, (losses, ending) in enumerate(
        [
            ([2.0, 1.0], "finished"),
            ([2.0], "stopped early"),
            ([4.0], "stopped early"),
            ([0.5], "diverged"),
            ([0.5], "failed"),
            ([], None),
        ]
    ):
        tell(record, number, losses, ending, BASE)
    trials = told(record, 6, monkeypatch)
    values = [trial.value for trial in trials if trial.state == TrialState.COMPLETE]
    assert values == pytest.approx([0.0, 0.0, math.log(2), 2 * math.log(2)])
    assert [t.state for t in trials].count(TrialState.RUNNING) == 1
    assert len(trials) == 5, "a failure says nothing of the point"
    assert trials[0].params == {**BASE, HEADS: 3}, "the place of 8 among the five"


def test_trials_of_a_space_that_was_replaced_are_told_as_far_as_they_belong_to_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = make_record()
    narrow = {RATE: 1e-4, HEADS: 2}  # dropout was not searched: it had the file's value
    for number, params in enumerate([BASE, narrow, {**BASE, HEADS: 3}, {**BASE, RATE: 1.0}, BASE]):
        tell(record, number, [1.0], "finished", params)
    trials = told(record, 5, monkeypatch)
    assert [t.params for t in trials] == [
        {**BASE, HEADS: 3},
        {RATE: 1e-4, HEADS: 1, DROPOUT: BASE[DROPOUT]},
        {**BASE, HEADS: 3},
    ]


def test_of_thousands_of_trials_the_best_and_the_newest_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record, rng = make_record(num_trials=2000), np.random.default_rng(0)
    losses = rng.uniform(1, 2, 1000).tolist()
    for number, value in enumerate(losses):
        ending = "stopped early" if number % 2 else "finished"
        tell(record, number, [value], ending, {**BASE, DROPOUT: 0.0})
    trials = told(record, 1000, monkeypatch)
    assert len(trials) <= BEST_TOLD + NEWEST_TOLD
    finished = sorted(losses[::2])
    assert math.exp(min(t.value for t in trials)) == pytest.approx(min(finished[0], *losses[850:]))


def test_numbers_are_an_order_and_names_are_not() -> None:
    space = SearchSpace.model_validate(
        {
            HEADS: {"type": "choice", "choices": [4, 1, 2]},
            "model.normalize": {"type": "choice", "choices": [True, False]},
            "training.batch_size": {"type": "choice", "choices": [8, 16]},
            "training.scheduler": {"type": "choice", "choices": ["cosine", "linear", "constant"]},
        }
    )
    ordered = OrderedSpace(space)
    kinds = {key: type(kind).__name__ for key, kind in ordered.distributions.items()}
    assert kinds.pop(HEADS) == "IntDistribution"
    assert set(kinds.values()) == {"CategoricalDistribution"}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = [ordered.draw(study.ask()) for _ in range(30)]
    assert {point[HEADS] for point in points} == {1, 2, 4}
    for point in points:
        assert ordered.inside(point) == {**point, HEADS: [1, 2, 4].index(point[HEADS])}
