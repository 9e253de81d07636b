"""The Ray Train worker that is a host: one frozen LLM, many runs in its lanes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
import ray.train

from trainables.config import PretrainConfig
from trainables.inputs.cache import unread_prompts
from trainables.inputs.find_or_prepare import find_or_prepare
from trainables.packing.protocol import Board, HostFacts
from trainables.training.startup_time import lateness
from trainables.workers.environment import own_device, run_config, scaling_config
from trainables.workers.link import POLL_SECONDS, BoardActor, SwitchboardLink
from trainables.workers.object_store import get_inputs
from trainables.workers.shared_storage import SharedFile, check_seen

# The trial that drives a run and the run's controller load this module, too. What only workers
# need (torch, transformers) is imported where it is used: seconds per process.
if TYPE_CHECKING:
    from trainables.inputs.shared_inputs import SharedInputs
    from trainables.llm.frozen import FrozenLLM
    from trainables.workers.ray_internals import FleetTrainer

HOST_RESTARTS = 20  # of a whole sweep; a host that dies at once must not be replaced for ever


@dataclass(frozen=True)
class HostSettings:
    """What every host of a fleet gets; ``inputs`` is None if they are still to be prepared.

    ``storage`` is a file of the directory to which checkpoints go.
    """

    config: PretrainConfig
    inputs: ray.ObjectRef | None
    board: BoardActor
    lanes: int | None
    hosts: int
    elastic: bool = False
    storage: SharedFile | None = None


def host_worker(loop_config: dict[str, Any]) -> None:
    """Load and probe the LLM once, then train whatever runs the switchboard puts into the lanes.

    Raises nothing if it cannot start: the switchboard is told, and others stop waiting.
    """
    began = time.perf_counter()
    from trainables.errors import UserError
    from trainables.llm.probe import load_probed_llm
    from trainables.packing.lane_plan import budget_of, plan_lanes
    from trainables.packing.lanes import Lanes, serve
    from trainables.packing.memory import Footprint
    from trainables.training.batches import DeviceInputs

    settings: HostSettings = loop_config["settings"]
    link = SwitchboardLink(settings.board)
    context = ray.train.get_context()
    try:
        if settings.storage is not None:
            check_seen(settings.storage)
        device = own_device()
        if device.type == "cpu" and hasattr(os, "SCHED_BATCH"):  # who only forwards goes first
            with suppress(OSError):  # a sandbox may forbid it
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        config, on_gpu = settings.config, device.type == "cuda"
        prompts = unread_prompts(config, on_gpu) if settings.inputs is None else []
        llm = load_probed_llm(config, device)
        inputs = DeviceInputs(_shared_inputs(settings, llm), device)
        budget = budget_of(device, context.get_local_world_size())
        footprint = Footprint(llm, inputs)
        plan = plan_lanes(settings.lanes, config, device, footprint, budget)
    except UserError as error:
        link.cannot_start(error)
        return
    except Exception as error:  # noqa: BLE001 - a restart would only meet it again
        reason = f"{type(error).__name__}: {error}"
        link.cannot_start(UserError(f"a host could not start: {reason}"))
        return
    late = lateness(config, began, prompts, on_gpu)
    pid, node = os.getpid(), context.get_node_rank()
    link.join(HostFacts(plan.lanes, plan.reason, pid, node, joined=time.time()))
    lanes = Lanes(llm, inputs, footprint, together=plan.together, budget=budget, late=late)
    serve(lanes, link)


def make_fleet(
    settings: HostSettings, *, name: str, storage_path: str, callbacks: Sequence[Any]
) -> FleetTrainer:
    """A Ray Train run of ``settings.hosts`` hosts; of fewer, while a joined cluster has no more."""
    from trainables.workers.ray_internals import FleetTrainer, start_actors_of_train

    start_actors_of_train()
    elastic = settings.elastic and settings.hosts > 1
    return FleetTrainer(
        host_worker,
        train_loop_config={"settings": settings},
        scaling_config=scaling_config((1, settings.hosts) if elastic else settings.hosts),
        run_config=run_config(name, storage_path, callbacks, HOST_RESTARTS),
    )


def _shared_inputs(settings: HostSettings, llm: FrozenLLM) -> SharedInputs:
    """From the object store; if nobody has prepared them yet, the first host does it for all."""
    if settings.inputs is not None:
        return get_inputs(settings.inputs)
    board = settings.board
    if ray.train.get_context().get_world_rank() == 0 and board.ask(Board.inputs, 0) is None:
        inputs, _ = find_or_prepare(settings.config, llm.device.type == "cuda", llm=llm)
        board.ask(Board.share, inputs)
    while (reference := board.ask(Board.inputs, POLL_SECONDS)) is None:
        pass
    return get_inputs(reference[0])
