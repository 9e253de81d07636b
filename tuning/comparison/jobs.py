"""One training of a comparison: what is asked for, and what became of it. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from trainables.config import PretrainConfig, Section, as_begun
from trainables.statuses import Status

EARLIER = "embedding_attention"
GATED = "gated_fusion"
ARCHITECTURES = (EARLIER, GATED)
FINISHED = Status.FINISHED.value


@dataclass(frozen=True)
class Job:
    """A training with a name of its own; ``timed``: its start is measured, too."""

    name: str
    config: PretrainConfig
    timed: bool
    threads: int


class Trained(Section):
    """What a job found out.

    ``seconds`` and ``cpu_seconds`` are those of start and training together, ``load`` is the
    machine's load average at their end. ``history`` has the declared metrics of every epoch and
    ``rate_sum``, the learning rates of its steps added up. ``cold`` and ``cached`` are the seconds
    of each stage of the start, without and with the cache; empty where they were not timed.
    Both streams' root mean squares are those before the fusion at the end of the training.
    """

    config: PretrainConfig
    outcome: str
    message: str = ""
    seconds: float
    cpu_seconds: float
    load: float
    history: list[dict[str, float]]
    first_loss: float | None = None
    cold: dict[str, float]
    cached: dict[str, float]
    trainable_parameters: int
    semantic_rms: float | None
    resource_rms: float | None

    @model_validator(mode="before")
    @classmethod
    def _as_begun(cls, values: Any) -> Any:
        """Read from a file, the training may be older than some keys."""
        config = values.get("config") if isinstance(values, Mapping) else None
        return {**values, "config": as_begun(config)} if isinstance(config, Mapping) else values

    @property
    def final_loss(self) -> float | None:
        """val_loss after the last epoch; None for a training that did not get there."""
        return self.history[-1]["val_loss"] if self.outcome == FINISHED else None


def result_path(directory: Path, job: Job) -> Path:
    return directory / f"{job.name}.json"


def progress_path(directory: Path, job: Job) -> Path:
    """A file that grows by one byte with every epoch."""
    return directory / f"{job.name}.epochs"


def read_result(directory: Path, job: Job) -> Trained | None:
    """What an earlier start of the same comparison has found out; None if it has not, or other."""
    try:
        found = Trained.model_validate_json(result_path(directory, job).read_bytes())
    except (OSError, ValidationError):
        return None
    return found if found.config == job.config else None


def with_split_of(directory: Path, config: PretrainConfig) -> PretrainConfig:
    """``config`` with the split of the trainings that an earlier start has left, if any."""
    for path in sorted(directory.glob("*.json")):
        try:
            data = Trained.model_validate_json(path.read_bytes()).config.data
        except (OSError, ValidationError):
            continue
        split = config.data.model_copy(update={"split": data.split})
        return config.model_copy(update={"data": split})
    return config


def with_training(
    base: PretrainConfig, architecture: str, learning_rate: float, seed: int
) -> PretrainConfig:
    """``base`` with another architecture, learning rate and seed."""
    model = base.model.model_copy(update={"architecture": architecture})
    training = base.training.model_copy(update={"learning_rate": learning_rate, "seed": seed})
    return base.model_copy(update={"model": model, "training": training})


def best_rate(tried: Sequence[Trained]) -> float | None:
    """The learning rate with the lowest final loss; None if none was trained to its end."""
    scored = [(t.final_loss, t.config.training.learning_rate) for t in tried]
    finished = [(loss, rate) for loss, rate in scored if loss is not None]
    return min(finished)[1] if finished else None
