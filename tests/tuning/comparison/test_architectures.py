"""Comparing both architectures: figures and sentences from invented histories, the jobs' order."""

from __future__ import annotations

import json
import multiprocessing.dummy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from trainables.config import PretrainConfig
from trainables.errors import UserError
from tuning.comparison.experiment import (
    Plan,
    Results,
    Runner,
    beyond,
    learning_rates,
    run_experiment,
)
from tuning.comparison.figures import BANDS, Spread, compute_figures, is_clear, reached
from tuning.comparison.jobs import (
    EARLIER,
    GATED,
    Job,
    Trained,
    read_result,
    result_path,
    with_split_of,
    with_training,
)
from tuning.comparison.plots import comparison_info, draw_comparison
from tuning.comparison.promises import check_promises
from tuning.comparison.report import page

EPOCHS = 10
BASE = PretrainConfig.model_validate({"training": {"num_epochs": EPOCHS}})
LOSSES = {
    EARLIER: [2.4 - 0.04 * e for e in range(EPOCHS)],
    GATED: [2.0 - 0.1 * e for e in range(EPOCHS)],
}


def trained(architecture: str, seed: int = 0, rate: float = 1e-3, **values: Any) -> Trained:
    """A training whose loss falls as ``LOSSES`` says, a little differently with every seed."""
    gated = architecture == GATED
    losses = values.pop("losses", LOSSES[architecture])
    history = [
        {
            "epoch": epoch,
            "step": 96.0 * epoch,
            "val_loss": loss + 0.01 * seed,
            "train_loss": loss,
            "gate_alpha": 0.1 * epoch * gated,
            "semantic_retention": 0.8 if gated else 0.6,
            "steps_per_s": 10.0 + seed,
            "peak_memory_mib": 500.0 + 10 * gated,
            "rate_sum": 0.02,
            "field_accuracy": 0.5,
        }
        for epoch, loss in enumerate(losses, start=1)
    ]
    content: dict[str, Any] = {
        "config": with_training(BASE, architecture, rate, seed),
        "outcome": "finished",
        "seconds": 60.0,
        "cpu_seconds": 50.0,
        "load": 2.0,
        "history": history,
        "first_loss": 2.5,
        "cold": {"LLM": 1.0, "semantic stream": 3.0 if gated else 0.0, "texts": 1.0},
        "cached": {"LLM": 1.0, "inputs": 0.1},
        "trainable_parameters": 200 if gated else 100,
        "semantic_rms": 0.1,
        "resource_rms": 0.3,
    }
    return Trained(**{**content, **values})


def seeds(count: int = 5) -> dict[str, list[Trained]]:
    return {a: [trained(a, seed) for seed in range(count)] for a in (EARLIER, GATED)}


def test_a_spread_is_mean_and_sample_deviation() -> None:
    spread = Spread.of([1.0, 2.0, 6.0])
    assert spread is not None
    assert (spread.mean, spread.low, spread.high) == (3.0, 1.0, 6.0)
    assert spread.sd == pytest.approx(7**0.5)
    assert Spread.of([]) is None


@pytest.mark.parametrize(("distance", "clear"), [(0.5, False), (1.2, True)])
def test_a_difference_is_clear_beyond_two_standard_errors(distance: float, clear: bool) -> None:
    """Both standard errors are 1 / sqrt(4), so that of the difference is 0.71 / sqrt(2) each."""
    values = [-1.0, 1.0, -1.0, 1.0]
    a, b = Spread.of(values), Spread.of([v + 2 * distance for v in values])
    assert a is not None
    assert b is not None
    assert is_clear(a, b) is clear


def test_the_table_holds_the_figures_of_every_seed() -> None:
    figures = compute_figures(seeds())
    cold = figures.pair("cold_s")
    assert cold is not None
    assert [spread.mean for spread in cold] == [2.0, 5.0]
    speed = figures.pair("steps_per_s")
    assert speed is not None
    assert (speed[0].mean, speed[0].values) == (12.0, (10.0, 11.0, 12.0, 13.0, 14.0))
    loss = figures.pair("val_loss")
    assert loss is not None
    assert [spread.mean for spread in loss] == pytest.approx([2.06, 1.12])


