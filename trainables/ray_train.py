"""The pretraining loop as a Ray Train worker, and the trainer that wraps it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import ray.train

from trainables.config import PretrainConfig
from trainables.errors import OutOfMemoryError, TrialEndedError
from trainables.metrics import scalars
from trainables.sharing import get_inputs

# The trial that drives a run and the run's controller load this module, too. What only workers
# need (torch, transformers) is imported where it is used: seconds per process.
if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

    from trainables.pretraining import Pretraining

WORKER_RESTARTS = 1
CONTROLLER_RESTARTS = 3

# Ray's defaults make a report wait up to two seconds and add a process per run; they are read
# from the environment of every process of the run.
RAY_TRAIN_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.05",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
    "RAY_TRAIN_V2_ENABLED": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it cuBLAS does not repeat itself
}


@dataclass(frozen=True)
class WorkerSettings:
    """What every worker of one training gets; ``checkpoint`` is where to go on from."""

    config: PretrainConfig
    inputs: ray.ObjectRef
    checkpoint: str | None = None


def train_worker(loop_config: dict[str, Any]) -> None:
    """Train one run, with the other workers of its group, and report after every epoch.

    A run that cannot go on ends with a report whose ``outcome`` and ``message`` say why.
    """
    import torch

    from trainables.checkpoint import load_checkpoint
    from trainables.llm.frozen import FrozenLLM, select_device, select_dtype
    from trainables.pretraining import Pretraining, Shard, out_of_memory_named

    settings: WorkerSettings = loop_config["settings"]
    context = ray.train.get_context()
    shard = Shard(context.get_world_rank(), context.get_world_size())
    device = ray.train.torch.get_device() if torch.cuda.is_available() else select_device()
    config = settings.config
    history: list[dict[str, Any]] = []
    try:
        with out_of_memory_named(config.training):
            dtype = select_dtype(config.training.precision, device)
            llm = FrozenLLM.load(config.model, device, dtype)
            pretraining = Pretraining(config, get_inputs(settings.inputs), llm, shard)
            with _starting_point(settings) as directory:
                if directory is not None:
                    history = load_checkpoint(directory, pretraining.run)
        for report in pretraining.reports():
            history.append(scalars(report))
            report["outcome"] = "finished" if report["last"] else "running"
            _report(report, pretraining, history)
    except TrialEndedError as error:
        if shard.size > 1 and isinstance(error, OutOfMemoryError):
            raise  # the others are waiting for this worker: the whole group has to end
        last = history[-1] if history else {"epoch": 0, "step": 0}
        ending = {**last, "last": True, "outcome": error.status, "message": error.message}
        ray.train.report(ending if shard.rank == 0 else {})


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

    use_gpu = ray.cluster_resources().get("GPU", 0) > 0
    return TorchTrainer(
        train_worker,
        train_loop_config={"settings": settings},
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=use_gpu,
            resources_per_worker=None if use_gpu else {"CPU": 1},
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=storage_path,
            callbacks=list(callbacks),
            failure_config=ray.train.FailureConfig(
                max_failures=WORKER_RESTARTS, controller_failure_limit=CONTROLLER_RESTARTS
            ),
        ),
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


def _report(
    report: dict[str, Any],
    pretraining: Pretraining,
    history: list[dict[str, Any]],
) -> None:
    """Every worker takes part; the first one carries the figures and the checkpoint."""
    if pretraining.shard.rank != 0:
        ray.train.report({})
        return
    from trainables.checkpoint import write_checkpoint

    with tempfile.TemporaryDirectory() as directory:
        write_checkpoint(Path(directory), pretraining.run, history)
        ray.train.report(report, checkpoint=ray.train.Checkpoint.from_directory(directory))
