"""How a sweep's trials are trained: packed into a fleet's lanes, or each by a Ray Train run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Callback

from trainables.assignment import LANES_IN_TURN
from trainables.config import PretrainConfig
from trainables.data.dataset import SharedInputs
from trainables.initialisation import announcement, expected_initialisation, registry_prompts
from trainables.llm.location import check_heads
from trainables.prepared import find_inputs, keep_inputs, prepared_path
from trainables.ray_train import HostSettings
from trainables.sharing import put_inputs
from tuning.cluster import Cluster, check_slots
from tuning.config import DedicatedExecution, PackedExecution, SweepConfig
from tuning.fleet import Fleet, FleetCallback
from tuning.mailbox import open_mailbox
from tuning.packed_trial import PackedSettings, PackedTrial
from tuning.space import HEADS, searched_heads
from tuning.switchboard import open_switchboard

TRAIN_RUNS_DIR = "train_runs"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Execution:
    """What Ray Tune needs to run the trials, and what the monitors need to know of the inputs."""

    trainable: type[tune.Trainable]
    limit: Callable[[], int]  # trials at a time, as things stand
    concurrent: int  # the most that it will ever be
    num_tools: int
    hidden_size: int
    reuse_actors: bool = False
    callbacks: list[Callback] = field(default_factory=list)
    hosts: Callable[[], list[dict[str, Any]]] = list  # what they say of themselves
    save: Callable[[], None] = lambda: None  # checkpoints of what trains, where it stands


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
                with _packed(
                    directory, config, packed, train, cluster, say, interrupt
                ) as execution:
                    yield execution
            case DedicatedExecution() as dedicated:
                yield _dedicated(directory, config, dedicated, train, cluster, say, interrupt)
    finally:
        shutil.rmtree(directory / TRAIN_RUNS_DIR, ignore_errors=True)


@contextmanager
def _packed(
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
        open_switchboard(),
        None if known == "auto" else known,
        hosts,
        elastic=cluster.joined,
    )
    fleet = Fleet(settings, directory / TRAIN_RUNS_DIR, interrupt)
    try:
        if inputs is None:
            inputs = fleet.inputs()
            keep_inputs(inputs, train, cluster.has_gpu)
            _describe(inputs, "prepared by the first host", say)
        else:
            _describe(inputs, "from the cache", say)
        _check_heads(config, train, inputs)
        if known == "auto":  # only the hosts can measure what fits
            # An elastic fleet may begin with one, the others being another sweep's: those to come
            # are taken to be like the first.
            found = fleet.hosts(1 if settings.elastic else hosts)
            lanes = sum(host["lanes"] for host in found) + found[0]["lanes"] * (hosts - len(found))
            why = found[0]["reason"]
        else:
            lanes, why = hosts * known, "each a run of its own, one step after the other"
        concurrent = min(lanes, most)
        each = f"{lanes // hosts} lanes each, {why}"
        say(f"      {hosts} hosts, {concurrent} trials at a time: {each}")
        if hosts > cluster.slots:
            say(f"      {cluster.slots} of the hosts now, the others when the cluster grows")
        yield Execution(
            tune.with_parameters(PackedTrial, settings=PackedSettings(train, settings.switchboard)),
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


def _dedicated(
    directory: Path,
    config: SweepConfig,
    dedicated: DedicatedExecution,
    train: PretrainConfig,
    cluster: Cluster,
    say: Say,
    interrupt: Callable[[], None],
) -> Execution:
    from tuning.trial import DedicatedTrial, TrialSettings

    workers = dedicated.workers_per_trial
    check_slots(cluster, workers, "execution.workers_per_trial")
    fits = cluster.slots // workers
    concurrent = min(fits, config.max_concurrent or fits, config.num_trials)
    inputs = prepared_inputs(train, cluster.has_gpu, say, interrupt)
    _check_heads(config, train, inputs)
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
        _describe(inputs, "from the cache", say)
        return inputs
    from trainables.data.reading import read_data
    from trainables.llm.frozen import FrozenLLM, free_device_memory, select_device, select_dtype
    from trainables.preparation import embed_tools, prepare_inputs

    data = read_data(train)
    device = select_device()
    llm = FrozenLLM.load(train.model, device, select_dtype(train.training.precision, device))
    embeddings = embed_tools(llm, train, data.tools, say, interrupt)
    interrupt()
    inputs = prepare_inputs(llm, data, embeddings)
    del llm
    free_device_memory()
    keep_inputs(inputs, train, on_gpu)
    _describe(inputs, "prepared here", say)
    return inputs


def _check_heads(config: SweepConfig, train: PretrainConfig, inputs: SharedInputs) -> None:
    """Of an LLM that had to be fetched first, D is known only now."""
    for heads in searched_heads(config.search_space, train):
        check_heads(heads, inputs.hidden_size, f"`{HEADS}`")


def _describe(inputs: SharedInputs, origin: str, say: Say) -> None:
    rows = len(inputs.train_rows) + len(inputs.val_rows)
    say(f"      embeddings {list(inputs.tool_embeddings.shape)}, {rows} configurations: {origin}")
