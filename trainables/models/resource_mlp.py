"""The resource stream: a small MLP over the six standardised figures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.models.features import NUM_FEATURES, RESOURCE_HIDDEN_SIZE


class ResourceMLP(nn.Module):
    """Linear (R -> 512), ReLU, dropout, Linear (512 -> d_resource)."""

    def __init__(self, d_resource: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(NUM_FEATURES, RESOURCE_HIDDEN_SIZE)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(RESOURCE_HIDDEN_SIZE, d_resource)

    def forward(self, features: Tensor) -> Tensor:
        """features [B, R] -> [B, d_resource]."""
        return self.fc2(self.dropout(torch.relu(self.fc1(features))))
