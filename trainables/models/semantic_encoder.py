"""The semantic stream: one frozen embedding per tool, the LLM's last-token hidden state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SemanticEncoder(nn.Module):
    """A frozen table of tool embeddings, [T, D]; computed elsewhere, once, by the frozen LLM."""

    tool_semantic_embeddings: Tensor

    def __init__(self, tool_names: Sequence[str], tool_semantic_embeddings: Tensor) -> None:
        """``tool_semantic_embeddings`` [T, D]; copied, as a checkpoint is read into the table."""
        super().__init__()
        if tool_semantic_embeddings.shape[0] != len(tool_names):
            raise ValueError(
                f"{len(tool_names)} tool names for embeddings of shape "
                f"{tuple(tool_semantic_embeddings.shape)}"
            )
        self.tool_names = tuple(tool_names)
        self.register_buffer("tool_semantic_embeddings", tool_semantic_embeddings.float().clone())

    @property
    def hidden_size(self) -> int:
        return self.tool_semantic_embeddings.shape[1]

    def forward(self, tool_index: Tensor) -> Tensor:
        """tool_index [B] -> [B, D]."""
        return self.tool_semantic_embeddings[tool_index]


def last_token_state(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The state at the last real token, whichever side the padding is on.

    hidden [B, L, D], attention_mask [B, L] (1 real, 0 padding) -> [B, D].
    """
    positions = torch.arange(attention_mask.shape[1], device=hidden.device)
    last = (attention_mask.to(positions.dtype) * positions).argmax(dim=1)
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), last]
