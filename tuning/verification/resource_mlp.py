"""The resource stream: what it computes, and that every figure counts."""

from __future__ import annotations

import torch

from trainables.models.features import RESOURCES
from tuning.verification.check import (
    Check,
    ProblemError,
    Subjects,
    must_equal,
    random_tensor,
    small_encoder,
)

ROWS = 5


@torch.no_grad()
def _written_out(subjects: Subjects) -> str:
    mlp = small_encoder().resource_mlp
    figures = random_tensor(ROWS, len(RESOURCES))
    hidden = (figures @ mlp.fc1.weight.T + mlp.fc1.bias).clamp_min(0)
    must_equal(mlp(figures), hidden @ mlp.fc2.weight.T + mlp.fc2.bias, "the output")
    return ""


@torch.no_grad()
def _every_figure_counts(subjects: Subjects) -> str:
    mlp = small_encoder().resource_mlp
    figures = random_tensor(1, len(RESOURCES))
    before = mlp(figures)
    for i, name in enumerate(RESOURCES):
        changed = figures.clone()
        changed[0, i] += 1
        if torch.equal(mlp(changed), before):
            raise ProblemError(f"another `{name}` changes nothing")
    return ""


CHECKS = (
    Check(
        "it is Linear, ReLU, Linear",
        "compute fc2(relu(fc1(x))), dropout only in training",
        _written_out,
    ),
    Check(
        "each of the six figures changes its output",
        "feed all six figures to `fc1`",
        _every_figure_counts,
    ),
)
