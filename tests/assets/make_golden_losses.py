"""Writes golden_losses.json: ``python -m tests.assets.make_golden_losses``."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from trainables.config import parse_config
from trainables.inputs.checked_data import read_data
from trainables.inputs.preparing import prepare_inputs
from trainables.llm.frozen import FrozenLLM
from trainables.training.batches import DeviceInputs
from trainables.training.run import Run
from trainables.training.step import train_step

TRAINING = {"batch_size": 8, "num_epochs": 3, "precision": "fp32"}


def main() -> None:
    torch.set_num_threads(1)
    config = parse_config({"training": TRAINING}, source="golden", base=Path())
    device = torch.device("cpu")
    llm = FrozenLLM.load(config.model, device, torch.float32)
    run = Run(config, DeviceInputs(prepare_inputs(llm, read_data(config)), device))
    run.start_epoch()
    for _ in range(5):
        train_step([run], llm)
    golden = {name: run.series.column(name) for name in ("loss", "gate_alpha")}
    path = Path(__file__).with_name("golden_losses.json")
    path.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
