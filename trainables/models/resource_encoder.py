"""The resource encoder: tool and resource figures in, soft tokens for the LLM out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainables.models.encoder import Encoder
from trainables.models.features import NUM_FEATURES, FeatureStatistics
from trainables.models.gated_fusion import GatedFusion
from trainables.models.resource_mlp import ResourceMLP
from trainables.models.semantic_encoder import SemanticEncoder

ResourceTokens = Literal["features", "summary"]


class FeatureTokenizer(nn.Module):
    """One token per feature, ``x_i * w_i + b_i``.

    The numerical tokenizer of FT-Transformer: Gorishniy et al., "Revisiting Deep Learning Models
    for Tabular Data", 2021, section 3.3.
    """

    def __init__(self, d_resource: int) -> None:
        super().__init__()
        bound = d_resource**-0.5
        self.weight = nn.Parameter(torch.empty(NUM_FEATURES, d_resource).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(NUM_FEATURES, d_resource).uniform_(-bound, bound))

    def forward(self, features: Tensor) -> Tensor:
        """features [B, R] -> [B, R, d_resource]."""
        return features.unsqueeze(-1) * self.weight + self.bias


class ResourceEncoder(Encoder):
    """Semantic stream, resource stream and gated fusion.

    ``resource_tokens="features"`` gives the attention seven tokens (the MLP's summary and one per
    figure), ``"summary"`` the summary alone. ``d_resource=None`` means the hidden size D.
    ``num_soft_tokens`` is S, the outputs of the fusion.
    """

    architecture = "gated_fusion"
    semantic_entry = "semantic_encoder.tool_semantic_embeddings"

    def __init__(
        self,
        tool_names: Sequence[str],
        tool_semantic_embeddings: Tensor,
        *,
        num_attention_heads: int = 8,
        dropout: float = 0.1,
        d_resource: int | None = None,
        resource_tokens: ResourceTokens = "features",
        normalize: bool = True,
        num_soft_tokens: int = 1,
        feature_statistics: FeatureStatistics | None = None,
    ) -> None:
        options: dict[str, Any] = {
            "num_attention_heads": num_attention_heads,
            "dropout": dropout,
            "d_resource": d_resource,
            "resource_tokens": resource_tokens,
            "normalize": normalize,
        }
        if num_soft_tokens > 1:  # as files were before there was the option
            options["num_soft_tokens"] = num_soft_tokens
        super().__init__(tool_names, options, feature_statistics)
        self.semantic_encoder = SemanticEncoder(tool_names, tool_semantic_embeddings)
        hidden_size = self.semantic_encoder.hidden_size
        width = hidden_size if d_resource is None else d_resource
        self.resource_mlp = ResourceMLP(width, dropout)
        self.feature_tokenizer = FeatureTokenizer(width) if resource_tokens == "features" else None
        self.fusion = GatedFusion(
            hidden_size, num_attention_heads, dropout, width, normalize, num_soft_tokens
        )

    def __getattr__(self, name: str) -> Any:
        if name == "semantic_embedding":
            raise AttributeError(
                "`semantic_embedding` belonged to an earlier architecture; the frozen embeddings "
                "are `encoder.semantic_encoder.tool_semantic_embeddings`"
            )
        return super().__getattr__(name)

    @property
    def semantic_embeddings(self) -> Tensor:
        return self.semantic_encoder.tool_semantic_embeddings

    @property
    def gate(self) -> Tensor:  # type: ignore[override]
        return self.fusion.gate_alpha

    @property
    def mirrored(self) -> tuple[Tensor, ...]:
        """(alpha, W_out) and (-alpha, -W_out) are the same function."""
        return self.fusion.mirrored

    @property
    def residuals(self) -> tuple[nn.Parameter, ...]:
        return (self.fusion.slot_residuals,) if self.fusion.num_outputs > 1 else ()

    def resource_tokens(self, features: Tensor) -> Tensor:
        """features [B, R] -> [B, N, d_resource] with N = 7 (features) or 1 (summary)."""
        summary = self.resource_mlp(features).unsqueeze(1)
        if self.feature_tokenizer is None:
            return summary
        return torch.cat([summary, self.feature_tokenizer(features)], dim=1)

    def forward(self, tool_index: Tensor, features: Tensor) -> Tensor:
        """tool_index [B], standardised features [B, R] -> [B, S, D]; [B, D] of one soft token."""
        return self.fusion(self.semantic_encoder(tool_index), self.resource_tokens(features))
