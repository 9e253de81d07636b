"""The packed execution: a fleet of hosts, its lanes shared by all trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ray import tune

from trainables.config import PretrainConfig
from trainables.inputs.cache import find_inputs
from trainables.inputs.find_or_prepare import FROM_CACHE
from trainables.packing.protocol import LANES_IN_TURN
from trainables.workers.host import HostSettings
from trainables.workers.link import BoardActor
from trainables.workers.object_store import put_inputs
from tuning.config.sweep import PackedExecution, SweepConfig
from tuning.execution.cluster import Cluster, check_slots
from tuning.execution.execution import (
    TRAIN_RUNS_DIR,
    Execution,
    Say,
    check_searched_heads,
    describe_inputs,
)
from tuning.execution.fleet import Fleet, FleetCallback
from tuning.execution.packed_trial import PackedSettings, PackedTrial
from tuning.execution.switchboard import open_switchboard


@contextmanager
def open_packed(
    directory: Path,
    config: SweepConfig,
    packed: PackedExecution,
    train: PretrainConfig,
    cluster: Cluster,
    say: Say,
    interrupt: Callable[[], None],
) -> Iterator[Execution]:
    hosts = cluster.slots if packed.hosts == "auto" else packed.hosts
    # Of a joined cluster the fleet takes what there is, and more when it grows.
    check_slots(cluster, 1 if cluster.joined else hosts, "execution.hosts")
    most = min(config.max_concurrent or config.num_trials, config.num_trials)
    hosts = min(hosts, most)
    known = LANES_IN_TURN if packed.lanes == "auto" and not cluster.has_gpu else packed.lanes
    inputs = find_inputs(train, cluster.has_gpu)
    settings = HostSettings(
        train,
        put_inputs(inputs) if inputs else None,
        BoardActor(open_switchboard()),
        None if known == "auto" else known,
        hosts,
        elastic=cluster.joined,
    )
    fleet = Fleet(settings, directory / TRAIN_RUNS_DIR, interrupt)
    try:
        origin = FROM_CACHE if inputs else "prepared by the first host"
        inputs = inputs or fleet.inputs()
        describe_inputs(inputs, origin, say)
        check_searched_heads(config, train, inputs)
        if known == "auto":  # only the hosts can measure what fits
            # An elastic fleet may begin with one, the others being another sweep's: those to come
            # are taken to be like the first.
            found = fleet.hosts(1 if settings.elastic else hosts)
            lanes = sum(host.lanes for host in found) + found[0].lanes * (hosts - len(found))
            why = found[0].reason
        else:
            lanes, why = hosts * known, "each a run of its own, one step after the other"
        concurrent = min(lanes, most)
        each = f"{lanes // hosts} lanes each, {why}"
        say(f"      {hosts} hosts, {concurrent} trials at a time: {each}")
        if hosts > cluster.slots:
            say(f"      {cluster.slots} of the hosts now, the others when the cluster grows")
        yield Execution(
            tune.with_parameters(
                PackedTrial, settings=PackedSettings(train, settings.board.handle)
            ),
            # Until the hosts are up, more would only take the cores that these need to start.
            lambda: concurrent if fleet.is_up() else min(hosts, concurrent),
            concurrent,
            len(inputs.tool_names),
            inputs.hidden_size,
            reuse_actors=True,
            callbacks=[FleetCallback(fleet)],
            hosts=fleet.describe,
            save=fleet.save,
        )
    finally:
        fleet.close()
