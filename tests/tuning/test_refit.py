"""``refit`` and ``export --trial`` on a sweep of a tiny LLM."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path

import pytest

from tests.faults.specimen import make_specimen
from trainables.training.checkpoint_files import checkpoints, read_meta
from tuning.cli import main
from tuning.history.sweeps import read_sweep
from tuning.refit import mean_and_error


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return make_specimen(tmp_path).parent


def refit(storage: Path, *more: str) -> int:
    return main(["refit", "specimen", "--storage", str(storage), *more])


def test_the_error_of_a_mean() -> None:
    assert mean_and_error([1.0]) == (1.0, None)
    mean, error = mean_and_error([1.0, 2.0, 3.0, 6.0])
    assert mean == 3.0
    assert error == pytest.approx((14 / 3) ** 0.5 / 2)


def test_other_seeds_are_trained_to_the_asked_epoch_and_the_best_of_them_is_exported(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refit(storage, "--seeds", "2", "--num_epochs", "2") == 0
    out = capsys.readouterr().out
    place = storage / "specimen" / "refit"
    found = json.loads((place / "refit.json").read_text())
    best = read_sweep(storage / "specimen").best()
    assert best is not None
    assert found["trial"] == best.trial_id
    assert list(found["seeds"]) == ["1", "2"]  # the sweep has trained with 0
    assert found["mean"] == pytest.approx(statistics.fmean(found["seeds"].values()))
    told = f"val_loss {found['mean']:.4f} ± {found['standard_error']:.4f} (gate closed: "
    told += f"{found['gate_closed']:.4f}), {best.trial_id} refitted with 2 seeds, 2 epochs"
    assert told in out
    alpha = read_meta(checkpoints(place / "gate_closed")[-1])["metrics"]["gate_alpha"]
    assert alpha == 0.0
    for command in ("status", "best"):
        assert main([command, "specimen", "--storage", str(storage)]) == 0
        assert told in capsys.readouterr().out
        assert main([command, "specimen", "--storage", str(storage), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["refit"] == found
    for seed, value in found["seeds"].items():
        metas = [read_meta(path) for path in checkpoints(place / f"seed_{seed}")]
        assert [meta["epoch"] for meta in metas] == [1, 2]
        assert metas[0]["config"]["training"]["seed"] == int(seed)
        values = [meta["metrics"]["val_loss"] for meta in metas]
        assert value == values[-1]  # as the sweep counts, which is from before `metric_at`
    winner = min(found["seeds"], key=found["seeds"].get)
    exported = json.loads((place / "best" / "training_config.json").read_text())
    assert exported["training"]["seed"] == int(winner)
    card = (place / "best" / "README.md").read_text()
    assert "refitted" in card
    assert told in card


def test_the_same_call_goes_on_where_it_was_cut_off_and_comes_to_the_same(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["--seeds", "2", "--num_epochs", "2"]
    assert refit(storage, *call) == 0
    place = storage / "specimen" / "refit"
    whole = (place / "refit.json").read_text()
    shutil.rmtree(place / "seed_2" / "checkpoint_000002")
    (place / "refit.json").unlink()
    capsys.readouterr()
    assert refit(storage, *call) == 0
    out = capsys.readouterr().out
    assert out.count("trained already") == 2  # seed 1 and the closed gate
    assert "going on from" in out
    assert (place / "refit.json").read_text() == whole


def test_a_directory_of_something_else_is_refused_untouched(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refit(storage, "--seeds", "1", "--num_epochs", "1") == 0
    capsys.readouterr()
    assert refit(storage, "--seeds", "1", "--num_epochs", "2") == 2
    assert "give another --out" in capsys.readouterr().err
    other = tmp_path / "mine"
    other.mkdir()
    (other / "notes").write_text("mine")
    assert refit(storage, "--out", str(other)) == 2
    assert [path.name for path in other.iterdir()] == ["notes"]


@pytest.mark.parametrize("seeds", ["0", "-1", "x", "1e3"])
def test_seeds_are_a_count(storage: Path, seeds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refit(storage, "--seeds", seeds) == 2
    assert "must be a whole number from 1" in capsys.readouterr().err
    assert not (storage / "specimen" / "refit").exists()


def test_a_trial_that_there_is_not_is_refused(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for call in (["refit"], ["export", "--out", str(tmp_path / "out")]):
        named = [call[0], "specimen", "--storage", str(storage), "--trial", "trial_0099"]
        assert main([*named, *call[1:]]) == 2
        assert "has no trial `trial_0099`" in capsys.readouterr().err


def test_another_trial_than_the_best_can_be_exported(storage: Path, tmp_path: Path) -> None:
    record = read_sweep(storage / "specimen")
    best = record.best()
    assert best is not None
    (other,) = [t for t in record.ranked() if t is not best][:1]
    call = ["export", "specimen", "--storage", str(storage), "--trial", other.trial_id]
    assert main([*call, "--out", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"\n{other.trial_id} of " in card
    assert f"epoch {record.epoch_of(other)} of {other.epoch}" in card


def test_a_damaged_result_does_not_hide_the_sweep(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = storage / "specimen" / "refit"
    place.mkdir()
    for text in ("{", "[]", "{}", '{"seeds": 3}'):
        (place / "refit.json").write_text(text)
        assert main(["status", "specimen", "--storage", str(storage), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["refit"] is None
