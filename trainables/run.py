"""One run: an encoder with its optimiser, schedule, data order and random streams."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from trainables.config import PretrainConfig
from trainables.data.dataset import SharedInputs
from trainables.errors import DivergedError
from trainables.models.resource_encoder import ResourceEncoder
from trainables.optimisation import (
    keep_gate_upward,
    learning_rate_at,
    make_optimizer,
    set_learning_rate,
)
from trainables.random_streams import RandomStreams, stream_seed

CPU = torch.device("cpu")


class Batch(NamedTuple):
    """B configurations with one target text each, L tokens the longest of them."""

    tool_index: Tensor  # [B]
    features: Tensor  # [B, R]
    token_ids: Tensor  # [B, L], right-padded
    counts: Tensor  # [B], real tokens per row


@dataclass
class StepSeries:
    """What each update of an epoch did; one number per step."""

    loss: list[float] = field(default_factory=list)
    gate_alpha: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)
    gate_grad_norm: list[float] = field(default_factory=list)
    tokens: int = 0


class DeviceInputs:
    """The shared arrays as tensors on the training device."""

    def __init__(self, inputs: SharedInputs, device: torch.device) -> None:
        self.device = device
        self.source = inputs
        self.tool_embeddings = _tensor(inputs.tool_embeddings, device)
        self.tool_index = _tensor(inputs.tool_index, device)
        self.features = _tensor(inputs.features, device)
        self.token_ids = _tensor(inputs.token_ids, device)
        self.token_counts = _tensor(inputs.token_counts, CPU)  # CPU: sizes are needed
        self.train_rows = _tensor(inputs.train_rows, CPU)
        self.val_rows = _tensor(inputs.val_rows, CPU)

    @property
    def num_templates(self) -> int:
        return self.token_ids.shape[1]

    def batch(self, rows: Tensor, templates: Tensor) -> Batch:
        """rows [B], templates [B], both on the CPU; trimmed to the longest text among them."""
        counts = self.token_counts[rows, templates]
        longest = int(counts.max())
        on_device, templates_on_device = rows.to(self.device), templates.to(self.device)
        return Batch(
            self.tool_index[on_device],
            self.features[on_device],
            self.token_ids[on_device, templates_on_device, :longest],
            counts.to(self.device),
        )


class Run:
    """A training of one encoder, step by step; several may share one LLM."""

    def __init__(self, config: PretrainConfig, inputs: DeviceInputs) -> None:
        self.config = config
        self.inputs = inputs
        training, model = config.training, config.model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(training.seed, "weights"))
            self.encoder = ResourceEncoder(
                inputs.source.tool_names,
                inputs.tool_embeddings.cpu(),
                num_attention_heads=model.num_attention_heads,
                dropout=model.dropout,
                d_resource=model.d_resource,
                resource_tokens=model.resource_tokens,
                normalize=model.normalize,
                feature_statistics=inputs.source.statistics,
            ).to(inputs.device)
        self.optimizer = make_optimizer(self.encoder, training)
        self.streams = RandomStreams(training.seed, inputs.device)
        self.steps_per_epoch = math.ceil(len(inputs.train_rows) / training.batch_size)
        self.total_steps = self.steps_per_epoch * training.num_epochs
        self.step = 0
        self.epoch = 0
        self.series = StepSeries()
        self._batches: Iterator[Batch] = iter(())

    def start_epoch(self) -> None:
        """Shuffle the training rows, draw a template for each, begin a new series."""
        count = len(self.inputs.train_rows)
        order = torch.randperm(count, generator=self.streams.order)
        templates = torch.randint(
            self.inputs.num_templates, (count,), generator=self.streams.template
        )
        size = self.config.training.batch_size
        parts = zip(self.inputs.train_rows[order].split(size), templates.split(size), strict=True)
        self._batches = (self.inputs.batch(rows, chosen) for rows, chosen in parts)
        self.series = StepSeries()

    def next_batch(self) -> Batch:
        return next(self._batches)

    def soft_tokens(self, batch: Batch) -> Tensor:
        """[B, D], with dropout from the run's own stream."""
        with self.streams.dropout():
            return self.encoder(batch.tool_index, batch.features)

    def update(self, loss: float, tokens: int) -> None:
        """Clip, step, schedule; the gradients are those of ``loss``.

        Raises DivergedError before the update if loss or gradient are not finite.
        """
        training = self.config.training
        parameters = self.encoder.get_trainable_parameters()
        gate = self.encoder.fusion.gate_alpha
        gate_grad = abs(float(gate.grad)) if gate.grad is not None else 0.0
        norm = float(clip_grad_norm_(parameters, training.max_grad_norm or math.inf))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = f"loss is {loss}" if not math.isfinite(loss) else f"gradient norm is {norm}"
            raise DivergedError(
                f"{what} at step {self.step + 1} (learning_rate {training.learning_rate:g}, "
                f"batch_size {training.batch_size}, seed {training.seed}); "
                "lower training.learning_rate or training.max_grad_norm",
                self.step + 1,
            )
        learning_rate = learning_rate_at(self.step, self.total_steps, training)
        set_learning_rate(self.optimizer, learning_rate)
        self.optimizer.step()
        keep_gate_upward(self.encoder, self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.series.loss.append(loss)
        self.series.gate_alpha.append(self.encoder.get_gate_value())
        self.series.learning_rate.append(learning_rate)
        self.series.grad_norm.append(norm)
        self.series.gate_grad_norm.append(gate_grad)
        self.series.tokens += tokens


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """A view on the CPU: arrays from the object store are read-only, and so are we."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)
