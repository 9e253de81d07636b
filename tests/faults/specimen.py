"""A sweep's directory as a sweep leaves it: one trial finished, one stopped early, one cut off."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.conftest import TOOLS, write_data, write_llm
from trainables.inputs.checked_data import read_data
from trainables.inputs.preparing import prepare_inputs
from trainables.llm.frozen import FrozenLLM
from trainables.packing.lanes import Lanes
from trainables.packing.memory import Footprint
from trainables.packing.protocol import Assignment
from trainables.statuses import Status
from trainables.training.batches import DeviceInputs
from trainables.training.checkpoint_files import checkpoints
from trainables.training.reports import Ending, Report
from tuning.config.space import with_params
from tuning.config.sweep import ResolvedSweep, SweepConfig, load_sweep
from tuning.history.record import SweepRecord, trial_name
from tuning.sweep.derived import write_derived
from tuning.sweep.directory import create_directory, read_config
from tuning.sweep.history_writer import SweepCallback
from tuning.sweep.running import open_sweep

NAME = "specimen"
EPOCHS = 3
TRIALS = [(3, "finished"), (1, "stopped early"), (2, None)]  # epochs, ending


def make_specimen(place: Path, tools: list[dict[str, str]] = TOOLS) -> Path:
    """A sweep below ``place``/sweeps, made by the code that makes them, without Ray."""
    write_llm(place / "llm")
    write_data(place / "data", tools)
    settings = [
        f"train.model.llm_model={place / 'llm'}",
        f"train.data.tool_registry={place / 'data' / 'tools.json'}",
        f"train.data.profiling_data={place / 'data' / 'profiling.csv'}",
        f"train.training={{batch_size: 16, num_epochs: {EPOCHS}, precision: fp32}}",
        "train.training.field_accuracy_samples=0",
        f"storage={place / 'sweeps'}",
        "num_trials=4",
    ]
    resolved = ResolvedSweep(NAME, load_sweep(None, settings))
    create_directory(resolved)
    config = read_config(resolved.directory)
    record = SweepRecord(NAME, config.metric, config.mode, config.num_trials)
    sweep = open_sweep(resolved.directory, config, record, print)
    sweep.history.sweep_event("running")
    lanes = make_lanes(config)
    for number, (epochs, ending) in enumerate(TRIALS):
        train(lanes, config, sweep.history, number, epochs, ending)
    sweep.history.close()
    write_derived(sweep)
    (sweep.directory / "lock").write_text("pid 1")
    (sweep.directory / "logs").mkdir()
    (sweep.directory / "logs" / "ray.log").write_text("a line\n")
    return sweep.directory


def make_lanes(config: SweepConfig) -> Lanes:
    llm = FrozenLLM.load(config.train.model, torch.device("cpu"), torch.float32)
    inputs = DeviceInputs(prepare_inputs(llm, read_data(config.train)), llm.device)
    return Lanes(llm, inputs, Footprint(llm, inputs), together=False, budget=2.0**40)


def train(
    lanes: Lanes,
    config: SweepConfig,
    callback: SweepCallback,
    number: int,
    epochs: int,
    ending: str | None,
) -> None:
    """One trial, told to the history as Ray Tune's callbacks would; two checkpoints are kept."""
    name = trial_name(number)
    folder = callback._directory / "tune" / name
    folder.mkdir(parents=True)
    params: dict[str, Any] = {
        "training.learning_rate": 0.001 * (number + 1),
        "model.dropout": 0.1,
        "model.num_attention_heads": 2,
    }
    tell = partial(callback.tell, trial_id=name)
    tell("trial", params=params)
    tell("start", params=params)
    lanes.assign(name, Assignment(with_params(config.train, params, name), str(folder)))
    report: Report = Ending(Status.FAILED, "")
    while report.epoch < epochs:
        for _, report in lanes.work():
            tell("epoch", metrics=report.metrics)
            path = Path(report.checkpoint)
            tell("checkpoint", path=str(path.relative_to(callback._directory)))
            for old in checkpoints(folder)[:-2]:
                shutil.rmtree(old)
            lanes.go_on(name)
    lanes.release(name)
    if ending is not None:
        callback._end(name, ending, "")
