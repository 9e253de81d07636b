"""The dedicated execution: a Ray Train run for each trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ray import tune

from trainables.config import PretrainConfig
from trainables.inputs.find_or_prepare import find_or_prepare
from trainables.workers.object_store import put_inputs
from tuning.config.sweep import DedicatedExecution, SweepConfig
from tuning.execution.cluster import Cluster, check_slots
from tuning.execution.execution import (
    TRAIN_RUNS_DIR,
    Execution,
    Say,
    check_searched_heads,
    describe_inputs,
)
from tuning.execution.mailbox import open_mailbox


def open_dedicated(
    directory: Path,
    config: SweepConfig,
    dedicated: DedicatedExecution,
    train: PretrainConfig,
    cluster: Cluster,
    say: Say,
    interrupt: Callable[[], None],
) -> Execution:
    from tuning.execution.dedicated_trial import DedicatedTrial, TrialSettings

    workers = dedicated.workers_per_trial
    check_slots(cluster, workers, "execution.workers_per_trial")
    fits = cluster.slots // workers
    concurrent = min(fits, config.max_concurrent or fits, config.num_trials)
    inputs, origin = find_or_prepare(train, cluster.has_gpu, say=say, interrupt=interrupt)
    describe_inputs(inputs, origin, say)
    check_searched_heads(config, train, inputs)
    say(f"      {concurrent} trials at a time, {workers} Ray Train workers each")
    settings = TrialSettings(
        train, put_inputs(inputs), open_mailbox(), workers, directory / TRAIN_RUNS_DIR
    )
    trainable = tune.with_parameters(DedicatedTrial, settings=settings)
    return Execution(
        trainable, lambda: concurrent, concurrent, len(inputs.tool_names), inputs.hidden_size
    )