def test_epochs_to_the_others_final_loss() -> None:
    """The gated one is at 2.0 in its first epoch, the earlier one never at 1.1."""
    both = seeds()
    gated = reached(both[GATED], both[EARLIER])
    earlier = reached(both[EARLIER], both[GATED])
    assert gated is not None
    assert earlier is not None
    assert gated.epochs == (1, 1, 1, 1, 1)
    assert earlier.epochs == (None,) * 5
    late = trained(EARLIER, losses=[3.0] * 8 + [1.0] * 2)
    found = reached([late], both[GATED])
    assert found is not None
    assert found.epochs == (9,)


@pytest.mark.parametrize("num_epochs", [1, 7, 10, 15, 100])
def test_bands_hold_every_epoch_once(num_epochs: int) -> None:
    parts = [band.epochs(num_epochs) for band in BANDS]
    assert [epoch for part in parts for epoch in part] == list(range(1, num_epochs + 1))
    if num_epochs == 100:
        assert [part[-1] for part in parts] == [10, 30, 60, 100]


def test_alpha_by_band_and_how_far_it_could_go() -> None:
    alpha = compute_figures(seeds()).alpha
    assert [a.epochs for a in alpha] == [(1,), (2, 3), (4, 5, 6), (7, 8, 9, 10)]
    assert [a.spread.mean for a in alpha] == pytest.approx([0.1, 0.25, 0.5, 0.85])
    assert [a.reach for a in alpha] == pytest.approx([0.2, 0.6, 1.2, 2.0])


def test_a_training_that_diverged_counts_as_such_and_spoils_no_figure() -> None:
    both = seeds(3)
    nothing = {"history": [], "cold": {}, "cached": {}, "semantic_rms": None, "resource_rms": None}
    for architecture in both:
        both[architecture][0] = trained(architecture, outcome="diverged", **nothing)
    figures = compute_figures(both)
    assert figures.ended[GATED] == {"diverged": 1, "finished": 2}
    loss = figures.pair("val_loss")
    assert loss is not None
    assert [len(spread.values) for spread in loss] == [2, 2]
    assert len(check_promises(figures, both)) == 12


def test_promises_are_held_against_what_was_measured() -> None:
    both = seeds()
    checks = {c.figure.split(" (")[0]: c for c in check_promises(compute_figures(both), both)}
    holds = {name: check.holds for name, check in checks.items()}
    assert holds == {
        "initialisation without cache": False,  # 2 s -> 5 s
        "initialisation with the cache": True,
        "steps per second": True,
        "steps per CPU second": True,
        "peak memory, MiB": True,
        "final loss": True,
        "semantic retention, earlier": True,
        "semantic retention, gated": True,
        "α, epochs 1-10 of 100": True,
        "α, epochs 10-30 of 100": True,
        "α, epochs 30-60 of 100": True,
        "α, epochs 60+ of 100": True,
    }
    cold = checks["initialisation without cache"]
    assert (cold.promised, cold.measured) == ("5 s -> 20 s (4 x)", "2.00 s -> 5.00 s (2.50 x)")
    assert "takes 3.000 s where the rows of its input layer take 0.000 s" in cold.why
    assert "2.00 times the trainable parameters" in checks["steps per second"].why
    assert "3.0 times as strong" in checks["semantic retention, earlier"].why


def test_a_broken_promise_is_told_from_the_figures() -> None:
    both = seeds()
    both[GATED] = [trained(GATED, s, losses=LOSSES[EARLIER]) for s in range(5)]
    checks = {c.figure: c for c in check_promises(compute_figures(both), both)}
    assert not checks["final loss"].holds
    assert "no more than noise" in checks["final loss"].why


def make_plan(**values: Any) -> Plan:
    return Plan(BASE, **{"seeds": 2, "trials": 3, "workers": 2, "threads": 1, **values})


def test_the_page_has_every_row_and_names_what_was_tuned() -> None:
    both = seeds()
    tuning = {a: [trained(a, rate=rate) for rate in (1e-3, 1e-2)] for a in both}
    figures = compute_figures(both)
    results = Results(tuning, both)
    text = "\n".join(page(make_plan(), results, figures, check_promises(figures, both)))
    assert "| final loss, held out | 2.0600 ± 0.0158 | 1.1200 ± 0.0158 | -45.6%, clear |" in text
    assert "| epochs to the other's final loss | never (5 seeds) | 1.0 ± 0.0 | |" in text
    assert "0.001: 2.0400, 0.01: 2.0400; chosen 0.001; the best stands at the end" in text


