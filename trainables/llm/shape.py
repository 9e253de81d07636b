"""How large an LLM is and what a pass through it costs, from its ``config.json`` alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from trainables.llm.location import HIDDEN_SIZE_KEYS, config_sections

LAYER_KEYS = ("num_hidden_layers", "n_layer")
HEAD_KEYS = ("num_attention_heads", "n_head")
MLP_KEYS = ("intermediate_size", "n_inner", "ffn_dim")
EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts")
GATED = ("silu", "swish", "gelu_pytorch_tanh")  # of Llama, Qwen, Mistral, Gemma
BYTES = {"bf16": 2, "fp32": 4}

# NVIDIA's data sheet of the H100 SXM: bf16 without sparsity. What frozen passes of a few thousand
# tokens reach of it is assumed, not measured.
H100_PEAK = 989e12
H100_SHARE = 0.3
# Measured with the embedded LLM on one core: 0.3 to 0.6 of what plain products reach.
CPU_SHARE = 0.5
PROBE_SECONDS = 0.3


@dataclass(frozen=True)
class LLMShape:
    """A decoder's sizes; ``mlp_matrices`` is 3 with a gate, else 2."""

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    mlp_size: int
    mlp_matrices: int
    vocabulary: int
    tied: bool

    @property
    def per_layer(self) -> int:
        """Weights of a layer; norms and biases, below a thousandth, are left out."""
        attention = 2 * (self.heads + self.kv_heads) * self.head_size
        return self.hidden_size * (attention + self.mlp_matrices * self.mlp_size)

    @property
    def parameters(self) -> int:
        tables = 1 if self.tied else 2
        return self.layers * self.per_layer + tables * self.vocabulary * self.hidden_size

    def forward_flops(self, tokens: float, length: float) -> float:
        """Of so many tokens in texts of ``length`` tokens, logits included.

        Two per weight and token; two products of head_size per head and pair of tokens.
        """
        weights = self.layers * self.per_layer + self.vocabulary * self.hidden_size
        pairs = 2 * self.layers * self.heads * self.head_size * length
        return 2 * tokens * (weights + pairs)


def llm_shape(config_file: Path) -> LLMShape | None:
    """The shape that a ``config.json`` states; None where it is not a plain decoder's."""
    for section in config_sections(config_file):
        if any(section.get(key) for key in EXPERT_KEYS):
            return None
        found = [_first(section, keys) for keys in (HIDDEN_SIZE_KEYS, LAYER_KEYS, HEAD_KEYS)]
        vocabulary = _first(section, ("vocab_size",))
        if vocabulary is None or None in found:
            continue
        hidden, layers, heads = (int(size or 0) for size in found)
        activation = section.get("hidden_act", section.get("hidden_activation"))
        return LLMShape(
            hidden,
            layers,
            heads,
            _first(section, ("num_key_value_heads",)) or heads,
            _first(section, ("head_dim",)) or hidden // heads,
            _first(section, MLP_KEYS) or 4 * hidden,
            3 if activation in GATED else 2,
            vocabulary,
            bool(section.get("tie_word_embeddings", True)),
        )
    return None


def _first(section: dict[str, Any], keys: Sequence[str]) -> int | None:
    values = (section.get(key) for key in keys)
    return next((v for v in values if type(v) is int and v > 0), None)


def h100_rate() -> float:
    """FLOP/s that one H100 is assumed to reach."""
    return H100_PEAK * H100_SHARE


@cache
def cpu_rate() -> float:
    """FLOP/s that training reaches on all cores: a share of the best of some fp32 products."""
    size = 512
    a = np.ones((size, size), dtype=np.float32)
    seconds = [1.0]
    end = time.perf_counter() + PROBE_SECONDS
    while (start := time.perf_counter()) < end:  # others may use the cores, too: the best counts
        a @ a
        seconds.append(time.perf_counter() - start)
    return CPU_SHARE * 2 * size**3 / min(seconds)
