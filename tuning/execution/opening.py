"""Everything that must stand before the first trial, by the execution that is configured."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trainables.config import PretrainConfig
from trainables.inputs.cache import unread_prompts
from trainables.training.startup_time import announce
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
    announce(train, unread_prompts(train, cluster.has_gpu), cluster.has_gpu, say)
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
