"""What an execution is to Ray Tune and to the monitors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import Callback

from trainables.inputs.preparing import check_length
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.location import check_heads
from trainables.llm.place.prompt import Prompt
from trainables.llm.verdict import known_verdict
from trainables.packing.protocol import HostFacts
from tuning.config.space import HEADS, most_soft_tokens, searched_heads
from tuning.config.sweep import SweepConfig
from tuning.execution.cluster import Cluster
from tuning.terminal import Say

TRAIN_RUNS_DIR = "train_runs"


@dataclass(frozen=True)
class ExecutionContext:
    """What an execution needs to know of the sweep, and of where it runs.

    ``config`` has no null that the cluster decides. ``interrupt`` is called while something is
    waited for, and may raise. ``epochs_done``: of all trials, before an interruption.
    """

    config: SweepConfig
    cluster: Cluster
    train_runs: Path  # the directories of Ray Train's runs; removed at the end
    say: Say
    interrupt: Callable[[], None]
    epochs_done: int = 0

    @property
    def epochs_left(self) -> float:
        """Of all trials, as far as that is known before they are stopped early."""
        return max(1.0, self.config.expected_epochs - self.epochs_done)

    @property
    def most_trials(self) -> int:
        """Trials at a time, at most, however many the cluster could hold."""
        return min(self.config.max_concurrent or self.config.num_trials, self.config.num_trials)


@dataclass(frozen=True)
class Execution:
    """What Ray Tune needs to run the trials, and what the monitors need to know of the inputs."""

    trainable: type[tune.Trainable]
    limit: Callable[[], int]  # trials at a time, as things stand
    concurrent: int  # the most that it will ever be
    num_tools: int
    hidden_size: int
    prompt: Prompt
    reuse_actors: bool = False
    callbacks: list[Callback] = field(default_factory=list)
    hosts: Callable[[], list[HostFacts]] = list  # what they say of themselves
    save: Callable[[], None] = lambda: None  # checkpoints of what trains, where it stands


def trial_class(trainable: type[tune.Trainable], settings: object) -> type[tune.Trainable]:
    """A trainable whose ``setup`` gets ``settings``, from Ray's object store.

    ``tune.with_parameters`` would do, but the dashboard shows the qualified name of its class, and
    Ray keeps a hook of each call for the rest of the process.
    """
    reference = ray.put(settings)

    class Trial(trainable):
        __qualname__ = "Trial"  # without the function around it

        def setup(self, config: dict[str, Any]) -> None:
            super().setup(config, settings=ray.get(reference))

    return Trial


def check_searched(config: SweepConfig, inputs: SharedInputs) -> None:
    """Of an LLM that had to be fetched first, D and what it reads at most are known only now."""
    for heads in searched_heads(config.search_space, config.train):
        check_heads(heads, inputs.hidden_size, f"`{HEADS}`")
    if verdict := known_verdict(config.train.model):
        soft_tokens = most_soft_tokens(config.search_space, config.train)
        check_length(inputs, soft_tokens, verdict.max_tokens)


def describe_inputs(inputs: SharedInputs, origin: str, say: Say) -> None:
    rows = len(inputs.train_rows) + len(inputs.val_rows)
    say(f"      embeddings {list(inputs.tool_embeddings.shape)}, {rows} rows: {origin}")
