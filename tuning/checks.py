"""Everything about a sweep that can be wrong before it starts, and what it will cost."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search_spaces.schema import SearchSpace
from trainables.config import PretrainConfig
from trainables.data.dataset import check_sizes
from trainables.data.reading import CheckedData, read_data
from trainables.data.templates import TEMPLATES, describe
from trainables.errors import ConfigError, UserError
from trainables.files import exists
from trainables.llm.location import (
    check_available,
    check_heads,
    hidden_size,
    local_directory,
)
from trainables.models.features import NUM_FEATURES, RESOURCE_HIDDEN_SIZE
from tuning.config import ASHA, DedicatedExecution, ResolvedSweep, SweepConfig
from tuning.monitors.table import duration
from tuning.terminal import run_tune

BATCH_SIZE = "training.batch_size"
CHARACTERS_PER_TOKEN = 3.0
BYTES_PER_PARAMETER = 2
CHECKPOINT_COPIES = 3  # weights and AdamW's two moments


@dataclass(frozen=True)
class Cost:
    """What a sweep will take, from sizes alone; times are rough."""

    train_rows: int
    tools: int
    hidden_size: int | None
    llm_parameters: float
    steps_per_trial: int
    epochs: float
    flops: float
    disk_bytes: float


def check_sweep(sweep: ResolvedSweep) -> CheckedData:
    """Read the data, check batch sizes, name and storage; nothing is created."""
    config = sweep.config
    check_available(config.train.model)
    data = read_data(config.train)
    for size in _batch_sizes(config.search_space):
        check_sizes(data.train_rows, data.val_rows, size)
    if config.metric == "field_accuracy" and not config.train.training.field_accuracy_samples:
        raise ConfigError(
            "`metric` is field_accuracy, but `training.field_accuracy_samples` is 0; raise it"
        )
    check_writable(sweep.directory.parent, "--storage")
    return data


def check_name_is_free(sweep: ResolvedSweep) -> None:
    """A sweep never writes into another one's directory."""
    if sweep.directory.exists():
        raise UserError(
            f"the name `{sweep.name}` is already used: {sweep.directory}; choose another --name, "
            f"or go on with it: {run_tune('resume', sweep.name)}"
        )


def _batch_sizes(space: SearchSpace) -> Iterator[int]:
    spec = space.root.get(BATCH_SIZE)
    if spec is not None:
        yield from (int(value) for value in spec.extremes())


def check_writable(directory: Path, flag: str) -> None:
    """``directory``, or the nearest one above it that exists, must take new files.

    What is allowed does not tell: a file system may be read-only, full or none that keeps files.
    """
    directory = directory.expanduser()
    above = (directory, *directory.absolute().parents)
    nearest = next(p for p in above if exists(p, flag) or p.is_symlink())
    if not nearest.is_dir():
        raise UserError(f"{flag} {directory}: {nearest} is not a directory; give another {flag}")
    try:
        with tempfile.TemporaryDirectory(prefix=".try-", dir=nearest) as aside:
            Path(aside, "file").write_text("room for a file")
    except OSError as error:
        raise UserError(
            f"{flag} {directory}: {nearest} cannot be written ({error.strerror}); give another "
            f"{flag}"
        ) from None


def estimate_cost(config: SweepConfig, data: CheckedData) -> Cost:
    """Forward and backward through the frozen LLM's activations: 4 x parameters x tokens.

    The backward pass costs as much as the forward one, because no weight needs a gradient.
    """
    train, training = config.train, config.train.training
    directory = local_directory(train.model)
    size = hidden_size(directory) if directory else None
    parameters = _llm_bytes(directory) / BYTES_PER_PARAMETER if directory else 0.0
    texts = [
        len(describe(data.tools[row.tool_index].name, row.figures, i % len(TEMPLATES)))
        for i, row in enumerate(data.rows)
    ]
    tokens = float(np.mean(texts)) / CHARACTERS_PER_TOKEN
    epochs = _expected_epochs(config)
    passes = len(data.train_rows) + 0.5 * len(data.val_rows)
    width = size or 0
    encoder = 4 * width**2 + RESOURCE_HIDDEN_SIZE * (NUM_FEATURES + width)
    return Cost(
        train_rows=len(data.train_rows),
        tools=len(data.tools),
        hidden_size=size,
        llm_parameters=parameters,
        steps_per_trial=-(-len(data.train_rows) // training.batch_size) * training.num_epochs,
        epochs=epochs,
        flops=4 * parameters * tokens * passes * epochs,
        disk_bytes=4.0 * encoder * CHECKPOINT_COPIES * 2 * config.num_trials,
    )


def _expected_epochs(config: SweepConfig) -> float:
    """Epochs of the whole sweep; successive halving lets one in ``reduction_factor`` go on."""
    whole = config.train.training.num_epochs
    match config.scheduler:
        case ASHA() as asha:
            total, survivors, done, rung = 0.0, float(config.num_trials), 0, asha.grace_epochs
            while done < whole:
                reach = min(rung, whole)
                total += survivors * (reach - done)
                survivors = max(1.0, survivors / asha.reduction_factor)
                done, rung = reach, rung * asha.reduction_factor
            return total
        case _:
            return float(config.num_trials * whole)


def _llm_bytes(directory: Path) -> int:
    return sum(p.stat().st_size for p in directory.glob("*.safetensors"))


def describe_sweep(config: SweepConfig, data: CheckedData) -> list[str]:
    """What ``validate`` prints."""
    cost = estimate_cost(config, data)
    searched = ", ".join(config.search_space.root)
    lines = [
        f"model        {config.train.model.llm_model}, hidden size {cost.hidden_size or 'unknown'}"
        f", about {cost.llm_parameters / 1e6:,.1f} M parameters",
        f"data         {cost.tools} tools, {cost.train_rows} training and {len(data.val_rows)} "
        "held-out configurations",
        f"search       {config.search.type} over {searched}; {config.mode} {config.metric}",
        f"trials       {config.num_trials}, at most {cost.steps_per_trial} steps each, "
        f"scheduler {config.scheduler.type}: about {cost.epochs:.0f} epochs in all",
        f"compute      {cost.flops:.2g} FLOP through the frozen LLM",
        f"disk         about {cost.disk_bytes / 2**20:.0f} MiB of checkpoints",
    ]
    if cost.hidden_size is None:
        lines.append(
            "note         the LLM is not cached here yet; its size is known after download"
        )
    elif not Path("/dev/nvidia0").exists():
        cores = os.cpu_count() or 1
        seconds = cost.flops / _matmul_rate()
        start = isinstance(config.execution, DedicatedExecution)
        lines.append(
            f"time         about {duration(seconds)} of computing on {cores} cores, rough"
            + ("; a dedicated trial adds about 15 s to start" if start else "")
        )
    return [*lines, "everything that can be checked without training is in order"]


def _matmul_rate() -> float:
    """FLOP/s of fp32 matrix products on all cores."""
    size = 512
    a = np.ones((size, size), dtype=np.float32)
    a @ a
    start = time.perf_counter()
    repeats = 10
    for _ in range(repeats):
        a @ a
    return 2 * size**3 * repeats / (time.perf_counter() - start)


def check_train(config: PretrainConfig) -> CheckedData:
    """The checks of ``train``: the data, and the heads where the LLM is at hand."""
    check_available(config.model)
    data = read_data(config)
    directory = local_directory(config.model)
    if directory is not None:
        check_heads(
            config.model.num_attention_heads,
            hidden_size(directory),
            "`model.num_attention_heads`",
        )
    return data
