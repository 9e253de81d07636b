"""The dedicated execution: a Ray Train run for each trial."""

from __future__ import annotations

from trainables.inputs.find_or_prepare import find_or_prepare
from trainables.workers.object_store import put_inputs
from tuning.config.sweep import DedicatedExecution
from tuning.execution.cluster import check_slots
from tuning.execution.execution import (
    Execution,
    ExecutionContext,
    check_searched,
    describe_inputs,
    trial_class,
)
from tuning.execution.mailbox import open_mailbox


def open_dedicated(context: ExecutionContext, dedicated: DedicatedExecution) -> Execution:
    from tuning.execution.dedicated_trial import DedicatedTrial, TrialSettings

    train, cluster = context.config.train, context.cluster
    workers = dedicated.workers_per_trial
    check_slots(cluster, workers, "execution.workers_per_trial")
    concurrent = min(cluster.slots // workers, context.most_trials)
    inputs, origin = find_or_prepare(
        train, cluster.has_gpu, say=context.say, interrupt=context.interrupt
    )
    describe_inputs(inputs, origin, context.say)
    check_searched(context.config, inputs)
    context.say(f"      {concurrent} trials at a time, {workers} Ray Train workers each")
    settings = TrialSettings(train, put_inputs(inputs), open_mailbox(), workers, context.train_runs)
    trainable = trial_class(DedicatedTrial, settings)
    return Execution(
        trainable,
        lambda: concurrent,
        concurrent,
        len(inputs.tool_names),
        inputs.hidden_size,
        inputs.prompt,
    )
