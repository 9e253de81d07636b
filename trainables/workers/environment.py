"""What every Ray Train run of ours shares: environment variables, scaling, restarts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray
import ray.train

# The trial that drives a run and the run's controller load this module, too. What only workers
# need (torch, transformers) is imported where it is used: seconds per process.
if TYPE_CHECKING:
    import torch

CONTROLLER_RESTARTS = 3
# Ray's defaults make a report wait up to two seconds and add a process per run; they are read
# from the environment of every process of the run.
POLL_INTERVAL = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
# No report of a packed run passes through the controller: it only looks whether the hosts live,
# and each look takes time from their training.
FLEET_ENVIRONMENT = {POLL_INTERVAL: "0.5"}
RAY_TRAIN_ENVIRONMENT = {
    POLL_INTERVAL: "0.05",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
    "RAY_TRAIN_V2_ENABLED": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it cuBLAS does not repeat itself
}


# How often an elastic fleet looks for machines that have joined; Ray's own is once a minute.
NEW_MACHINES_SECONDS = 15.0


def scaling_config(workers: int | tuple[int, int]) -> ray.train.ScalingConfig:
    """So many workers, or between two numbers; a GPU each where there are any, else a core."""
    use_gpu = ray.cluster_resources().get("GPU", 0) > 0
    return ray.train.ScalingConfig(
        num_workers=workers,
        use_gpu=use_gpu,
        resources_per_worker=None if use_gpu else {"CPU": 1},
        elastic_resize_monitor_interval_s=NEW_MACHINES_SECONDS,
    )


def run_config(
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


def own_device() -> torch.device:
    """The GPU that this worker was given; the CPU where there is none."""
    import torch

    from trainables.llm.frozen import select_device

    if not torch.cuda.is_available():
        return select_device()
    from ray.train.torch import get_device  # what a host has imported so far is without it

    return get_device()
