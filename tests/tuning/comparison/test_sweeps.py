"""Comparing two sweeps: time, trials and parameters, from invented histories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tuning.history.test_sweeps import epoch, write_sweep
from trainables.errors import UserError
from tuning.cli import main
from tuning.comparison.sweeps import compare_sweeps, curves, read_comparable


def history(
    trials: list[tuple[float, list[float]]], dropout: float, pause: float = 0
) -> list[dict[str, Any]]:
    """Trials one after the other, each with its start and a loss a minute after every other.

    ``pause`` seconds pass, while nothing runs, before the second trial.
    """
    events: list[dict[str, Any]] = [{"event": "sweep", "state": "running", "time": 0.0}]
    shift = 0.0
    for number, (start, losses) in enumerate(trials):
        name = f"trial_{number:04d}"
        if number == 1 and pause:
            shift = pause
            events.append({"event": "sweep", "state": "running", "time": start + shift})
        params = {"model.dropout": dropout, "training.learning_rate": 0.001 * (number + 1)}
        begun = {"trial_id": name, "time": start + shift}
        events += [{"event": "trial", "params": params, **begun}, {"event": "start", **begun}]
        for i, loss in enumerate(losses, start=1):
            events.append({**epoch(name, i, loss), "time": start + shift + 60 * i})
        end = start + shift + 60 * len(losses)
        events.append(
            {"event": "checkpoint", "trial_id": name, "path": f"tune/{name}/c", "time": end}
        )
        events.append({"event": "end", "trial_id": name, "status": "finished", "time": end})
    return [*events, {"event": "sweep", "state": "finished", "time": end}]


SLOW = [(10, [3.0, 2.5]), (130, [2.0, 1.0])]
FAST = [(10, [1.5, 0.5])]


def compared(storage: Path, pause: float = 0) -> dict[str, Any]:
    directories = [
        write_sweep(storage, "slow", history(SLOW, 0.1, pause)),
        write_sweep(storage, "fast", history(FAST, 0.2)),
    ]
    return compare_sweeps(read_comparable(directories))


def test_both_are_held_against_the_worse_ones_best(tmp_path: Path) -> None:
    answer = compared(tmp_path)
    assert answer["target"] == 1.0
    slow, fast = answer["sweeps"]
    assert (slow["best"]["value"], fast["best"]["value"]) == (1.0, 0.5)
    assert (slow["seconds_to_target"], fast["seconds_to_target"]) == (240, 120)
    assert (slow["trials_to_target"], fast["trials_to_target"]) == (2, 1)
    assert answer["params"]["model.dropout"] == [0.1, 0.2]
    assert answer["params"]["training.learning_rate"] == [0.002, 0.001]


def test_time_in_which_nothing_ran_does_not_count(tmp_path: Path) -> None:
    assert compared(tmp_path, pause=5000)["sweeps"][0]["seconds_to_target"] == 240


def test_only_trials_that_ended_well_count(tmp_path: Path) -> None:
    events = history(SLOW, 0.1)
    for event in events:
        if event["event"] == "end" and event["trial_id"] == "trial_0001":
            event["status"] = "diverged"
    directories = [
        write_sweep(tmp_path, "slow", events),
        write_sweep(tmp_path, "fast", history(FAST, 0.2)),
    ]
    assert compare_sweeps(read_comparable(directories))["target"] == 2.5


def test_the_curves_fall_and_go_on_to_the_end(tmp_path: Path) -> None:
    directories = [
        write_sweep(tmp_path, "slow", history(SLOW, 0.1)),
        write_sweep(tmp_path, "fast", history(FAST, 0.2)),
    ]
    slow, fast = curves(read_comparable(directories))
    assert slow.minutes == (1, 2, 3, 4, 4)
    assert slow.value == (3.0, 2.5, 2.0, 1.0, 1.0)
    assert fast.value == (1.5, 0.5, 0.5)


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_sweep(tmp_path / "sweeps", "slow", history(SLOW, 0.1))
    write_sweep(tmp_path / "sweeps", "fast", history(FAST, 0.2))
    write_sweep(tmp_path / "sweeps", "empty", [])
    return tmp_path


def test_the_command_writes_page_numbers_and_picture(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "slow", "fast", "--out", "both"]) == 0
    assert "| time to 1.0000 | 4 min 00 s | 2 min 00 s |" in capsys.readouterr().out
    assert "| `model.dropout` | 0.1 | 0.2 |" in (storage / "both" / "compare.md").read_text()
    assert json.loads((storage / "both" / "compare.json").read_text())["target"] == 1.0
    assert (storage / "both" / "compare.png").read_bytes().startswith(b"\x89PNG")


BAD = [
    (["slow"], "compare: 1 sweep names; give two, or none"),
    (["slow", "fats"], "no sweep `fats`"),
    (["slow", "empty"], "`empty` has no trial that ended well"),
    (["slow", "fast", "--out", "sweeps"], "--out sweeps: exists already"),
    (["--seeds", "1"], "--seeds is 1, but must be from 2"),
    (["--trials", "0"], "--trials is 0"),
    (["--workers", "0"], "--workers is 0"),
    (["--num_epochs", "many"], "`training.num_epochs` is 'many'"),
    (["--out", "sweeps"], "--out sweeps: holds something else"),
    (["--set", "model.d_resource=64"], "`d_resource` is 64, but must be null"),
]


@pytest.mark.usefixtures("storage")
@pytest.mark.parametrize(("arguments", "message"), BAD, ids=lambda v: " ".join(v)[:40])
def test_bad_input_ends_with_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path().rglob("*"))
    assert main(["compare", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert sorted(Path().rglob("*")) == before


def test_different_metrics_are_not_compared(tmp_path: Path) -> None:
    one, other = (
        write_sweep(tmp_path, "one", history(FAST, 0.1)),
        write_sweep(tmp_path, "other", history(FAST, 0.1)),
    )
    from tuning.history.manifest import read_manifest, write_manifest

    manifest = {k: v for k, v in read_manifest(other).items() if k != "checksum"}
    write_manifest(other, {**manifest, "metric": "train_loss"})
    with pytest.raises(UserError, match="only sweeps of the same metric"):
        read_comparable([one, other])
