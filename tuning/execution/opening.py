"""Everything that must stand before the first trial, by the execution that is configured."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trainables.config import PretrainConfig
from trainables.inputs.cache import prepared_path
from trainables.training.startup_time import announcement, expected_initialisation, registry_prompts
from tuning.config.sweep import DedicatedExecution, PackedExecution, SweepConfig
from tuning.execution.cluster import Cluster
from tuning.execution.dedicated import open_dedicated
from tuning.execution.execution import TRAIN_RUNS_DIR, Execution, Say
from tuning.execution.packed import open_packed


@contextmanager
def open_execution(
    directory: Path,
    config: SweepConfig,
    train: PretrainConfig,
    cluster: Cluster,
    say: Say,
    interrupt: Callable[[], None],
) -> Iterator[Execution]:
    """Everything that must stand before the first trial; given back at the end.

    ``interrupt`` is called while it waits, and may raise.
    """
    cached = prepared_path(train, cluster.has_gpu)
    prompts = [] if cached and cached.is_file() else registry_prompts(train)
    expected = expected_initialisation(train, prompts, cluster.has_gpu)
    if line := announcement(expected, train.model.cache_dir):
        say(f"      {line}")
    try:
        match config.execution:
            case PackedExecution() as packed:
                with open_packed(
                    directory, config, packed, train, cluster, say, interrupt
                ) as execution:
                    yield execution
            case DedicatedExecution() as dedicated:
                yield open_dedicated(directory, config, dedicated, train, cluster, say, interrupt)
    finally:
        shutil.rmtree(directory / TRAIN_RUNS_DIR, ignore_errors=True)
