"""What a check is, and the small invented things that checks work on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainables.config import PretrainConfig, parse_config
from trainables.data.profiling import Row
from trainables.data.registry import Tool
from trainables.inputs.checked_data import CheckedData
from trainables.inputs.preparing import prepare_inputs
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.frozen import FrozenLLM
from trainables.models.features import RESOURCES, FeatureStatistics
from trainables.models.resource_encoder import ResourceEncoder
from trainables.training.batches import DeviceInputs
from trainables.training.run import Run

CPU = torch.device("cpu")
TOOLS = (
    Tool("count", "Counts the words of a text."),
    Tool("translate", "Translates a text of any length from one language into another, kept short"),
    Tool("r", "Runs an R script on a table of measurements."),
)
HIDDEN_SIZE = 16  # of encoders that are checked without an LLM
STATISTICS = FeatureStatistics((1.0,) * len(RESOURCES), (2.0,) * len(RESOURCES))
TOLERANCE = 1e-4  # relative to the largest value, float32


class ProblemError(Exception):
    """A claim that does not hold; the message says what was found instead."""


@dataclass(frozen=True)
class Check:
    """``run`` returns a remark or nothing; it raises ProblemError where ``claim`` does not hold."""

    claim: str
    remedy: str
    run: Callable[[Subjects], str]


class Subjects:
    """What checks work on, made when first asked for; ``config`` is the user's."""

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config

    @cached_property
    def llm(self) -> FrozenLLM:
        """The embedded LLM, on the CPU in float32."""
        return FrozenLLM.load(training_config().model, CPU, torch.float32)

    @cached_property
    def inputs(self) -> SharedInputs:
        """Three invented tools with eight rows each; the last of each is held out."""
        levels = [("small", 2**i, 4, 10 * i, 8, 15.5 * 3**i) for i in range(8)]
        rows = [
            Row(tool, dict(zip(RESOURCES, level, strict=True)))
            for tool in range(len(TOOLS))
            for level in levels
        ]
        held_out = np.arange(len(rows)) % len(levels) == len(levels) - 1
        train_rows, val_rows = np.flatnonzero(~held_out), np.flatnonzero(held_out)
        data = CheckedData(list(TOOLS), rows, train_rows, val_rows)
        return prepare_inputs(self.llm, data)

    def run(self, learning_rate: float = 1e-3) -> Run:
        """A new run on these inputs, at the beginning of its first epoch."""
        run = Run(training_config(learning_rate), DeviceInputs(self.inputs, CPU))
        run.start_epoch()
        return run


def training_config(learning_rate: float = 1e-3) -> PretrainConfig:
    training = {"batch_size": 4, "num_epochs": 2, "learning_rate": learning_rate}
    mapping = {"training": training, "model": {"dropout": 0.0}}
    return parse_config(mapping, source="verify", base=Path())


def small_encoder() -> ResourceEncoder:
    """Random semantics of D = 16, the gate open, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = ResourceEncoder(
            [tool.name for tool in TOOLS],
            torch.randn(len(TOOLS), HIDDEN_SIZE),
            feature_statistics=STATISTICS,
        )
    encoder.fusion.gate_alpha.data.fill_(0.5)
    return encoder.eval()


def random_tensor(*shape: int) -> Tensor:
    """The same for the same shape, every time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def distance(got: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value that is expected."""
    return float((got - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


def must_equal(got: Tensor, expected: Tensor, what: str) -> None:
    """Raises ProblemError if two tensors differ by more than rounding."""
    if got.shape != expected.shape:
        raise ProblemError(f"{what} has the shape {tuple(got.shape)}, not {tuple(expected.shape)}")
    if not distance(got, expected) <= TOLERANCE:
        raise ProblemError(f"{what} differs by {distance(got, expected):.2g} of its size")
