"""The command ``train``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trainables.config import DEFAULT_CONFIG
from tuning.commands.arguments import TRAIN_FLAGS, add_command, add_set, overrides_of


def add_train(commands: Any) -> None:
    parser = add_command(commands, "train", _train, "train one encoder")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="TRAIN.yaml")
    parser.add_argument("--batch_size", metavar="N")
    parser.add_argument("--num_epochs", metavar="N")
    parser.add_argument("--learning_rate", metavar="X")
    parser.add_argument("--output_dir", metavar="DIR")
    parser.add_argument("--seed", metavar="N")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="through Ray Train")
    parser.add_argument("--log_wandb", action="store_true")
    add_set(parser)


def _train(options: argparse.Namespace) -> None:
    ray = None
    if options.workers > 1:  # before PyTorch is loaded, which takes seconds
        from tuning.execution.finding_ray import find_ray

        ray = find_ray()
    from tuning.one_training import train

    flags = {**TRAIN_FLAGS, "output_dir": "logging.output_dir"}
    train(
        options.config,
        overrides_of(options, flags),
        options.resume,
        options.log_wandb,
        options.workers,
        ray,
    )
