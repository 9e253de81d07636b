"""Writes golden_losses.json: ``python -m tests.assets.make_golden_losses``."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from trainables.config import parse_config
from trainables.data.reading import read_data
from trainables.llm.frozen import FrozenLLM
from trainables.preparation import prepare_inputs
from trainables.pretraining import train_step
from trainables.run import DeviceInputs, Run

TRAINING = {"batch_size": 8, "num_epochs": 3, "precision": "fp32"}


def main() -> None:
    torch.set_num_threads(1)
    config = parse_config({"training": TRAINING}, source="golden", base=Path())
    device = torch.device("cpu")
    llm = FrozenLLM.load(config.model, device, torch.float32)
    data = read_data(config)
    states = llm.last_token_states([tool.prompt for tool in data.tools])
    run = Run(config, DeviceInputs(prepare_inputs(llm, data, states.numpy()), device))
    run.start_epoch()
    for _ in range(5):
        train_step([run], llm)
    golden = {name: run.series.column(name) for name in ("loss", "gate_alpha")}
    path = Path(__file__).with_name("golden_losses.json")
    path.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
