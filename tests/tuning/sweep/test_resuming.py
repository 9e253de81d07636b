"""Where an interrupted sweep is taken up, seen from its history and its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_data, write_llm
from tests.tuning.history.test_sweeps import epoch, write_sweep
from tests.tuning.monitors.test_findings import write_checkpoint_files
from trainables.errors import UserError
from tuning.config.sweep import ResolvedSweep, load_sweep
from tuning.history.manifest import read_manifest, write_manifest
from tuning.history.record import SweepRecord
from tuning.history.sweeps import read_sweep
from tuning.sweep.directory import create_directory, read_config, write_config
from tuning.sweep.launch import resume
from tuning.sweep.resuming import take_up
from tuning.sweep.running import open_sweep

RATE, DROPOUT = "training.learning_rate", "model.dropout"


def test_a_trial_of_a_population_goes_back_to_the_parameters_of_its_checkpoint(
    tmp_path: Path,
) -> None:
    """Killed when it was about to go on from another trial's weights, with parameters near its."""
    record = SweepRecord("mine", "val_loss", "min", 6)
    sweep = open_sweep(tmp_path, load_sweep(None), record, print)
    start = {"trial_id": "trial_0000", "params": {RATE: 0.1, DROPOUT: 0.2}, "time": 0}
    copied = {**start, "params": {RATE: 0.003, DROPOUT: 0.1}}
    for event in (
        {"event": "trial", **start},
        {"event": "start", **start},
        epoch("trial_0000", 1, 3.0),
        {"event": "params", **copied},
        {"event": "start", **copied},
    ):
        record.apply(event)
    saved = {"training": {"learning_rate": 0.1}, "model": {"dropout": 0.2}}
    reports = list(record.trials["trial_0000"].reports.values())
    write_checkpoint_files(sweep.trials / "trial_0000", reports, saved)
    (start_again,) = take_up(sweep, retry_failed=False)
    sweep.history.close()
    assert start_again.checkpoint is not None
    assert start_again.params == record.trials["trial_0000"].params == start["params"]


def test_the_history_knows_best_how_many_trials_there_are_to_be(tmp_path: Path) -> None:
    """A sweep was being extended: its history has it, its manifest not yet."""
    directory = write_sweep(tmp_path)
    before = read_manifest(directory)
    config = load_sweep(None, ["num_trials=40", f"storage={tmp_path}"])
    write_config(directory, config, print)
    write_manifest(directory, before)
    assert read_sweep(directory).num_trials == 40


def test_what_a_resume_could_not_begin_with_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_llm(tmp_path / "llm")
    write_data(tmp_path / "data")
    settings = [
        f"train.model.llm_model={tmp_path / 'llm'}",
        f"train.data.tool_registry={tmp_path / 'data' / 'tools.json'}",
        f"train.data.profiling_data={tmp_path / 'data' / 'profiling.csv'}",
        f"storage={tmp_path / 'sweeps'}",
    ]
    sweep = ResolvedSweep("mine", load_sweep(None, settings))
    create_directory(sweep)

    def refuse(*arguments: Any) -> None:
        raise UserError("`execution.hosts` is 64, but the cluster has 2 CPU cores")

    monkeypatch.setattr("tuning.sweep.launch._train", refuse)
    before = read_config(sweep.directory)
    with pytest.raises(UserError, match="2 CPU cores"):
        resume(sweep.directory, ["execution.hosts=64", "num_trials=20"], print)
    assert read_config(sweep.directory) == before
    assert read_sweep(sweep.directory).num_trials == 16
