"""Gated cross-attention: ``out = LayerNorm(E + p + alpha * A)`` with a gate that starts at 0."""

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

    Of several outputs each has a query of its own, the tool's moved by ``slot_queries`` [S, D],
    and a projection of what it attends to, ``slot_projections`` [S, D, D]; neither can be seen
    while alpha is 0. ``slot_residuals`` [S, D], which begin at 0, belong to no row. A single output
    has none of these.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        dropout: float,
        d_resource: int,
        normalize: bool,
        num_outputs: int = 1,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.num_outputs = num_outputs
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
        if num_outputs > 1:
            self.slot_queries = nn.Parameter(unit_rms(torch.randn(num_outputs, hidden_size)))
            self.slot_residuals = nn.Parameter(torch.zeros(num_outputs, hidden_size))
            bound = (3 / hidden_size) ** 0.5  # what comes out is as large as what goes in
            shape = (num_outputs, hidden_size, hidden_size)
            self.slot_projections = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
            self.slot_biases = nn.Parameter(torch.zeros(num_outputs, hidden_size))

    @property
    def mirrored(self) -> tuple[Tensor, ...]:
        """The gate, and what can change its sign with it without changing the function."""
        if self.num_outputs > 1:
            return (self.gate_alpha, self.slot_projections, self.slot_biases)
        projection = self.cross_attention.out_proj
        return (self.gate_alpha, projection.weight, projection.bias)

    def forward(self, semantic: Tensor, resource: Tensor) -> Tensor:
        """semantic [B, D], resource [B, N, d_resource] -> [B, S, D]; [B, D] for a single output."""
        if self.num_outputs > 1:
            return self._several(semantic, resource)
        if self.normalize:
            semantic = unit_rms(semantic)
        query = semantic.unsqueeze(1)
        attended, _ = self.cross_attention(query, resource, resource, need_weights=False)
        attended = attended.squeeze(1)
        if self.normalize:
            attended = unit_rms(attended)
        return self.layer_norm(semantic + self.gate_alpha * attended)

    def _several(self, semantic: Tensor, resource: Tensor) -> Tensor:
        query = unit_rms(semantic).unsqueeze(1) + self.slot_queries
        attended, _ = self.cross_attention(query, resource, resource, need_weights=False)
        attended = torch.einsum("bsd,sed->bse", attended, self.slot_projections) + self.slot_biases
        base = semantic
        if self.normalize:
            attended, base = unit_rms(attended), unit_rms(semantic)
        base = base.unsqueeze(1) + self.slot_residuals
        return self.layer_norm(base + self.gate_alpha * attended)
