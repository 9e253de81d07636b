"""The benchmark of searches: it decides as a sweep does, and tells what a table holds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import search
from search_spaces.schema import SearchSpace
from tuning.config.space import searched_values
from tuning.config.sweep import ASHA, NoScheduler, RandomSearch, load_sweep
from tuning.history.record import trial_name
from tuning.history.sweeps import CONFIG_FILE, read_sweep

EPOCHS = 9
RATE, HEADS = "training.learning_rate", "model.num_attention_heads"
SPACE = SearchSpace.model_validate(
    {
        RATE: {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
        HEADS: {"type": "choice", "choices": [1, 2, 4]},
    }
)
BASE = {RATE: 1e-3, HEADS: 1}


def assert_as_simulated(directory: Path) -> None:
    """A deterministic sweep that is over: its trials, their lengths and ends, from its curves."""
    record = read_sweep(directory)
    config = load_sweep(directory / CONFIG_FILE, begun=True)
    epochs = config.train.training.num_epochs

    def curve(number: int, params: dict[str, Any]) -> np.ndarray:
        trial = record.trials[trial_name(number)]
        assert params == trial.params, number
        values = [trial.reports[e][record.metric] for e in sorted(trial.reports)]
        return np.array(values + [math.nan] * (epochs - len(values)))

    found = search.simulate(
        config.search_space,
        config.search,
        config.scheduler,
        curve,
        trials=record.num_trials,
        epochs=epochs,
        lanes=2,
        group=config.group,
        base=searched_values(config.train, config.search_space),
        metric_at=config.metric_at,
    )
    for trial in record.ordered():
        simulated = found.record.trials[trial.trial_id]
        assert (simulated.status, simulated.epoch) == (trial.status, trial.epoch), trial.trial_id
        assert found.record.epoch_of(simulated) == record.epoch_of(trial)


def truth(params: dict[str, Any]) -> np.ndarray:
    """Falls to 0.5 at a learning rate of 3e-3 and two heads; best at the last epoch."""
    end = (
        0.5 + (math.log10(params[RATE]) + 2.5) ** 2 / 4 + 0.05 * (math.log2(params[HEADS]) - 1) ** 2
    )
    return end * (1 + 1 / np.arange(1, EPOCHS + 1))


def table(points: int = 40) -> pd.DataFrame:
    rng, rows = np.random.default_rng(0), []
    for point in range(points):
        params = {RATE: 10 ** rng.uniform(-5, -2), HEADS: int(rng.choice([1, 2, 4]))}
        for seed in range(3 if point < 10 else 1):
            noise = math.exp(rng.normal(0, 0.01))
            rows += [
                {"point": point, "seed": seed, "epoch": e, "val_loss": value * noise}
                | {f"params.{key}": v for key, v in params.items()}
                for e, value in enumerate(truth(params), start=1)
            ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def curves() -> search.Curves:
    return search.Curves(table(), SPACE, BASE)


def test_between_the_points_of_a_table_lies_what_it_was_made_of(curves: search.Curves) -> None:
    assert curves.error < 0.05
    points = [{RATE: rate, HEADS: heads} for rate in (1e-4, 3e-3) for heads in (1, 4)]
    for point, mean in zip(points, curves.mean(points), strict=True):
        assert mean == pytest.approx(truth(point), rel=0.05)
    assert curves.best() == pytest.approx(0.5 * (1 + 1 / EPOCHS), rel=0.05)
    draws = [curves.noisy(points[2], np.random.default_rng(i))[-1] for i in range(200)]
    assert np.std(np.log(draws)) == pytest.approx(0.01, rel=0.5)


def test_how_many_train_at_a_time_and_how_fast_changes_time_alone(curves: search.Curves) -> None:
    sweeps = {}
    for lanes in (1, 3, 8):
        speeds = np.random.default_rng(lanes).uniform(0.5, 2, 12)
        sweeps[lanes] = found = search.simulate(
            SPACE,
            RandomSearch(type="random"),
            ASHA(grace_epochs=1),
            lambda number, params: curves.mean_of(params),
            trials=12,
            epochs=EPOCHS,
            lanes=lanes,
            group=4,
            seconds=speeds.__getitem__,
        )
        trained = [trial.epoch for trial in found.record.ordered()]
        assert len(found.epochs) == sum(trained)
        alone = sum(speeds[n] * epochs for n, epochs in enumerate(trained))
        assert found.time == pytest.approx(alone) if lanes == 1 else found.time < alone
    ends = [[(t.status, t.epoch) for t in f.record.ordered()] for f in sweeps.values()]
    assert ends[0] == ends[1] == ends[2]
    assert {epoch for _, epoch in ends[0]} >= {1, 9}


def test_a_search_that_learns_beats_random_draws(curves: search.Curves) -> None:
    best, found = curves.best(), {}
    for text in ("random", "auto"):
        kind = search.parsed(search.Search, text)
        runs = [
            search.run(curves, best, kind, NoScheduler(type="none"), 12, 4, s) for s in range(5)
        ]
        found[text] = np.median([run["regret"] for run in runs])
        assert {run["epochs"] for run in runs} == {12 * EPOCHS}
    assert found["auto"] < 0.5 * found["random"]


def test_the_command_writes_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table().to_csv(tmp_path / "table.csv.xz", index=False)
    space = {
        RATE: SPACE.root[RATE].model_dump(exclude_none=True),
        HEADS: {"type": "choice", "choices": [1, 2, 4]},
    }
    (tmp_path / "space.yaml").write_text(json.dumps(space))
    arguments = [
        "--table",
        "table.csv.xz",
        "--space",
        "space.yaml",
        "--search",
        "qmc",
        "--trials",
        "4",
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "sys.argv",
        ["search", *arguments, "--seeds", "3", "--json", "found.json", "--plot", "found.png"],
    )
    search.main()
    found = json.loads((tmp_path / "found.json").read_text())
    assert [row["search"] for row in found["found"]] == ["random", "qmc"]
    assert found["found"][0]["of_random"] == [1, 1, 1]
    assert (tmp_path / "found.png").stat().st_size > 1000
