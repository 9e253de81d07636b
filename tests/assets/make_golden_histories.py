"""Writes ``golden_histories.json``: what trainings on the embedded LLM that learn well report.

    python -m tests.assets.make_golden_histories

A diagnosis must find nothing in them. About four minutes on one core.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from trainables.config import parse_config
from trainables.inputs.checked_data import read_data
from trainables.inputs.preparing import prepare_inputs
from trainables.llm.frozen import FrozenLLM
from trainables.training.pretraining import Pretraining

GOLDEN = Path(__file__).with_name("golden_histories.json")
KEYS = (
    "epoch",
    "step",
    "train_loss",
    "gate_alpha",
    "semantic_retention",
    "grad_norm",
    "gate_grad_norm",
)
# Name -> (what differs from the default training, epochs of its 30 that are trained).
RUNS: dict[str, tuple[dict[str, Any], int]] = {
    "default": ({}, 30),
    "fast": ({"learning_rate": 1e-2}, 5),
    "slow gate": ({"learning_rate": 3e-3, "gate_lr_multiplier": 3.0}, 6),
}


def history(training: dict[str, Any], epochs: int) -> list[dict[str, Any]]:
    mapping = {"training": {**training, "field_accuracy_samples": 0}}
    config = parse_config(mapping, source="golden", base=Path())
    llm = FrozenLLM.load(config.model, torch.device("cpu"), torch.bfloat16)
    inputs = prepare_inputs(llm, read_data(config))
    reports = Pretraining(config, inputs, llm).reports()
    found = [next(reports) for _ in range(epochs)]
    return [{key: float(f"{report.metrics[key]:.6g}") for key in KEYS} for report in found]


def main() -> None:
    torch.set_num_threads(1)
    found = {
        name: {"training": training, "history": history(training, epochs)}
        for name, (training, epochs) in RUNS.items()
    }
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
