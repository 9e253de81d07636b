"""Everything that must stand before the first trial, by the execution that is configured."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from trainables.inputs.cache import unread_prompts
from trainables.training.startup_time import announce
from tuning.config.sweep import DedicatedExecution, PackedExecution
from tuning.execution.dedicated import open_dedicated
from tuning.execution.execution import Execution, ExecutionContext
from tuning.execution.packed import open_packed


@contextmanager
def open_execution(context: ExecutionContext) -> Iterator[Execution]:
    """Everything that must stand before the first trial; given back at the end."""
    train, has_gpu = context.config.train, context.cluster.has_gpu
    announce(train, unread_prompts(train, has_gpu), has_gpu, context.say)
    try:
        match context.config.execution:
            case PackedExecution() as packed:
                with open_packed(context, packed) as execution:
                    yield execution
            case DedicatedExecution() as dedicated:
                yield open_dedicated(context, dedicated)
    finally:
        shutil.rmtree(context.train_runs, ignore_errors=True)
