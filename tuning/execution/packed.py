"""The packed execution: a fleet of hosts, its lanes shared by all trials."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from trainables.inputs.cache import find_inputs
from trainables.inputs.find_or_prepare import FROM_CACHE
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.verdict import known_verdict
from trainables.packing.protocol import LANES_IN_TURN
from trainables.workers.environment import FLEET_ENVIRONMENT
from trainables.workers.host import HostSettings
from trainables.workers.link import BoardActor
from trainables.workers.object_store import put_inputs
from trainables.workers.shared_storage import shared_file
from tuning.config.sweep import PackedExecution
from tuning.execution.cluster import check_slots
from tuning.execution.execution import (
    Execution,
    ExecutionContext,
    check_searched,
    describe_inputs,
    trial_class,
)
from tuning.execution.fleet import Fleet, FleetCallback
from tuning.execution.packed_trial import PackedSettings, PackedTrial
from tuning.execution.process_state import environment
from tuning.execution.switchboard import open_switchboard
from tuning.history.manifest import MANIFEST_FILE
from tuning.terminal import duration

LONG_SECONDS = 60.0  # of a shorter sweep nobody needs to know what is left


@contextmanager
def open_packed(context: ExecutionContext, packed: PackedExecution) -> Iterator[Execution]:
    train, has_gpu = context.config.train, context.cluster.has_gpu
    hosts, lanes = _hosts(context, packed), _known_lanes(context, packed)
    inputs = find_inputs(train, has_gpu)
    reference = put_inputs(inputs) if inputs else None
    board = BoardActor(open_switchboard())
    joined = context.cluster.joined  # one that we started is this machine
    storage = shared_file(context.train_runs.parent / MANIFEST_FILE) if joined else None
    settings = HostSettings(train, reference, board, lanes, hosts, joined, storage)
    # The hosts start first: loading the LLM takes longest.
    with _fleet(context, settings) as fleet:
        origin = FROM_CACHE if inputs else "prepared by the first host"
        inputs = inputs or fleet.inputs()
        describe_inputs(inputs, origin, context.say)
        if known_verdict(train.model) is None:  # the first host finds out
            fleet.hosts(1)
        check_searched(context.config, inputs)
        yield _execution(context, settings, fleet, inputs)


@contextmanager
def _fleet(context: ExecutionContext, settings: HostSettings) -> Iterator[Fleet]:
    """Hosts that start, and end with the block."""
    with environment(FLEET_ENVIRONMENT):
        fleet = Fleet(settings, context.train_runs, context.interrupt, context.say)
        try:
            yield fleet
        finally:
            fleet.close()


def _hosts(context: ExecutionContext, packed: PackedExecution) -> int:
    """The most that the fleet will have; no more than there can be trials at a time."""
    cluster = context.cluster
    hosts = cluster.slots if packed.hosts == "auto" else packed.hosts
    # Of a joined cluster the fleet takes what there is, and more when it grows.
    check_slots(cluster, 1 if cluster.joined else hosts, "execution.hosts")
    return min(hosts, context.most_trials)


def _known_lanes(context: ExecutionContext, packed: PackedExecution) -> int | None:
    """The lanes of a host; None if only the hosts can measure what fits."""
    if packed.lanes != "auto":
        return packed.lanes
    return None if context.cluster.has_gpu else LANES_IN_TURN


def _execution(
    context: ExecutionContext, settings: HostSettings, fleet: Fleet, inputs: SharedInputs
) -> Execution:
    """Everything stands: how many trials the fleet takes at a time, and the trials themselves."""
    hosts, slots = settings.hosts, context.cluster.slots
    lanes, why = _lanes(settings, fleet)
    concurrent = min(lanes, context.most_trials)
    each = f"{lanes // hosts} lanes each, {why}"
    context.say(f"      {hosts} hosts, {concurrent} trials at a time: {each}")
    if hosts > slots:
        context.say(f"      {slots} of the hosts now, the others when the cluster grows")
    shared = PackedSettings(settings.config, settings.board.handle)
    return Execution(
        trial_class(PackedTrial, shared),
        # Until the hosts are up, more would only take the cores that these need to start.
        lambda: concurrent if fleet.is_up() else min(hosts, concurrent),
        concurrent,
        len(inputs.tool_names),
        inputs.hidden_size,
        inputs.prompt,
        reuse_actors=True,
        callbacks=[FleetCallback(fleet, partial(say_pace, context, min(hosts, slots), inputs))],
        hosts=fleet.describe,
        save=fleet.save,
    )


def say_pace(
    context: ExecutionContext, hosts: int, inputs: SharedInputs, seconds_per_row: float
) -> None:
    """What is left, by the first steps; of a short sweep nothing."""
    # No gradient of a held-out row is computed: it takes half the time.
    rows = len(inputs.train_rows) + 0.5 * len(inputs.val_rows)
    per_epoch, epochs = rows * seconds_per_row, context.epochs_left
    left = epochs * per_epoch / hosts
    if left >= LONG_SECONDS:
        context.say(
            f"      by its first steps an epoch takes a host about {duration(per_epoch)}; about "
            f"{epochs:.0f} epochs, hosts: {hosts}; so about {duration(left)} left"
        )


def _lanes(settings: HostSettings, fleet: Fleet) -> tuple[int, str]:
    """The lanes of all hosts together, and why there are so many."""
    hosts = settings.hosts
    if settings.lanes is not None:
        return hosts * settings.lanes, "each a run of its own, one step after the other"
    # An elastic fleet may begin with one, the others being another sweep's: those to come are
    # taken to be like the first.
    found = fleet.hosts(1 if settings.elastic else hosts)
    lanes = sum(host.lanes for host in found) + found[0].lanes * (hosts - len(found))
    return lanes, found[0].reason
