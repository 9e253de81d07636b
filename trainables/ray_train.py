"""The pretraining loop in Ray Train workers: one run on several, or many runs on one host."""

from __future__ import annotations

import os
import queue
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import ray.train
from ray.actor import ActorHandle

from trainables.assignment import Command
from trainables.config import PretrainConfig
from trainables.errors import OutOfMemoryError, TrialEndedError
from trainables.initialisation import lateness, registry_prompts
from trainables.sharing import get_inputs

# The trial that drives a run and the run's controller load this module, too. What only workers
# need (torch, transformers) is imported where it is used: seconds per process.
if TYPE_CHECKING:
    import torch
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from trainables.data.dataset import SharedInputs
    from trainables.llm.frozen import FrozenLLM
    from trainables.pretraining import Pretraining

WORKER_RESTARTS = 1
HOST_RESTARTS = 20
CONTROLLER_RESTARTS = 3
POLL_SECONDS = 5.0
SAVED = "saved"  # where hosts say that they have saved their runs

# Ray's defaults make a report wait up to two seconds and add a process per run; they are read
# from the environment of every process of the run.
POLL_INTERVAL = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
# No report of a packed run passes through the controller: it only looks whether the hosts live,
# and each look takes time from their training.
FLEET_POLL_SECONDS = "0.5"
RAY_TRAIN_ENVIRONMENT = {
    POLL_INTERVAL: "0.05",
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
    inherited: bool = False


def train_worker(loop_config: dict[str, Any]) -> None:
    """Train one run, with the other workers of its group, and report after every epoch.

    A run that cannot go on ends with a report whose ``outcome`` and ``message`` say why.
    """
    began = time.perf_counter()
    from trainables.llm.frozen import FrozenLLM, select_dtype
    from trainables.pretraining import Pretraining, Shard, out_of_memory_named

    settings: WorkerSettings = loop_config["settings"]
    context = ray.train.get_context()
    shard = Shard(context.get_world_rank(), context.get_world_size())
    device = _device()
    config = settings.config
    pretraining: Pretraining | None = None
    try:
        with out_of_memory_named(config.training):
            dtype = select_dtype(config.training.precision, device)
            llm = FrozenLLM.load(config.model, device, dtype)
            pretraining = Pretraining(config, get_inputs(settings.inputs), llm, shard)
            with _starting_point(settings) as directory:
                if directory is not None:
                    pretraining.resume(directory, inherited=settings.inherited)
        late = lateness(config, began, [], device.type == "cuda")
        for report in pretraining.reports():
            report["findings"] += [asdict(late)] if late else []
            late = None
            _report(report, pretraining)
    except TrialEndedError as error:
        if shard.size > 1 and isinstance(error, OutOfMemoryError):
            raise  # the others are waiting for this worker: the whole group has to end
        history = pretraining.history if pretraining else []
        last = history[-1] if history else {"epoch": 0, "step": 0}
        ending = {**last, "last": True, "outcome": error.status, "message": error.message}
        ray.train.report(ending if shard.rank == 0 else {})


def _device() -> torch.device:
    """The GPU that this worker was given; the CPU where there is none."""
    import torch

    from trainables.llm.frozen import select_device

    if not torch.cuda.is_available():
        return select_device()
    from ray.train.torch import get_device  # what a host has imported so far is without it

    return get_device()


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

    scaling = _scaling(workers)
    return TorchTrainer(
        train_worker,
        train_loop_config={"settings": settings},
        torch_config=TorchConfig(backend="nccl" if scaling.use_gpu else "gloo"),
        scaling_config=scaling,
        run_config=_run_config(name, storage_path, callbacks, WORKER_RESTARTS),
    )


def _scaling(workers: int | tuple[int, int]) -> ray.train.ScalingConfig:
    """So many workers, or between two numbers; a GPU each where there are any, else a core."""
    use_gpu = ray.cluster_resources().get("GPU", 0) > 0
    return ray.train.ScalingConfig(
        num_workers=workers,
        use_gpu=use_gpu,
        resources_per_worker=None if use_gpu else {"CPU": 1},
    )


def _run_config(
    name: str, storage_path: str, callbacks: Sequence[Any], restarts: int
) -> ray.train.RunConfig:
    """A run that gives up at last: Ray's defaults end at the first failure, or never."""
    return ray.train.RunConfig(
        name=name,
        storage_path=storage_path,
        callbacks=list(callbacks),
        failure_config=ray.train.FailureConfig(
            max_failures=restarts, controller_failure_limit=CONTROLLER_RESTARTS
        ),
    )


@dataclass(frozen=True)
class HostSettings:
    """What every host of a fleet gets; ``inputs`` is None if they are still to be prepared."""

    config: PretrainConfig
    inputs: ray.ObjectRef | None
    switchboard: ActorHandle
    lanes: int | None
    hosts: int
    elastic: bool = False


def host_worker(loop_config: dict[str, Any]) -> None:
    """Load the frozen LLM once, then train whatever runs the switchboard puts into the lanes.

    Raises nothing if it cannot start: the switchboard is told, and others stop waiting.
    """
    began = time.perf_counter()
    from trainables.errors import UserError
    from trainables.llm.frozen import FrozenLLM, select_dtype
    from trainables.memory import Footprint
    from trainables.packing import Lanes, budget_of, plan_lanes, serve
    from trainables.run import DeviceInputs

    settings: HostSettings = loop_config["settings"]
    link = SwitchboardLink(settings.switchboard)
    context = ray.train.get_context()
    try:
        device = _device()
        if device.type == "cpu" and hasattr(os, "SCHED_BATCH"):  # who only forwards goes first
            with suppress(OSError):  # a sandbox may forbid it
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        dtype = select_dtype(settings.config.training.precision, device)
        llm = FrozenLLM.load(settings.config.model, device, dtype)
        inputs = DeviceInputs(_shared_inputs(settings, llm), device)
        budget = budget_of(device, context.get_local_world_size())
        footprint = Footprint(llm, inputs)
        plan = plan_lanes(settings.lanes, settings.config, device, footprint, budget)
    except UserError as error:
        link.put("error", error)
        return
    except Exception as error:  # noqa: BLE001 - a restart would only meet it again
        link.put("error", UserError(f"a host could not start: {type(error).__name__}: {error}"))
        return
    prompts = registry_prompts(settings.config) if settings.inputs is None else []
    late = lateness(settings.config, began, prompts, device.type == "cuda")
    about = {
        "pid": os.getpid(),
        "node": context.get_node_rank(),
        "reason": plan.reason,
        "joined": time.time(),
    }
    link.join(plan.lanes, about)
    lanes = Lanes(llm, inputs, footprint, together=plan.together, budget=budget, late=late)
    serve(lanes, link)


class SwitchboardLink:
    """A host's end of the line; a thread listens, so that no step ever waits for a message."""

    def __init__(self, switchboard: ActorHandle) -> None:
        self._switchboard = switchboard
        self._host = uuid.uuid4().hex
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()

    def join(self, lanes: int, about: dict[str, Any]) -> None:
        ray.get(self._switchboard.join.remote(self._host, lanes, about))
        threading.Thread(target=self._listen, name="switchboard", daemon=True).start()

    def put(self, key: str, item: Any) -> None:
        ray.get(self._switchboard.put.remote(key, item))

    def receive(self, wait: bool) -> list[Command]:
        found = [self._commands.get()] if wait else []
        while not self._commands.empty():
            found.append(self._commands.get())
        return found

    def send(self, key: str, report: dict[str, Any]) -> None:
        self._switchboard.report.remote(self._host, key, report)

    def saved(self) -> None:
        self.put(SAVED, self._host)

    def _listen(self) -> None:
        while True:
            try:
                found = ray.get(self._switchboard.commands.remote(self._host, POLL_SECONDS))
            except ray.exceptions.RayError:  # the sweep is gone
                found = [Command("close")]
            for command in found:
                self._commands.put(command)
                if command.kind == "close":
                    return


def make_fleet(
    settings: HostSettings, *, name: str, storage_path: str, callbacks: Sequence[Any]
) -> DataParallelTrainer:
    """A Ray Train run of ``settings.hosts`` hosts; of fewer, while a joined cluster has no more.

    The hosts need no process group: nothing that one computes depends on another. Nor do they
    read Ray datasets, and their placement group ends with the controller that made it: the actors
    that Ray Train starts for these are left out, because the hosts would wait for them.
    """
    from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
        get_or_create_autoscaling_coordinator,
    )
    from ray.train.v2._internal.callbacks import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import (
        PlacementGroupCleanerCallback,
    )
    from ray.train.v2._internal.execution.callback import RayTrainCallback
    from ray.train.v2._internal.state.state_actor import get_or_create_state_actor
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    class FleetTrainer(DataParallelTrainer):
        def _create_default_callbacks(self) -> list[RayTrainCallback]:
            unused = (DatasetsCallback, PlacementGroupCleanerCallback)
            return [c for c in super()._create_default_callbacks() if not isinstance(c, unused)]

    os.environ[POLL_INTERVAL] = FLEET_POLL_SECONDS
    # The controller would make these one after the other, and wait for each.
    get_or_create_state_actor()
    get_or_create_autoscaling_coordinator()
    elastic = settings.elastic and settings.hosts > 1
    return FleetTrainer(
        host_worker,
        train_loop_config={"settings": settings},
        scaling_config=_scaling((1, settings.hosts) if elastic else settings.hosts),
        run_config=_run_config(name, storage_path, callbacks, HOST_RESTARTS),
    )


