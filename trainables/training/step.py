"""One optimiser step of one run or of several, against one frozen LLM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from trainables.config import TrainingConfig
from trainables.errors import OutOfMemoryError
from trainables.llm.frozen import FrozenLLM, free_device_memory
from trainables.llm.place.sequences import Rows
from trainables.training.batches import Batch
from trainables.training.run import Run


@dataclass(frozen=True)
class Shard:
    """This process's part of every batch, when several train one run together."""

    rank: int = 0
    size: int = 1

    def of(self, batch_size: int) -> slice:
        return slice(batch_size * self.rank // self.size, batch_size * (self.rank + 1) // self.size)


ALONE = Shard()


def train_step(runs: Sequence[Run], llm: FrozenLLM, shard: Shard = ALONE) -> dict[Run, Exception]:
    """One optimiser step of each run; the LLM goes forward and backward once for all.

    Each run's loss is the mean over its own real target tokens, so that it does not depend on its
    neighbours. The prompt is that of their shared inputs.

    Returns what ended a run, by run; the others have made their step as they would have alone.
    """
    ended: dict[Run, Exception] = {}
    # Kept because the step may have to be made again, alone and with the same dropout.
    before = [run.streams.dropout_state for run in runs]
    batches = [run.next_batch() for run in runs]
    try:
        means = _backward(runs, batches, llm, shard)
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to one of the runs
        if len(runs) == 1:
            return {runs[0]: named(error, runs[0].config.training, runs[0])}
        # Which run it belongs to shows when each makes its step alone. Their memory goes first:
        # after an out-of-memory error the next attempt would only fail again.
        del batches
        for run, state in zip(runs, before, strict=True):
            run.streams.dropout_state = state
            run.optimizer.zero_grad(set_to_none=True)
        free_device_memory()
        for run in runs:
            ended |= train_step([run], llm, shard)
        return ended
    for run, batch, mean in zip(runs, batches, means, strict=True):
        if shard.size > 1:
            _sum_over_workers([mean, *_gradients(run)])
        try:
            run.update(mean, int(batch.counts.sum()))
        except Exception as error:  # noqa: BLE001 - the next run's update must go on
            ended[run] = named(error, run.config.training, run)
    return ended


def _backward(
    runs: Sequence[Run], batches: Sequence[Batch], llm: FrozenLLM, shard: Shard
) -> list[Tensor]:
    """The gradients of every run; returns their losses, of this shard's rows alone."""
    soft = [run.soft_tokens(batch) for run, batch in zip(runs, batches, strict=True)]
    parts = [shard.of(len(batch.counts)) for batch in batches]
    own = [
        Rows(tokens[part], batch.token_ids[part], batch.counts[part])
        for tokens, batch, part in zip(soft, batches, parts, strict=True)
    ]
    losses = llm.joint_losses(own, runs[0].inputs.prompt)
    per_run = losses.split([int(rows.counts.sum()) for rows in own])
    # Divided by the tokens of the whole batch, not of this shard: the sum over the workers then is
    # the mean that one worker would have.
    totals = [int(batch.counts.sum()) for batch in batches]
    means = [part.sum() / total for part, total in zip(per_run, totals, strict=True)]
    # The sum keeps the runs apart: no gradient of one depends on another's loss.
    torch.stack(means).sum().backward()
    return [mean.detach() for mean in means]


def named(error: Exception, config: TrainingConfig, run: Run | None = None) -> Exception:
    """The device's out-of-memory error becomes the trial's; any other stays."""
    if not isinstance(error, torch.OutOfMemoryError):
        return error
    step = run.step + 1 if run else 0
    return OutOfMemoryError(
        f"no memory left on the device at step {step} (batch_size {config.batch_size}): "
        f"{str(error).splitlines()[0]}",
        step,
    )


@contextmanager
def out_of_memory_named(config: TrainingConfig, run: Run | None = None) -> Iterator[None]:
    """Turns the device's out-of-memory error into the trial's."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise named(error, config, run) from None


def _gradients(run: Run) -> list[Tensor]:
    """Every worker has the same parameters in the same order, each with a gradient."""
    parameters = run.encoder.get_trainable_parameters()
    for parameter in parameters:
        if parameter.grad is None:  # a shard without rows; the all-reduce wants equal shapes
            parameter.grad = torch.zeros_like(parameter)
    return [p.grad for p in parameters if p.grad is not None]


def _sum_over_workers(tensors: list[Tensor]) -> None:
    """One all-reduce for all; the tensors are changed in place."""
    flat = torch.cat([t.reshape(-1) for t in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))
