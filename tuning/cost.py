"""What a sweep will take: epochs, FLOPs, time, memory and disk, from sizes alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.config import ModelConfig, PretrainConfig, PromptConfig
from trainables.data.templates import TEMPLATES, describe
from trainables.inputs.checked_data import CheckedData, describe_split
from trainables.llm.location import (
    hidden_size,
    local_directory,
)
from trainables.llm.precision import llm_precision
from trainables.llm.shape import BYTES, H100_PEAK, H100_SHARE, cpu_rate, h100_rate
from trainables.models.features import NUM_FEATURES, RESOURCE_HIDDEN_SIZE
from trainables.training.startup_time import CHARACTERS_PER_TOKEN, expected_initialisation, shape_of
from tuning.config.learning import describe_learning
from tuning.config.space import describe_steps
from tuning.config.sweep import ASHA, DedicatedExecution, SweepConfig
from tuning.terminal import duration

BYTES_PER_PARAMETER = 2  # of an LLM whose shape is not known, in its files
LARGE_LLM = 1e8  # parameters; from here on a GPU is worth naming where there is none
AFTER = 6  # tokens with which a chat template begins the answer
GIB = 2**30
CHECKPOINT_COPIES = 3  # weights and AdamW's two moments
CHECKPOINTS = 3  # of a trial: the last two and its best


@dataclass(frozen=True)
class Cost:
    """What a sweep will take, from sizes alone; None: not known before the LLM is here."""

    train_rows: int
    tools: int
    hidden_size: int | None
    llm_parameters: float | None
    steps_per_trial: int
    epochs: float
    flops: float | None
    disk_bytes: float


def estimate_cost(config: SweepConfig, data: CheckedData) -> Cost:
    """Forward and backward through the frozen LLM's activations, forward alone for evaluation.

    The backward pass costs as much as the forward one, because no weight needs a gradient. The
    encoder, a thousandth of it or less, is left out.
    """
    train, training = config.train, config.train.training
    shape = shape_of(train)
    directory = local_directory(train.model)
    size = hidden_size(directory) if directory else shape.hidden_size if shape else None
    texts = [
        len(describe(data.tools[row.tool_index].name, row.resources, i % len(TEMPLATES)))
        for i, row in enumerate(data.rows)
    ]
    around = _tokens_around(train.model)
    tokens = float(np.mean(texts)) / CHARACTERS_PER_TOKEN + around
    epochs = config.expected_epochs
    passed = tokens * epochs * (2 * len(data.train_rows) + len(data.val_rows))
    parameters = float(shape.parameters) if shape else _parameters_by_files(directory)
    flops = 2 * parameters * passed if parameters else None
    width = size or 0
    soft_tokens = train.model.soft_tokens
    projections = soft_tokens if soft_tokens > 1 else 0
    encoder = (4 + projections) * width**2 + RESOURCE_HIDDEN_SIZE * (NUM_FEATURES + width)
    return Cost(
        train_rows=len(data.train_rows),
        tools=len(data.tools),
        hidden_size=size,
        llm_parameters=parameters,
        steps_per_trial=-(-len(data.train_rows) // training.batch_size) * training.num_epochs,
        epochs=epochs,
        flops=shape.forward_flops(passed, tokens) if shape else flops,
        disk_bytes=4.0 * encoder * CHECKPOINT_COPIES * CHECKPOINTS * config.num_trials,
    )


def _tokens_around(model: ModelConfig) -> int:
    """What a row has beside its text; what stands before the soft tokens is read but once."""
    prompt = model.settled.prompt
    after = len(prompt.after) if isinstance(prompt, PromptConfig) else AFTER if prompt else 0
    return model.soft_tokens - 1 + after


def _parameters_by_files(directory: Path | None) -> float | None:
    if directory is None:
        return None
    return sum(p.stat().st_size for p in directory.glob("*.safetensors")) / BYTES_PER_PARAMETER


def describe_sweep(config: SweepConfig, data: CheckedData, probed: str = "") -> list[str]:
    """What ``validate`` prints; ``probed``: how the LLM was tried."""
    cost = estimate_cost(config, data)
    searched = ", ".join(config.search_space.root)
    lines = [
        f"model        {_described_llm(config.train, cost)}",
        *([f"probe        {probed}"] if probed else []),
        f"data         {cost.tools} tools, {cost.train_rows} training and {len(data.val_rows)} "
        "held-out rows",
        *(f"{'':<13}{line}" for line in describe_split(config.train.data, data)),
        f"search       {config.search.type} over {searched}; {config.mode} {config.metric}",
        *(f"search       {line}" for line in describe_steps(config.search_space)),
        *(f"search       {line}" for line in describe_learning(config)),
        f"trials       {config.num_trials}, at most {cost.steps_per_trial} steps each, "
        f"scheduler {config.scheduler.type}: about {cost.epochs:.0f} epochs in all",
        *_rungs(config, cost),
        f"compute      {f'{cost.flops:.2g}' if cost.flops else 'unknown'} FLOP through the frozen "
        "LLM",
        f"disk         about {cost.disk_bytes / 2**20:.0f} MiB of checkpoints",
        *_times(config, data, cost),
    ]
    return [*lines, "everything that can be checked without training is in order"]


def _rungs(config: SweepConfig, cost: Cost) -> Iterator[str]:
    """When trials end, in epochs and in steps of the optimiser."""
    if not isinstance(config.scheduler, ASHA):
        return
    epochs = config.train.training.num_epochs
    rungs, steps = config.scheduler.rungs(epochs), cost.steps_per_trial // epochs
    if rungs:
        one_in = f"one trial in {config.scheduler.reduction_factor} goes on"
        at = f"{listed_numbers(rungs)} (steps {listed_numbers([e * steps for e in rungs])})"
        yield f"rungs        {one_in} after epoch {at}"
    else:
        yield f"rungs        none: {config.scheduler.grace_epochs} epochs are all there are"


def listed_numbers(numbers: Sequence[int]) -> str:
    return ", ".join(f"{number:,}" for number in numbers)


def _described_llm(train: PretrainConfig, cost: Cost) -> str:
    name = f"{train.model.llm_model}, hidden size {cost.hidden_size or 'unknown'}"
    if cost.llm_parameters is None:
        return f"{name}; how large it is will be known after its download"
    precision = llm_precision(train.training.precision, _on_gpu())
    weights = cost.llm_parameters * BYTES[precision] / GIB
    return (
        f"{name}, about {cost.llm_parameters / 1e6:,.1f} M parameters, {weights:.2g} GiB in "
        f"{precision} on every host"
    )


def _times(config: SweepConfig, data: CheckedData, cost: Cost) -> Iterator[str]:
    """Time of computing, on what is here and, for a large LLM, on a GPU; time to start."""
    if cost.flops is None:
        yield "time         unknown before the LLM is here"
        return
    gpu = (
        f"one H100 (assumed: {H100_SHARE:.0%} of its {H100_PEAK / 1e12:.0f} TFLOP/s in bf16; a "
        "small LLM waits for its kernels to be launched)"
    )
    if not _on_gpu():
        here = f"{os.cpu_count() or 1} cores (measured: {cpu_rate() / 1e9:.0f} GFLOP/s)"
        yield f"time         about {duration(cost.flops / cpu_rate())} of computing on {here}"
    if _on_gpu() or (cost.llm_parameters and cost.llm_parameters >= LARGE_LLM):
        yield f"time         about {duration(cost.flops / h100_rate())} of computing on {gpu}"
    prompts = [tool.prompt for tool in data.tools]
    start = expected_initialisation(config.train, prompts, _on_gpu())
    if start is not None:
        each = "trial" if isinstance(config.execution, DedicatedExecution) else "host"
        yield (
            f"start        about {start.load:.0f} s per {each} for libraries and LLM, "
            f"{start.embed:.0f} s once to embed the tools"
        )


def _on_gpu() -> bool:
    return Path("/dev/nvidia0").exists()
