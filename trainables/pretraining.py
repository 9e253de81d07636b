"""The pretraining of one or more resource encoders against one frozen LLM, in time order."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from trainables.checkpoint import load_checkpoint
from trainables.config import PretrainConfig, TrainingConfig
from trainables.data.dataset import SharedInputs
from trainables.data.templates import parse
from trainables.diagnosis import GATE_STUCK, diagnose
from trainables.errors import DivergedError, GateStuckError, OutOfMemoryError
from trainables.llm.frozen import FrozenLLM, free_device_memory
from trainables.metrics import LINEAGE, scalars
from trainables.models.encoder import evaluating
from trainables.models.features import FIGURES
from trainables.run import Batch, DeviceInputs, Run

EVALUATION_BATCH = 64
Report = dict[str, Any]


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

    K runs' soft tokens are concatenated, [sum of their batch sizes, D]; each run's loss is the
    mean over its own real target tokens, so that it does not depend on its neighbours.

    Returns what ended a run, by run; the others have made their step as they would have alone.
    """
    ended: dict[Run, Exception] = {}
    before = [run.streams.dropout_state for run in runs]
    batches = [run.next_batch() for run in runs]
    try:
        means = _backward(runs, batches, llm, shard)
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to one of the runs
        if len(runs) == 1:
            return {runs[0]: named(error, runs[0].config.training, runs[0])}
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
    own = list(zip(soft, batches, parts, strict=True))
    losses = llm.token_losses(
        torch.cat([s[part] for s, _, part in own]),
        _stack_texts([b.token_ids[part] for _, b, part in own]),
        torch.cat([b.counts[part] for _, b, part in own]),
    )
    per_run = losses.split([int(b.counts[part].sum()) for _, b, part in own])
    totals = [int(batch.counts.sum()) for batch in batches]
    means = [part.sum() / total for part, total in zip(per_run, totals, strict=True)]
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


def evaluate(run: Run, llm: FrozenLLM) -> tuple[float, float]:
    """Mean loss per token and semantic retention on the held-out configurations.

    Row i is read in template i mod K, always the same, so that epochs can be compared.
    """
    losses: list[Tensor] = []
    cosines: list[Tensor] = []
    with torch.no_grad(), evaluating(run.encoder):
        for batch in _validation_batches(run.inputs):
            soft = run.encoder(batch.tool_index, batch.features)
            losses.append(llm.token_losses(soft, batch.token_ids, batch.counts))
            semantic = run.encoder.semantic_embeddings[batch.tool_index]
            cosines.append(torch.cosine_similarity(soft, semantic, dim=-1))
    return float(torch.cat(losses).mean()), float(torch.cat(cosines).mean())


def field_accuracy(run: Run, llm: FrozenLLM, samples: int) -> float:
    """Share of the six figures that greedy decoding writes exactly as the target text does.

    On the first ``samples`` held-out configurations, evenly spread; the sentence may follow any
    template, and one that follows none gets all six wrong.
    """
    rows = run.inputs.val_rows
    count = min(samples, len(rows))
    places = (torch.arange(count) * len(rows)) // count
    limit = min(int(run.inputs.source.token_counts.max()) + 4, llm.max_tokens - 1)
    right = 0
    with torch.no_grad(), evaluating(run.encoder):
        for part in places.split(EVALUATION_BATCH):
            chosen = rows[part].to(run.inputs.device)
            soft = run.encoder(run.inputs.tool_index[chosen], run.inputs.features[chosen])
            for place, text in zip(part.tolist(), llm.write(soft, limit), strict=True):
                said = parse(text) or {}
                truth = zip(FIGURES, run.inputs.source.written_figures[place], strict=True)
                right += sum(said.get(name) == value for name, value in truth)
    return right / (count * len(FIGURES))


