"""The random streams of one run, independent of every other run in the process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

# Their order is part of every seed: a new stream goes to the end, or all seeds mean other runs.
STREAMS = ("weights", "order", "template", "dropout")


def stream_seed(seed: int, stream: str) -> int:
    return seed * len(STREAMS) + STREAMS.index(stream)


class RandomStreams:
    """``order`` and ``template`` are CPU generators; dropout borrows the device's generator.

    ``dropout_state`` is never changed in place, so that it can be kept and put back.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._device = device
        self.order = torch.Generator().manual_seed(stream_seed(seed, "order"))
        self.template = torch.Generator().manual_seed(stream_seed(seed, "template"))
        dropout = torch.Generator(device).manual_seed(stream_seed(seed, "dropout"))
        self.dropout_state = dropout.get_state()

    @contextmanager
    def dropout(self) -> Iterator[None]:
        """Inside the block the device draws from this run's dropout stream."""
        outside = self._get()
        self._set(self.dropout_state)
        try:
            yield
        finally:
            self.dropout_state = self._get()
            self._set(outside)

    def state(self) -> dict[str, Tensor]:
        return {
            "order": self.order.get_state(),
            "template": self.template.get_state(),
            "dropout": self.dropout_state.clone(),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.order.set_state(state["order"])
        self.template.set_state(state["template"])
        self.dropout_state = state["dropout"].clone()

    def _get(self) -> Tensor:
        return torch.cuda.get_rng_state(self._device) if self._on_gpu else torch.get_rng_state()

    def _set(self, state: Tensor) -> None:
        if self._on_gpu:
            torch.cuda.set_rng_state(state, self._device)
        else:
            torch.set_rng_state(state)