def test_the_picture_starts_at_zero_and_shows_the_schedules_bands(tmp_path: Path) -> None:
    info = comparison_info(seeds())
    assert info.alpha.x == (0.0, *range(1, EPOCHS + 1))
    assert info.alpha.mean[:2] == (0.0, pytest.approx(0.1))
    assert [(b.begin, b.end) for b in info.bands] == [(0, 1), (1, 3), (3, 6), (6, 10)]
    assert info.losses[0].label == EARLIER
    assert info.losses[0].sd[0] == pytest.approx(0.0158, abs=1e-4)
    draw_comparison(info, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_learning_rates_are_evenly_spread() -> None:
    assert learning_rates(3, 0.5) == [3e-4, 1.732e-3, 1e-2]
    assert learning_rates(1, 0.5) == [0.5]


@pytest.mark.parametrize(("best", "expected"), [(1e-4, 1e-5), (1e-3, None), (1e-2, 0.1)])
def test_the_best_at_an_end_is_looked_for_beyond_it(best: float, expected: float | None) -> None:
    tried = [
        trained(GATED, rate=rate, losses=[1.0 if rate == best else 2.0])
        for rate in (1e-4, 1e-3, 1e-2)
    ]
    assert beyond(tried) == expected


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuning.comparison.experiment.POLL_SECONDS", 0.005)


class FakeTraining:
    """Writes the result of a training that is best beyond the grid's end for one of both."""

    BEST: ClassVar = {EARLIER: 0.05773, GATED: 1.732e-3}

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, job: Job, directory: Path) -> None:
        self.names.append(job.name)
        training, architecture = job.config.training, job.config.model.architecture
        loss = 1.0 + abs(training.learning_rate - self.BEST[architecture])
        result = trained(architecture, training.seed, losses=[loss], config=job.config)
        result_path(directory, job).write_text(result.model_dump_json())


def run(plan: Plan, directory: Path) -> tuple[FakeTraining, Results]:
    fake = FakeTraining()
    process = multiprocessing.dummy.Process
    runner = Runner(plan, directory, print, fake, process)
    return fake, run_experiment(plan, runner, print)


def test_each_architecture_is_tuned_alone_and_then_trained_on_every_seed(tmp_path: Path) -> None:
    fake, results = run(make_plan(), tmp_path)
    assert len(fake.names) == 2 * 3 + 1 + 1 + 2 * 2  # the grid, two rates beyond it, the seeds
    rates = {
        a: {t.config.training.learning_rate for t in found} for a, found in results.seeds.items()
    }
    assert rates == {EARLIER: {0.05773}, GATED: {1.732e-3}}
    compared = {t.config.training.seed for t in results.seeds[GATED]}
    assert compared == {1, 2}, "not the seed that chose the learning rate"
    again, same = run(make_plan(), tmp_path)
    assert again.names == [], "what has been trained is not trained again"
    assert same == results
    other = Plan(
        BASE.model_copy(update={"training": BASE.training.model_copy(update={"batch_size": 8})}),
        2,
        3,
        2,
        1,
    )
    assert len(run(other, tmp_path)[0].names) == len(fake.names), "another configuration is"


def test_a_training_that_dies_ends_the_comparison_with_one_line(tmp_path: Path) -> None:
    plan, process = make_plan(workers=1), multiprocessing.dummy.Process
    runner = Runner(plan, tmp_path, print, lambda job, directory: None, process)
    with pytest.raises(UserError, match="give the same --out again"):
        run_experiment(plan, runner, print)


def test_a_comparison_from_before_the_split_had_versions_goes_on_with_its_own(
    tmp_path: Path,
) -> None:
    config = make_plan().config
    assert with_split_of(tmp_path, config) == config
    job = make_plan().seed_job(GATED, 1e-3, 1)
    content = trained(GATED, 1).model_copy(update={"config": job.config}).model_dump(mode="json")
    del content["config"]["data"]["split"]
    (tmp_path / "a.json").write_text("{")
    result_path(tmp_path, job).write_text(json.dumps(content))
    assert read_result(tmp_path, job) is None, "it is another split's"
    begun = with_split_of(tmp_path, config)
    assert begun.data.split == "rows"
    assert read_result(tmp_path, replace(make_plan(), config=begun).seed_job(GATED, 1e-3, 1))


def test_a_damaged_result_is_trained_again(tmp_path: Path) -> None:
    job = make_plan().seed_job(GATED, 1e-3, 1)
    result_path(tmp_path, job).write_text("{")
    assert read_result(tmp_path, job) is None
