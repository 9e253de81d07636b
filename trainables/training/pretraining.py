"""One run from its first epoch to its last, in time order."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean

import torch

from trainables.config import PretrainConfig
from trainables.errors import DivergedError, GateStuckError
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.frozen import FrozenLLM
from trainables.metrics import Metrics, scalars
from trainables.statuses import Status
from trainables.training.batches import DeviceInputs
from trainables.training.checkpoint import load_checkpoint
from trainables.training.diagnosis import GATE_STUCK, diagnose
from trainables.training.ending import is_over
from trainables.training.evaluation import evaluate, field_accuracy
from trainables.training.reports import EpochReport
from trainables.training.run import Run
from trainables.training.step import ALONE, Shard, out_of_memory_named, train_step


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
        self.history: list[Metrics] = []
        self.on_step: Callable[[Run], None] = lambda run: None
        self._lineage: tuple[Metrics, ...] = ()

    @property
    def finished(self) -> bool:
        return is_over(self.history, self.run.config.training)

    def resume(self, checkpoint: Path, *, inherited: bool = False) -> None:
        """Go on from a checkpoint, another run's if ``inherited``; see ``load_checkpoint``."""
        self.history = load_checkpoint(checkpoint, self.run, inherited=inherited)
        self._lineage = tuple(self.history) if inherited else ()

    def reports(self) -> Iterator[EpochReport]:
        """Train epoch by epoch, to the last epoch or the one that ends the run before.

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
            if report.last:
                return

    def end_epoch(self) -> EpochReport:
        """Evaluate after an epoch's last step; the report of the epoch."""
        run = self.run
        config = run.config.training
        with out_of_memory_named(config, run):
            metrics = self._evaluated()
            finished = is_over([*self.history, metrics], config)
            if finished and config.field_accuracy_samples:
                metrics["field_accuracy"] = field_accuracy(
                    run, self.llm, config.field_accuracy_samples
                )
        self.history.append(scalars(metrics))
        findings = tuple(diagnose(self.history, run.facts()))
        status, message = Status.FINISHED if finished else Status.RUNNING, ""
        stuck = [finding for finding in findings if finding.id == GATE_STUCK]
        if stuck and config.stop_stuck_gates and not finished:
            status, message = GateStuckError.status, stuck[0].text
        lineage, self._lineage = self._lineage, ()
        return EpochReport(self.history[-1], run.series.told(), status, message, findings, lineage)

    def _evaluated(self) -> Metrics:
        run, series = self.run, self.run.series
        run.check_finite()  # waits for the device, so that the time below is the steps'
        seconds = time.perf_counter() - series.started
        val_loss, retention = evaluate(run, self.llm)
        if not math.isfinite(val_loss):
            raise DivergedError(f"val_loss is {val_loss} after step {run.step}", run.step)
        # Only now: what raised above leaves the run in the epoch that did not become whole.
        run.epoch += 1
        return {
            "train_loss": fmean(series.column("loss")),
            "val_loss": val_loss,
            "gate_alpha": series.column("gate_alpha")[-1],
            "semantic_retention": retention,
            "learning_rate": series.learning_rate[-1],
            "grad_norm": fmean(series.column("grad_norm")),
            "gate_grad_norm": fmean(series.column("gate_grad_norm")),
            "epoch": run.epoch,
            "step": run.step,
            "steps_per_s": len(series) / seconds,
            "tokens_per_s": series.tokens / seconds,
            "peak_memory_mib": _peak_memory_mib(run.inputs.device),
        }


def set_determinism(deterministic: bool | None, device: torch.device) -> None:
    wanted = device.type == "cpu" if deterministic is None else deterministic
    torch.use_deterministic_algorithms(wanted, warn_only=True)
    # Meant to make reads of unwritten memory show; a twentieth of a step on a CPU.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _peak_memory_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
