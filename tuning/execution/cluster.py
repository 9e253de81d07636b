"""The Ray cluster a sweep runs on: started here or joined, with its chatter sent to a file."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ray

from trainables.errors import UserError
from trainables.text import TEXT_AS_UTF8
from trainables.workers.environment import RAY_TRAIN_ENVIRONMENT
from tuning.execution.finding_ray import FoundRay, RayStartError
from tuning.execution.process_state import (
    environment,
    files_in_utf8,
    logged_to,
    signal_handlers_kept,
)
from tuning.ray_internals import ray_directory
from tuning.terminal import PROJECT

NEVER = "1000000000"
ENVIRONMENT = {
    **RAY_TRAIN_ENVIRONMENT,
    # The sweep has a history of its own. A snapshot of Tune's at the end is for those who read it.
    "TUNE_GLOBAL_CHECKPOINT_S": NEVER,
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # A trial that diverges in its first epoch has no val_loss, and field_accuracy is known only at
    # the end. SweepCallback sees to it that no epoch is without its figures.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # TensorBoard's takes most of a driver's time
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own table; the sweep has a better one
}


@dataclass(frozen=True)
class Cluster:
    """What the cluster offers; a slot is a GPU, or a core where there are none."""

    slots: int
    has_gpu: bool
    dashboard: str | None
    joined: bool = False  # others started it, and may add machines to it or take them away


@contextlib.contextmanager
def ray_cluster(found: FoundRay, log_file: Path) -> Iterator[Cluster]:
    """Join the cluster that ``find_ray`` has found, else start one for the time of the block.

    What is set in the environment already stays; all that is changed of this process is put back.
    Raises RayStartError, and leaves no file of its own, where there is no cluster to be had.
    """
    # Ray prints some warnings straight to the terminal; those belong to the file, too.
    with (
        _as_it_was(log_file),
        environment({k: v for k, v in ENVIRONMENT.items() if k not in os.environ}),
        environment(TEXT_AS_UTF8),  # a setting to the contrary is of this terminal, not of files
        environment(found.environment),
        files_in_utf8(),
        signal_handlers_kept(),
        logged_to(log_file),
        log_file.open("a", encoding="utf-8", errors="backslashreplace") as chatter,
        contextlib.redirect_stderr(chatter),
        contextlib.redirect_stdout(chatter),
    ):
        try:
            context = ray.init(
                address=found.address,
                log_to_driver=False,
                logging_level=logging.WARNING,
                include_dashboard=True,
                configure_logging=False,
                runtime_env=_runtime_env(str(PROJECT)) if found.joined else None,
            )
        except Exception as error:  # Ray has no class of its own for it
            ray.shutdown()
            raise RayStartError(f"{error}{_own_logs()}") from error
        try:
            resources = ray.cluster_resources()
            gpus = int(resources.get("GPU", 0))
            yield Cluster(
                slots=gpus or int(resources.get("CPU", 0)),
                has_gpu=gpus > 0,
                dashboard=context.dashboard_url or None,
                joined=found.joined,
            )
        finally:
            ray.shutdown()


def _own_logs() -> str:
    """Where a Ray that this process has begun to start says more; empty where there is none."""
    sessions = sorted(ray_directory().glob(f"session_*_{os.getpid()}"))
    return f" Its logs: {sessions[-1] / 'logs'}" if sessions else ""


@contextlib.contextmanager
def _as_it_was(file: Path) -> Iterator[None]:
    """Where no cluster is to be had, ``file`` and its folders are as before the block."""
    size = file.stat().st_size if file.is_file() else 0
    made = [path for path in (file, *file.parents) if not path.exists()]
    try:
        yield
    except RayStartError:
        with contextlib.suppress(OSError):
            os.truncate(file, size)
        for path in made:
            with contextlib.suppress(OSError):
                path.unlink() if path == file else path.rmdir()
        raise


def _runtime_env(project: str) -> dict[str, object]:
    """A joined cluster's processes do not inherit this process's environment."""
    return {"env_vars": {**ENVIRONMENT, **TEXT_AS_UTF8, "PYTHONPATH": project}}


def check_slots(cluster: Cluster, workers: int, key: str) -> None:
    """A trial that can never be placed would wait for ever."""
    if workers > cluster.slots:
        unit = "GPUs" if cluster.has_gpu else "CPU cores"
        raise UserError(
            f"`{key}` is {workers}, but the cluster has "
            f"{cluster.slots} {unit}; lower it or add machines"
        )
