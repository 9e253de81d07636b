"""Gated cross-attention: ``out = LayerNorm(E + alpha * A)`` with a gate that starts at 0."""

from __future__ import annotations

import torch
from torch import Tensor, nn

RMS_EPS = 1e-6  # a stream that is 0 everywhere stays 0


def unit_rms(x: Tensor) -> Tensor:
    """x [..., D] scaled so that the root mean square over D is 1."""
    return x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + RMS_EPS)


class GatedFusion(nn.Module):
    """Cross-attention from the tool (query) to its resource tokens (keys, values), gated.

    With ``normalize`` both streams have unit RMS before the gate, so that alpha is the ratio of
    resource to semantic strength.
    """

    def __init__(
        self, hidden_size: int, num_heads: int, dropout: float, d_resource: int, normalize: bool
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.gate_alpha = nn.Parameter(torch.zeros(()))
        same = d_resource == hidden_size
        self.cross_attention = nn.MultiheadAttention(
            hidden_size,
            num_heads,
            dropout=dropout,
            batch_first=True,
            kdim=None if same else d_resource,
            vdim=None if same else d_resource,
        )
        # Without it the soft token would grow with α, and the LLM would see its size as well.
        self.layer_norm = nn.LayerNorm(hidden_size)

    def forward(self, semantic: Tensor, resource: Tensor) -> Tensor:
        """semantic [B, D], resource [B, S, d_resource] -> [B, D]."""
        if self.normalize:
            semantic = unit_rms(semantic)
        query = semantic.unsqueeze(1)
        attended, _ = self.cross_attention(query, resource, resource, need_weights=False)
        attended = attended.squeeze(1)
        if self.normalize:
            attended = unit_rms(attended)
        return self.layer_norm(semantic + self.gate_alpha * attended)
