"""A running sweep has one configuration, and what the cluster decides is decided once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuning.config.sweep import ResolvedSweep, load_sweep
from tuning.history.record import SweepRecord
from tuning.sweep.directory import create_directory, read_config
from tuning.sweep.running import RunningSweep, open_sweep


def opened(storage: Path, *settings: str) -> RunningSweep:
    sweep = ResolvedSweep("mine", load_sweep(None, [f"storage={storage}", *settings]))
    if not sweep.directory.exists():
        create_directory(sweep)
    record = SweepRecord("mine", "val_loss", "min", 16)
    return open_sweep(sweep.directory, read_config(sweep.directory), record, print)


@pytest.mark.parametrize("has_gpu", [True, False])
def test_what_the_cluster_decides_is_written_down_and_counts_on_any_other(
    has_gpu: bool, tmp_path: Path
) -> None:
    first = opened(tmp_path)
    first.settle(has_gpu)
    first.history.close()
    again = opened(tmp_path)
    assert again.config.deterministic is not has_gpu
    again.settle(not has_gpu)
    again.history.close()
    assert again.config == first.config


@pytest.mark.parametrize("of_train", ["null", "true", "false"])
@pytest.mark.parametrize("of_sweep", [True, False])
def test_the_sweep_and_its_trainings_are_deterministic_alike(
    of_sweep: bool, of_train: str, tmp_path: Path
) -> None:
    settings = (f"deterministic={of_sweep}", f"train.training.deterministic={of_train}")
    sweep = opened(tmp_path, *settings)
    before = (sweep.directory / "sweep.yaml").read_text()
    sweep.settle(has_gpu=of_sweep)
    sweep.history.close()
    assert sweep.config.deterministic is sweep.config.train.training.deterministic is of_sweep
    assert (sweep.directory / "sweep.yaml").read_text() == before


@pytest.mark.parametrize(("scheduler", "keep_best"), [("asha", 5), ("pbt", None)])
def test_a_population_keeps_every_checkpoint(
    scheduler: str, keep_best: int | None, tmp_path: Path
) -> None:
    sweep = opened(tmp_path, f"scheduler.type={scheduler}")
    sweep.history.close()
    assert sweep.history._keep_best == keep_best
