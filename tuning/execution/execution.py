"""What an execution is to Ray Tune and to the monitors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ray import tune
from ray.tune import Callback

from trainables.config import PretrainConfig
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.location import check_heads
from tuning.config.space import HEADS, searched_heads
from tuning.config.sweep import SweepConfig

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


def check_searched_heads(config: SweepConfig, train: PretrainConfig, inputs: SharedInputs) -> None:
    """Of an LLM that had to be fetched first, D is known only now."""
    for heads in searched_heads(config.search_space, train):
        check_heads(heads, inputs.hidden_size, f"`{HEADS}`")


def describe_inputs(inputs: SharedInputs, origin: str, say: Say) -> None:
    rows = len(inputs.train_rows) + len(inputs.val_rows)
    say(f"      embeddings {list(inputs.tool_embeddings.shape)}, {rows} rows: {origin}")
