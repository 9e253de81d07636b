"""Keys and values of the tokens before the soft tokens: computed once, not in every step."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

# Whose content is keys and values by position, and nothing that a pass changes in its place.
KINDS = (DynamicLayer, DynamicSlidingWindowLayer)


class Prefix:
    """What every layer remembers of the tokens ``ids``; the same for every row of every step."""

    def __init__(self, cache: DynamicCache) -> None:
        self._cache = cache

    @classmethod
    @torch.no_grad()
    def read(cls, body: nn.Module, ids: Tensor) -> Prefix | None:
        """Let the model read ``ids`` [length]; None for one that remembers in another way."""
        cache = DynamicCache(config=body.config)
        body(input_ids=ids[None], past_key_values=cache, use_cache=True)
        kinds = {type(layer) for layer in cache.layers}
        if not kinds <= set(KINDS) or cache.get_seq_length() != len(ids):
            return None
        return cls(cache)

    def for_rows(self, rows: int) -> DynamicCache:
        """A cache of its own for one pass, which grows; the tensors in it are shared."""
        cache = copy.copy(self._cache)
        cache.layers = [copy.copy(layer) for layer in self._cache.layers]
        for layer in cache.layers:
            if layer.is_initialized:
                layer.keys, layer.values = (
                    _repeated(tensor, rows) for tensor in (layer.keys, layer.values)
                )
        return cache


def _repeated(tensor: Any, rows: int) -> Any:
    return tensor.expand(rows, *tensor.shape[1:])
