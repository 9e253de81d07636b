"""The dedicated execution: a Ray Train run for each trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ray import tune

from trainables.config import PretrainConfig
from trainables.inputs.cache import find_inputs, keep_inputs
from trainables.inputs.shared_inputs import SharedInputs
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
    inputs = prepared_inputs(train, cluster.has_gpu, say, interrupt)
    check_searched_heads(config, train, inputs)
    say(f"      {concurrent} trials at a time, {workers} Ray Train workers each")
    settings = TrialSettings(
        train, put_inputs(inputs), open_mailbox(), workers, directory / TRAIN_RUNS_DIR
    )
    trainable = tune.with_parameters(DedicatedTrial, settings=settings)
    return Execution(
        trainable, lambda: concurrent, concurrent, len(inputs.tool_names), inputs.hidden_size
    )


def prepared_inputs(
    train: PretrainConfig, on_gpu: bool, say: Say, interrupt: Callable[[], None] = lambda: None
) -> SharedInputs:
    """The shared inputs from the cache, or prepared here by the LLM.

    ``interrupt`` is called now and then, and may raise.
    """
    inputs = find_inputs(train, on_gpu)
    if inputs is not None:
        describe_inputs(inputs, "from the cache", say)
        return inputs
    from trainables.inputs.checked_data import read_data
    from trainables.inputs.preparing import embed_tools, prepare_inputs
    from trainables.llm.frozen import FrozenLLM, free_device_memory, select_device, select_dtype

    data = read_data(train)
    device = select_device()
    llm = FrozenLLM.load(train.model, device, select_dtype(train.training.precision, device))
    embeddings = embed_tools(llm, train, data.tools, say, interrupt)
    interrupt()
    inputs = prepare_inputs(llm, data, embeddings)
    del llm
    free_device_memory()
    keep_inputs(inputs, train, on_gpu)
    describe_inputs(inputs, "prepared here", say)
    return inputs
