"""The gate is kept from going below 0, by an exact mirror of the fusion."""

from __future__ import annotations

import torch

from trainables.models.encoder import Encoder


@torch.no_grad()
def keep_gate_upward(encoder: Encoder, optimizer: torch.optim.AdamW) -> None:
    """Turn gate, attention output and their momentum round together if alpha has gone below 0.

    (alpha, W_out) and (-alpha, -W_out) are the same function with mirrored gradients, so that
    training goes on exactly as it would have; only the sign of alpha is chosen for every seed.
    """
    mirrored = encoder.mirrored
    # A parameter that no gradient has reached yet has no momentum.
    momenta = [state["exp_avg"] for p in mirrored if (state := optimizer.state.get(p))]
    tensors = [*mirrored, *momenta]
    if not tensors:  # an architecture without a gate
        return
    if encoder.gate.device.type != "cpu":  # without waiting for the device
        torch._foreach_mul_(tensors, torch.where(encoder.gate < 0, -1.0, 1.0))
    elif encoder.gate < 0:
        torch._foreach_neg_(tensors)
