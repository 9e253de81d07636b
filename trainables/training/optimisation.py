"""Optimiser, learning-rate schedule and the gate's own parameter group."""

from __future__ import annotations

import math

import torch

from trainables.config import TrainingConfig
from trainables.models.encoder import Encoder

SAMPLED_STEPS = 1000  # enough for three digits of a smooth schedule's sum


def make_optimizer(encoder: Encoder, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW in groups: matrices; and without decay vectors, the gate, residuals of soft tokens."""
    apart = {id(p): p for p in (encoder.gate, *encoder.residuals)}
    gate = [p for p in encoder.get_trainable_parameters() if p is encoder.gate]
    others = [p for p in encoder.get_trainable_parameters() if id(p) not in apart]
    # Decay pulls towards 0, which is right for matrices alone: a norm's scale belongs at 1, and the
    # gate has to leave 0.
    groups = [
        {"params": [p for p in others if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
        {"params": gate, "weight_decay": 0.0, "lr_multiplier": config.gate_multiplier},
    ]
    if residuals := list(encoder.residuals):
        # Adam moves every number by about the learning rate; a matrix adds up many such moves.
        groups.append(
            {
                "params": residuals,
                "weight_decay": 0.0,
                "lr_multiplier": config.residual_lr_multiplier,
            }
        )
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_multiplier", 1.0)


def learning_rate_sum(first: int, last: int, total_steps: int, config: TrainingConfig) -> float:
    """The learning rates of updates ``first`` to before ``last``, summed; of long ones a sample."""
    steps = range(first, last, max(1, (last - first) // SAMPLED_STEPS))
    rates = [learning_rate_at(step, total_steps, config) for step in steps]
    return sum(rates) * (last - first) / max(1, len(rates))


def learning_rate_at(step: int, total_steps: int, config: TrainingConfig) -> float:
    """The learning rate of update ``step`` (0-based): linear warm-up, then the schedule to 0.

    Cosine: Loshchilov & Hutter, "SGDR", 2017, equation 5 with one period.
    """
    warmup = math.ceil(config.warmup_ratio * total_steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    match config.scheduler:
        case "cosine":
            return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            return config.learning_rate * (1 - progress)
        case "constant":
            return config.learning_rate
