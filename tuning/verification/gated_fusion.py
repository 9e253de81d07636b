"""The gated fusion: where it starts, what learns first, and which way the gate grows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from trainables.models.gated_fusion import GatedFusion, unit_rms
from trainables.training.step import train_step
from tuning.verification.check import (
    HIDDEN_SIZE,
    Check,
    ProblemError,
    Subjects,
    must_equal,
    random_tensor,
)

ROWS, TOKENS, WIDTHS = 5, 7, (HIDDEN_SIZE, 24)
TINY = 1e-12  # a learning rate at which a step changes nothing that can be seen
BELOW = -0.3


def _fusions(alpha: float | None = None) -> Iterator[tuple[GatedFusion, Tensor, Tensor]]:
    """With and without unit RMS, resource tokens as wide as D and not; with streams to fuse."""
    for normalize in (True, False):
        for width in WIDTHS:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                fusion = GatedFusion(HIDDEN_SIZE, 4, 0.0, width, normalize).eval()
            if alpha is not None:
                fusion.gate_alpha.data.fill_(alpha)
            yield fusion, random_tensor(ROWS, HIDDEN_SIZE), random_tensor(ROWS, TOKENS, width)


def _starts_closed(subjects: Subjects) -> str:
    for fusion, _, _ in _fusions():
        if fusion.gate_alpha != 0:
            raise ProblemError(f"α starts at {float(fusion.gate_alpha.detach()):g}")
    return ""


@torch.no_grad()
def _closed_is_semantics(subjects: Subjects) -> str:
    for fusion, semantic, resource in _fusions(alpha=0.0):
        expected = unit_rms(semantic) if fusion.normalize else semantic
        expected = nn.functional.layer_norm(expected, (HIDDEN_SIZE,))
        must_equal(fusion(semantic, resource), expected, "the output at α = 0")
    return ""


def _gradients(fusion: GatedFusion, semantic: Tensor, resource: Tensor) -> dict[str, float]:
    """The largest gradient of each parameter below the norm."""
    fusion(semantic, resource).pow(3).sum().backward()
    return {
        name: 0.0 if p.grad is None else float(p.grad.abs().max())
        for name, p in fusion.named_parameters()
        if not name.startswith("layer_norm")
    }


def _gate_learns_first(subjects: Subjects) -> str:
    for arguments in _fusions(alpha=0.0):
        gradients = _gradients(*arguments)
        if not gradients.pop("gate_alpha"):
            raise ProblemError("at α = 0 no gradient reaches α, so that it would stay there")
        if any(gradients.values()):
            raise ProblemError("at α = 0 the attention has a gradient already")
    for arguments in _fusions(alpha=0.5):
        without = [name for name, size in _gradients(*arguments).items() if not size]
        if without:
            raise ProblemError(f"at α = 0.5 no gradient reaches {', '.join(without)}")
    return ""


@torch.no_grad()
def _resources_count(subjects: Subjects) -> str:
    for fusion, semantic, resource in _fusions(alpha=0.5):
        before = fusion(semantic, resource)
        if torch.allclose(before, fusion(semantic, resource.flip(0)), atol=1e-6):
            raise ProblemError("other resource tokens give the same output")
    return ""


def _gate_is_turned_upward(subjects: Subjects) -> str:
    run = subjects.run(learning_rate=TINY)
    gate = run.encoder.gate
    gate.data.fill_(BELOW)
    batch = run.next_batch()
    with torch.no_grad():
        before = run.soft_tokens(batch)
    for error in train_step([run], subjects.llm).values():
        raise error
    if gate <= 0:
        raise ProblemError(f"α is {float(gate.detach()):g} after a step from {BELOW}")
    with torch.no_grad():
        must_equal(run.soft_tokens(batch), before, "the output after turning α")
    return ""


CHECKS = (
    Check(
        "the gate starts at 0",
        "make `gate_alpha` of zeros, so that training starts from the semantics",
        _starts_closed,
    ),
    Check(
        "at α = 0 the output is the normalised semantics",
        "compute LayerNorm(E + α·A), and let the norm start as the identity",
        _closed_is_semantics,
    ),
    Check(
        "gradients reach α first, and the attention once α has left 0",
        "let α, a parameter, be the only factor between attention and output",
        _gate_learns_first,
    ),
    Check(
        "other resources give another output once α has left 0",
        "take keys and values from the resource tokens",
        _resources_count,
    ),
    Check(
        "an α that has gone below 0 is turned upward, and the function stays",
        "after each step change the signs of α, W_out and b_out, and of their momentum, together",
        _gate_is_turned_upward,
    ),
)
