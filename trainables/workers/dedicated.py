"""The Ray Train worker of a dedicated run: one training, alone or with others of its group."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import ray.train

from trainables.config import PretrainConfig
from trainables.errors import OutOfMemoryError, TrialEndedError
from trainables.training.reports import Ending, EpochReport, to_plain
from trainables.training.startup_time import lateness
from trainables.workers.environment import own_device, run_config, scaling_config
from trainables.workers.object_store import get_inputs

# The trial that drives a run and the run's controller load this module, too. What only workers
# need (torch, transformers) is imported where it is used: seconds per process.
if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

    from trainables.training.pretraining import Pretraining

WORKER_RESTARTS = 1  # then the trial itself is retried, from its own checkpoint


@dataclass(frozen=True)
class WorkerSettings:
    """What every worker of one training gets; ``checkpoint`` is where to go on from."""

    config: PretrainConfig
    inputs: ray.ObjectRef
    checkpoint: str | None = None
    inherited: bool = False


def train_worker(loop_config: dict[str, Any]) -> None:
    """Train one run, with the other workers of its group, and report after every epoch.

    What a run that cannot go on says last is an ``Ending``.
    """
    began = time.perf_counter()
    from trainables.llm.frozen import load_llm
    from trainables.training.pretraining import Pretraining
    from trainables.training.step import Shard, out_of_memory_named

    settings: WorkerSettings = loop_config["settings"]
    context = ray.train.get_context()
    shard = Shard(context.get_world_rank(), context.get_world_size())
    device = own_device()
    config = settings.config
    pretraining: Pretraining | None = None
    try:
        with out_of_memory_named(config.training):
            llm = load_llm(config, device)
            pretraining = Pretraining(config, get_inputs(settings.inputs), llm, shard)
            with _starting_point(settings) as directory:
                if directory is not None:
                    pretraining.resume(directory, inherited=settings.inherited)
        late = lateness(config, began, [], device.type == "cuda")
        for report in pretraining.reports():
            if late:
                report, late = replace(report, findings=(*report.findings, late)), None
            _report(report, pretraining)
    except TrialEndedError as error:
        if shard.size > 1 and isinstance(error, OutOfMemoryError):
            raise  # the others are waiting for this worker: the whole group has to end
        history = pretraining.history if pretraining else []
        ending = Ending(error.status, error.message, *history[-1:])
        ray.train.report(to_plain(ending) if shard.rank == 0 else {})


def make_trainer(
    settings: WorkerSettings,
    *,
    name: str,
    storage_path: str,
    workers: int,
    callbacks: Sequence[Any],
) -> TorchTrainer:
    """A Ray Train run of ``workers`` workers, one GPU each where the cluster has them.

    It keeps every checkpoint: whoever reads its reports removes those that were read.
    """
    from ray.train.torch import TorchConfig, TorchTrainer

    scaling = scaling_config(workers)
    return TorchTrainer(
        train_worker,
        train_loop_config={"settings": settings},
        torch_config=TorchConfig(backend="nccl" if scaling.use_gpu else "gloo"),
        scaling_config=scaling,
        run_config=run_config(name, storage_path, callbacks, WORKER_RESTARTS),
    )


@contextmanager
def _starting_point(settings: WorkerSettings) -> Iterator[Path | None]:
    """This run's own newest checkpoint after a worker's death, else the one it was given."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None and settings.checkpoint is not None:
        checkpoint = ray.train.Checkpoint(settings.checkpoint)
    if checkpoint is None:
        yield None
        return
    with checkpoint.as_directory() as directory:
        yield Path(directory)


def _report(report: EpochReport, pretraining: Pretraining) -> None:
    """Every worker takes part; the first one carries the figures and the checkpoint."""
    if pretraining.shard.rank != 0:
        ray.train.report({})
        return
    from trainables.training.checkpoint import write_checkpoint

    with tempfile.TemporaryDirectory() as directory:
        write_checkpoint(Path(directory), pretraining.run, pretraining.history)
        checkpoint = ray.train.Checkpoint.from_directory(directory)
        ray.train.report(to_plain(report), checkpoint=checkpoint)