def _shared_inputs(settings: HostSettings, llm: FrozenLLM) -> SharedInputs:
    """From the object store; if nobody has prepared them yet, the first host does it for all."""
    if settings.inputs is not None:
        return get_inputs(settings.inputs)
    from trainables.data.reading import read_data
    from trainables.preparation import embed_tools, prepare_inputs

    board = settings.switchboard
    if ray.train.get_context().get_world_rank() == 0 and ray.get(board.inputs.remote(0)) is None:
        data = read_data(settings.config)
        embeddings = embed_tools(llm, settings.config, data.tools, lambda line: None)
        ray.get(board.share.remote(prepare_inputs(llm, data, embeddings)))
    while (reference := ray.get(board.inputs.remote(POLL_SECONDS))) is None:
        pass
    return get_inputs(reference[0])


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


def _report(report: dict[str, Any], pretraining: Pretraining) -> None:
    """Every worker takes part; the first one carries the figures and the checkpoint."""
    if pretraining.shard.rank != 0:
        ray.train.report({})
        return
    from trainables.checkpoint import write_checkpoint

    with tempfile.TemporaryDirectory() as directory:
        write_checkpoint(Path(directory), pretraining.run, pretraining.history)
        ray.train.report(report, checkpoint=ray.train.Checkpoint.from_directory(directory))