class Pretraining:
    """One run from its first epoch to its last, or from a checkpoint on.

    ``history`` has the figures of every epoch, those before a checkpoint included.
    """

    def __init__(
        self,
        config: PretrainConfig,
        inputs: SharedInputs | DeviceInputs,
        llm: FrozenLLM,
        shard: Shard = ALONE,
    ) -> None:
        if isinstance(inputs, SharedInputs):
            inputs = DeviceInputs(inputs, llm.device)
        self.llm = llm
        self.shard = shard
        with out_of_memory_named(config.training):
            self.run = Run(config, inputs)
        self.history: list[Report] = []
        self.on_step: Callable[[Run], None] = lambda run: None
        self._lineage: list[Report] = []

    @property
    def finished(self) -> bool:
        return self.run.epoch >= self.run.config.training.num_epochs

    def resume(self, checkpoint: Path, *, inherited: bool = False) -> None:
        """Go on from a checkpoint, another run's if ``inherited``; see ``load_checkpoint``."""
        self.history = load_checkpoint(checkpoint, self.run, inherited=inherited)
        self._lineage = list(self.history) if inherited else []

    def reports(self) -> Iterator[Report]:
        """Train epoch by epoch; every report has the keys of ``metrics`` and the step series.

        ``findings`` are what a diagnosis says of the run, ``last`` and ``outcome`` whether it ends.

        Raises DivergedError or OutOfMemoryError; the encoder then is as before the bad update.
        """
        set_determinism(self.run.config.training.deterministic, self.run.inputs.device)
        while not self.finished:
            self.run.begin_epoch()
            while self.run.in_epoch:
                for error in train_step([self.run], self.llm, self.shard).values():
                    raise error
                self.on_step(self.run)
            report = self.end_epoch()
            yield report
            if report["last"]:
                return

    def end_epoch(self) -> Report:
        """Evaluate after an epoch's last step; the report of the epoch."""
        run = self.run
        config = run.config.training
        with out_of_memory_named(config, run):
            report = self._evaluated()
            reached = config.target_loss is not None and report["val_loss"] <= config.target_loss
            finished = reached or self.finished
            if finished and config.field_accuracy_samples:
                report["field_accuracy"] = field_accuracy(
                    run, self.llm, config.field_accuracy_samples
                )
        self.history.append(scalars(report))
        report.update(outcome="finished" if finished else "running", message="", findings=[])
        for finding in diagnose(self.history, run.facts()):
            report["findings"].append(asdict(finding))
            if finding.id == GATE_STUCK and config.stop_stuck_gates and not finished:
                report.update(outcome=GateStuckError.status, message=finding.text)
        report["last"] = report["outcome"] != "running"
        if self._lineage:
            report[LINEAGE], self._lineage = self._lineage, []
        return report

    def _evaluated(self) -> Report:
        run, series = self.run, self.run.series
        run.check_finite()  # waits for the device, so that the time below is the steps'
        seconds = time.perf_counter() - series.started
        val_loss, retention = evaluate(run, self.llm)
        if not math.isfinite(val_loss):
            raise DivergedError(f"val_loss is {val_loss} after step {run.step}", run.step)
        run.epoch += 1
        losses, alphas = series.column("loss"), series.column("gate_alpha")
        return {
            "train_loss": fmean(losses),
            "val_loss": val_loss,
            "gate_alpha": alphas[-1],
            "semantic_retention": retention,
            "learning_rate": series.learning_rate[-1],
            "grad_norm": fmean(series.column("grad_norm")),
            "gate_grad_norm": fmean(series.column("gate_grad_norm")),
            "epoch": run.epoch,
            "step": run.step,
            "steps_per_s": len(series) / seconds,
            "tokens_per_s": series.tokens / seconds,
            "peak_memory_mib": _peak_memory_mib(run.inputs.device),
            "series_loss": losses,
            "series_gate_alpha": alphas,
            "series_learning_rate": series.learning_rate,
        }


@contextmanager
def out_of_memory_named(config: TrainingConfig, run: Run | None = None) -> Iterator[None]:
    """Turns the device's out-of-memory error into the trial's."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise named(error, config, run) from None


def _validation_batches(inputs: DeviceInputs) -> Iterator[Batch]:
    """All held-out rows, of like length together."""
    templates = torch.arange(len(inputs.val_rows)) % inputs.num_templates
    by_length = inputs.token_counts[inputs.val_rows, templates].argsort(stable=True)
    for places in by_length.split(EVALUATION_BATCH):
        yield inputs.batch(inputs.val_rows[places], templates[places])


def _stack_texts(texts: Sequence[Tensor]) -> Tensor:
    """[B_k, L_k] each -> [sum B_k, max L_k], right-padded with 0."""
    longest = max(t.shape[1] for t in texts)
    return torch.cat([torch.nn.functional.pad(t, (0, longest - t.shape[1])) for t in texts])


def _gradients(run: Run) -> list[Tensor]:
    """Every worker has the same parameters in the same order, each with a gradient."""
    parameters = run.encoder.get_trainable_parameters()
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [p.grad for p in parameters if p.grad is not None]


def _sum_over_workers(tensors: list[Tensor]) -> None:
    """One all-reduce for all; the tensors are changed in place."""
    flat = torch.cat([t.reshape(-1) for t in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


def set_determinism(deterministic: bool | None, device: torch.device) -> None:
    wanted = device.type == "cpu" if deterministic is None else deterministic
    torch.use_deterministic_algorithms(wanted, warn_only=True)
    # Meant to make reads of unwritten memory show; a twentieth of a step on a CPU.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _peak_memory_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
