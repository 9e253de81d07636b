"""What ``verify`` can look at: a module of this folder for each. No torch."""

from __future__ import annotations

# In the order of the lines; the last starts Ray.
MODULES = (
    "semantic_encoder",
    "resource_mlp",
    "gated_fusion",
    "encoder",
    "loss",
    "checkpoint",
    "llm",
    "data",
    "object_store",
)
