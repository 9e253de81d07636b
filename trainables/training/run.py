"""One run: an encoder with its optimiser, schedule, data order and random streams."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from trainables.config import PretrainConfig
from trainables.errors import DivergedError
from trainables.inputs.find_or_prepare import with_prompt
from trainables.models.embedding_attention import EmbeddingAttentionEncoder
from trainables.models.encoder import Encoder
from trainables.models.resource_encoder import ResourceEncoder
from trainables.training.batches import Batch, Cut, DeviceInputs, cut_epoch
from trainables.training.diagnosis import Facts
from trainables.training.gate_sign import keep_gate_upward
from trainables.training.optimisation import (
    learning_rate_at,
    learning_rate_sum,
    make_optimizer,
    set_learning_rate,
)
from trainables.training.random_streams import RandomStreams, stream_seed

SERIES_PREFIX = "series."


class StepSeries:
    """What each update of an epoch did; kept on the device and read once per epoch."""

    COLUMNS = ("loss", "gate_alpha", "grad_norm", "gate_grad_norm")

    def __init__(self, steps: int, device: torch.device) -> None:
        self._rows = torch.zeros(steps, len(self.COLUMNS), device=device)
        self.learning_rate: list[float] = []
        self.tokens = 0
        self.started = time.perf_counter()

    def state(self) -> dict[str, Tensor]:
        """What ``load_state`` needs to go on in the middle of an epoch."""
        return {
            "rows": self._rows[: len(self)].cpu(),
            "learning_rate": torch.tensor(self.learning_rate, dtype=torch.float64),
            "tokens": torch.tensor(self.tokens),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.learning_rate = state["learning_rate"].tolist()
        self._rows[: len(self)] = state["rows"].to(self._rows.device)
        self.tokens = int(state["tokens"])

    def add(self, figures: tuple[Tensor, ...], learning_rate: float, tokens: int) -> None:
        self._rows[len(self.learning_rate)] = torch.stack(figures)
        self.learning_rate.append(learning_rate)
        self.tokens += tokens

    def __len__(self) -> int:
        return len(self.learning_rate)

    def column(self, name: str) -> list[float]:
        """One number per step so far; waits for the device."""
        return self._rows[: len(self), self.COLUMNS.index(name)].tolist()

    def told(self) -> dict[str, list[float]]:
        """What a report carries of it, by metric; waits for the device."""
        columns = {name: self.column(name) for name in ("loss", "gate_alpha")}
        return {**columns, "learning_rate": list(self.learning_rate)}


class Run:
    """A training of one encoder, step by step; several may share one LLM."""

    def __init__(self, config: PretrainConfig, inputs: DeviceInputs) -> None:
        # What the inputs were made with, so that nobody has to make it again.
        config = with_prompt(config, inputs.source)
        self.config = config = config.settled
        self.inputs = inputs
        training = config.training
        # Forked, so that a run's weights do not depend on what was drawn in this process before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(training.seed, "weights"))
            self.encoder = make_encoder(config, inputs).to(inputs.device)
        self.encoder.prompt = (inputs.prompt.before, inputs.prompt.after)
        self.optimizer = make_optimizer(self.encoder, training)
        self.streams = RandomStreams(training.seed, inputs.device)
        self.steps_per_epoch = math.ceil(len(inputs.train_rows) / training.batch_size)
        self.total_steps = self.steps_per_epoch * training.num_epochs
        self.step = 0
        self.epoch = 0
        self.series = StepSeries(0, inputs.device)
        self._cuts: list[Cut] = []
        self._streams_before = self.streams.state()
        self._parameters = self.encoder.get_trainable_parameters()
        self._failed = torch.zeros((), dtype=torch.bool, device=inputs.device)

    def begin_epoch(self) -> None:
        """``start_epoch``, unless a checkpoint has put the run into the middle of one."""
        if not self.in_epoch:
            self.start_epoch()

    def start_epoch(self) -> None:
        """Shuffle the training rows, draw a template for each, begin a new series."""
        self._streams_before = self.streams.state()
        size = self.config.training.batch_size
        self._cuts = cut_epoch(self.inputs, size, self.streams.order, self.streams.template)
        self.series = StepSeries(self.steps_per_epoch, self.inputs.device)

    @property
    def in_epoch(self) -> bool:
        """Whether the epoch that was started has steps left."""
        return len(self.series) < len(self._cuts)

    def place(self) -> dict[str, Tensor]:
        """Random streams and position, by which ``load_place`` goes on bit for bit.

        In the middle of an epoch: the streams as they were before it, by which its batches are
        found again, and the series so far.
        """
        now = self.streams.state()
        if not self.in_epoch or not len(self.series):
            return now
        series = {SERIES_PREFIX + key: value for key, value in self.series.state().items()}
        return {**self._streams_before, "dropout": now["dropout"], **series}

    def load_place(self, place: Mapping[str, Tensor]) -> None:
        series = {
            key.removeprefix(SERIES_PREFIX): value
            for key, value in place.items()
            if key.startswith(SERIES_PREFIX)
        }
        self.streams.load_state(place)
        if series:
            self.start_epoch()
            self.series.load_state(series)

    def next_batch(self) -> Batch:
        """The batch of the next update; the same one until that update is made."""
        return self.inputs.cut(self._cuts[len(self.series)])

    def soft_tokens(self, batch: Batch) -> Tensor:
        """[B, S, D], or [B, D] of one, with dropout from the run's own stream."""
        with self.streams.dropout():
            return self.encoder(batch.tool_index, batch.features)

    def update(self, loss: Tensor, tokens: int) -> None:
        """Clip, step, schedule; the gradients are those of ``loss``, a scalar.

        A loss or gradient that is not finite changes nothing, and nothing after it does; where
        that can be seen without waiting for a device, it raises DivergedError at once.
        """
        training = self.config.training
        gate = self.encoder.gate
        gate_norm = gate.grad.abs() if gate.grad is not None else torch.zeros_like(gate)
        norm = clip_grad_norm_(self._parameters, training.max_grad_norm or math.inf)
        learning_rate = learning_rate_at(self.step, self.total_steps, training)
        # One flag on the device: asking for its value at each step would wait for the device.
        self._failed |= ~(loss.isfinite() & norm.isfinite())
        if self.inputs.device.type != "cpu":
            # The fused kernel leaves everything as it is where this is 1.
            self.optimizer.found_inf = self._failed.float()  # type: ignore[attr-defined]
        elif self._failed:
            self.series.add((loss, gate.detach(), norm, gate_norm), learning_rate, tokens)
            self.check_finite()
        set_learning_rate(self.optimizer, learning_rate)
        self.optimizer.step()
        keep_gate_upward(self.encoder, self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.series.add((loss, gate.detach(), norm, gate_norm), learning_rate, tokens)

    def facts(self) -> Facts:
        """What a diagnosis needs beside the figures; read between two steps."""
        training = self.config.training
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        fusion = [(n, p) for n, p in self.encoder.named_parameters() if n.startswith("fusion")]
        return Facts(
            learning_rate=training.learning_rate,
            gate_lr_multiplier=training.gate_multiplier,
            rate_spent=learning_rate_sum(0, self.step, self.total_steps, training),
            rate_left=learning_rate_sum(self.step, self.total_steps, self.total_steps, training),
            trainable=sum(p.numel() for p in self._parameters),
            normalize=self.config.model.normalize,
            soft_tokens=self.config.model.soft_tokens,
            gated=any(name.endswith("gate_alpha") for name, _ in fusion),
            untrained=tuple(n for n, p in fusion if id(p) not in held or not p.requires_grad),
        )

    def check_finite(self) -> None:
        """Raises DivergedError if an update could not be made; waits for the device."""
        if not self._failed:
            return
        training = self.config.training
        figures = zip(self.series.column("loss"), self.series.column("grad_norm"), strict=True)
        bad = ((i, *pair) for i, pair in enumerate(figures) if not all(map(math.isfinite, pair)))
        place, loss, norm = next(bad)
        step = self.epoch * self.steps_per_epoch + place + 1
        what = f"loss is {loss}" if not math.isfinite(loss) else f"gradient norm is {norm}"
        raise DivergedError(
            f"{what} at step {step} (learning_rate {training.learning_rate:g}, "
            f"batch_size {training.batch_size}, seed {training.seed}); "
            "lower training.learning_rate or training.max_grad_norm",
            step,
        )


def make_encoder(config: PretrainConfig, inputs: DeviceInputs) -> Encoder:
    """A new encoder on the CPU, its weights drawn from torch's current state."""
    model, source = config.model, inputs.source
    match model.architecture:
        case "gated_fusion":
            return ResourceEncoder(
                source.tool_names,
                inputs.tool_embeddings.cpu(),
                num_attention_heads=model.num_attention_heads,
                dropout=model.dropout,
                d_resource=model.d_resource,
                resource_tokens=model.resource_tokens,
                normalize=model.normalize,
                num_soft_tokens=model.soft_tokens,
                feature_statistics=source.statistics,
            )
        case "embedding_attention":
            return EmbeddingAttentionEncoder(
                source.tool_names,
                inputs.name_embeddings.cpu(),
                num_attention_heads=model.num_attention_heads,
                dropout=model.dropout,
                feature_statistics=source.statistics,
            )
