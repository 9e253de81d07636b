"""The shared inputs on the training device, and the batches cut from them."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainables.inputs.shared_inputs import SharedInputs

CPU = torch.device("cpu")
# Batches are cut from groups of this many, sorted by length: less padding, still at random. With
# all rows sorted, a batch would hold texts of like templates alone.
BATCHES_PER_GROUP = 8


class Batch(NamedTuple):
    """B rows with one target text each, L tokens the longest of them."""

    tool_index: Tensor  # [B]
    features: Tensor  # [B, R]
    token_ids: Tensor  # [B, L], right-padded
    counts: Tensor  # [B], real tokens per row; on the CPU, because sizes depend on it


class Cut(NamedTuple):
    """Which rows a batch has, and in which template it reads each."""

    on_device: Tensor  # [2, B], both of the following
    rows: Tensor  # [B], on the CPU
    templates: Tensor  # [B], on the CPU


class DeviceInputs:
    """The shared arrays as tensors on the training device."""

    def __init__(self, inputs: SharedInputs, device: torch.device) -> None:
        self.device = device
        self.source = inputs
        self.tool_embeddings = _tensor(inputs.tool_embeddings, device)
        self.name_embeddings = _tensor(inputs.name_embeddings, device)
        self.tool_index = _tensor(inputs.tool_index, device)
        self.features = _tensor(inputs.features, device)
        self.token_ids = _tensor(inputs.token_ids, device)
        self.token_counts = _tensor(inputs.token_counts, CPU)  # CPU: sizes are needed
        self.prompt = inputs.prompt
        self.train_rows = _tensor(inputs.train_rows, CPU)
        self.val_rows = _tensor(inputs.val_rows, CPU)

    @property
    def num_templates(self) -> int:
        return self.token_ids.shape[1]

    def batch(self, rows: Tensor, templates: Tensor) -> Batch:
        """rows [B], templates [B], both on the CPU; trimmed to the longest text among them."""
        return self.cut(Cut(torch.stack([rows, templates]).to(self.device), rows, templates))

    def cut(self, cut: Cut) -> Batch:
        """A batch whose rows are on the device already.

        Copies nothing there, so that it does not wait until the device has done its work.
        """
        counts = self.token_counts[cut.rows, cut.templates]
        longest = int(counts.max())
        chosen, texts = cut.on_device
        return Batch(
            self.tool_index[chosen],
            self.features[chosen],
            self.token_ids[chosen, texts, :longest],
            counts,
        )


def cut_epoch(
    inputs: DeviceInputs, batch_size: int, order: torch.Generator, template: torch.Generator
) -> list[Cut]:
    """All training rows shuffled, a template drawn for each, cut into batches of like lengths."""
    count = len(inputs.train_rows)
    rows = inputs.train_rows[torch.randperm(count, generator=order)]
    templates = torch.randint(inputs.num_templates, (count,), generator=template)
    lengths = inputs.token_counts[rows, templates]
    group = batch_size * BATCHES_PER_GROUP
    parts = [
        start + places
        for start in range(0, count, group)
        for places in lengths[start : start + group].argsort(stable=True).split(batch_size)
    ]
    turns = torch.randperm(len(parts), generator=order).tolist()
    chosen = [torch.stack([rows[parts[i]], templates[parts[i]]]) for i in turns]
    on_device = torch.cat(chosen, dim=1).to(inputs.device)  # once for all the epoch's steps
    cuts = on_device.split([part.shape[1] for part in chosen], dim=1)
    return [Cut(cut, *part) for cut, part in zip(cuts, chosen, strict=True)]


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """A view on the CPU: arrays from the object store are read-only, and so are we."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)
