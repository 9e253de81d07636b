"""The earlier architecture as a baseline: input embeddings of the name, fused without a gate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainables.models.encoder import Encoder
from trainables.models.features import FeatureStatistics
from trainables.models.resource_mlp import ResourceMLP


class EmbeddingAttentionEncoder(Encoder):
    """``fusion_norm(mean over the tokens of x + SelfAttention(x))``, x = [semantic, resource].

    The semantic stream is the mean of the LLM's *input* embeddings over the tokens of the tool's
    name, which no layer of the LLM has seen; the description plays no part. It never changes, so
    that it is kept as one row per tool, ``semantic_embedding.weight`` [T, D], and the token ids
    themselves (``tool_token_ids`` of earlier checkpoints) are not needed. The resource stream is
    the same MLP as in the gated architecture, always of width D: both are tokens of one sequence.
    They enter a post-norm attention block (residual inside, layer norm last) whose two tokens are
    averaged into the soft token. The softmax runs over two keys, so that the heads matter.
    """

    architecture = "embedding_attention"
    semantic_entry = "semantic_embedding.weight"

    def __init__(
        self,
        tool_names: Sequence[str],
        name_embeddings: Tensor,
        *,
        num_attention_heads: int = 8,
        dropout: float = 0.1,
        feature_statistics: FeatureStatistics | None = None,
    ) -> None:
        """``name_embeddings`` [T, D]; copied, as the frozen table belongs to the encoder."""
        options = {"num_attention_heads": num_attention_heads, "dropout": dropout}
        super().__init__(tool_names, options, feature_statistics)
        hidden_size = name_embeddings.shape[1]
        table = name_embeddings.float().clone()
        self.semantic_embedding = nn.Embedding.from_pretrained(table, freeze=True)
        self.resource_mlp = ResourceMLP(hidden_size, dropout)
        self.fusion_attention = nn.MultiheadAttention(
            hidden_size, num_attention_heads, dropout=dropout, batch_first=True
        )
        self.fusion_norm = nn.LayerNorm(hidden_size)
        self.register_buffer("gate", torch.zeros(()), persistent=False)

    @property
    def semantic_embeddings(self) -> Tensor:
        return self.semantic_embedding.weight

    def forward(self, tool_index: Tensor, features: Tensor) -> Tensor:
        """tool_index [B], standardised features [B, R] -> soft tokens [B, D]."""
        streams = (self.semantic_embedding(tool_index), self.resource_mlp(features))
        tokens = torch.stack(streams, dim=1)
        attended, _ = self.fusion_attention(tokens, tokens, tokens, need_weights=False)
        return self.fusion_norm((tokens + attended).mean(dim=1))
