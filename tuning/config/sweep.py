"""The configuration of a sweep: one YAML file, checked whole before anything starts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import Field, PlainValidator, model_validator

from search_spaces.ranges import extremes
from search_spaces.schema import SearchSpace
from trainables.config import (
    DEFAULT_CONFIG,
    PathText,
    PretrainConfig,
    Section,
    as_begun,
    parse_config,
)
from trainables.errors import ConfigError, did_you_mean
from trainables.files import exists
from trainables.metrics import OBJECTIVES
from trainables.yaml_config import apply_overrides, build, read_yaml, shown
from tuning.config.space import CHANGEABLE, changeable, check_points, check_space
from tuning.history.manifest import SWEEP_NAME
from tuning.terminal import PROJECT

DEFAULT_SPACE = PROJECT / "search_spaces" / "default.yaml"
START = 4  # trials of the search `auto` before its model
GRACE_STEPS = 48  # a trial's first steps, by which good trials cannot be told from the best
MOST = 10**6  # beyond it a number is a slip of the hand
MOST_SECONDS = 1e9
DURATION = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)\s*(s|m|h|d)")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _count_or_auto(value: Any) -> Any:
    if value == "auto" or (type(value) is int and 1 <= value <= MOST):
        return value
    raise ValueError(f"{shown(value)}, but must be `auto` or a whole number from 1 to {MOST}")


def _seconds(value: Any) -> Any:
    if isinstance(value, str) and (found := DURATION.fullmatch(value.strip())):
        return float(found[1]) * SECONDS[found[2]]
    if type(value) in (int, float) and 0 < value <= MOST_SECONDS:
        return float(value)
    raise ValueError(f"{shown(value)}, but must be a time such as 45s, 90m, 12h or 2d")


Duration = Annotated[float, PlainValidator(_seconds)]
Count = Annotated[int | Literal["auto"], PlainValidator(_count_or_auto)]


class _Search(Section):
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the sampler.")


class AutoSearch(_Search):
    """The training file's own values, a few points that fill the space, then a model.

    The model is a Gaussian process, after 128 trials a tree-structured Parzen estimator. Both learn
    from stopped trials, whose values are brought to the epoch of those that trained longest.
    """

    type: Literal["auto"] = "auto"


class TPESearch(_Search):
    """Tree-structured Parzen estimator, Optuna's default."""

    type: Literal["tpe"] = "tpe"
    startup_trials: int = Field(
        10, ge=0, le=10**6, description="Random trials before the model is used."
    )


class RandomSearch(_Search):
    """Independent draws."""

    type: Literal["random"]


class QMCSearch(_Search):
    """A quasi-random sequence that fills the space evenly."""

    type: Literal["qmc"]


class CMAESSearch(_Search):
    """Covariance matrix adaptation; categorical keys are drawn at random."""

    type: Literal["cma_es"]


class GPSearch(_Search):
    """Gaussian process with expected improvement."""

    type: Literal["gp"]


Search = Annotated[
    AutoSearch | TPESearch | RandomSearch | QMCSearch | CMAESSearch | GPSearch,
    Field(discriminator="type"),
]


class ASHA(Section):
    """Successive halving with rungs at grace_epochs x reduction_factor^k.

    Asynchronous, in the order of arrival, unless the sweep is deterministic.
    """

    type: Literal["asha"] = "asha"
    grace_epochs: Count = Field(
        "auto",
        description="No trial stops before this epoch; auto: the first that ends after "
        f"{GRACE_STEPS} steps and the learning rate's warm-up.",
    )
    reduction_factor: int = Field(
        3, ge=2, le=10**6, description="One of this many goes on at a rung."
    )

    def rungs(self, num_epochs: int) -> tuple[int, ...]:
        """The epochs at which trials end, all before the last one.

        ``auto`` is the first epoch here: a sweep has settled it before it begins.
        """
        found, epoch = [], 1 if self.grace_epochs == "auto" else self.grace_epochs
        while epoch < num_epochs:
            found.append(epoch)
            epoch *= self.reduction_factor
        return tuple(found)

    def settled(self, steps_per_epoch: int, warmup_epochs: float) -> ASHA:
        """With what ``auto`` means for epochs of so many steps and such a warm-up.

        Losses after a handful of steps, or while the learning rate still rises, tell little of
        where they end.
        """
        if self.grace_epochs != "auto":
            return self
        first = max(-(-GRACE_STEPS // steps_per_epoch), math.ceil(warmup_epochs))
        return self.model_copy(update={"grace_epochs": first})


class Median(Section):
    """Stops a trial whose best value is worse than the median of the others' averages."""

    type: Literal["median"]
    grace_epochs: int = Field(1, ge=1, le=10**6, description="No trial stops before this epoch.")
    min_trials: int = Field(3, ge=1, description="Trials to compare with, at least.")


class HyperBand(Section):
    """Brackets of trials that are paused at their rungs until the bracket decides."""

    type: Literal["hyperband"]
    reduction_factor: int = Field(
        3, ge=2, le=10**6, description="One of this many goes on at a rung."
    )


class PBT(Section):
    """Population based training: bad trials take over good ones' weights, perturbed."""

    type: Literal["pbt"]
    interval_epochs: int = Field(
        2, ge=1, le=10**6, description="Epochs between two comparisons of the population."
    )
    quantile_fraction: float = Field(
        0.25, gt=0, le=0.5, description="The worst share copies from the best share."
    )
    resample_probability: float = Field(
        0.25, ge=0, le=1, description="A parameter is drawn anew instead of perturbed."
    )


class NoScheduler(Section):
    """Every trial runs to its end."""

    type: Literal["none"]


Scheduler = Annotated[ASHA | Median | HyperBand | PBT | NoScheduler, Field(discriminator="type")]


class PackedExecution(Section):
    """A fleet of hosts, each with one frozen LLM and lanes for several trials."""

    type: Literal["packed"] = "packed"
    hosts: Count = Field(
        "auto",
        description="Processes that train; auto: one per GPU, or per core without GPUs. On a "
        "cluster that was there before, the most that it may have when it grows.",
    )
    lanes: Count = Field(
        "auto", description="Trials at a time on a host; auto: by the memory that one needs."
    )


class DedicatedExecution(Section):
    """One Ray Train run per trial, for trials that need several GPUs."""

    type: Literal["dedicated"]
    workers_per_trial: int = Field(
        1,
        ge=1,
        le=10**6,
        description="Workers of a trial; a GPU each, a core each without GPUs.",
    )


Execution = Annotated[PackedExecution | DedicatedExecution, Field(discriminator="type")]

# What was done before there was the key.
BEFORE_THE_KEY = {"metric_at": "last"}
PART = "a path or a mapping of keys to values"
TYPED = {"search": Search, "scheduler": Scheduler, "execution": Execution}
DEFAULT_TYPES = {"search": "auto", "scheduler": "asha", "execution": "packed"}


class SweepConfig(Section):
    """A sweep, whole."""

    train: PretrainConfig = Field(description="How each trial trains: the training's file.")
    search_space: SearchSpace = Field(description="Which of its keys vary, and how far.")
    search: Search = Field(AutoSearch(), description="What to try next.")
    scheduler: Scheduler = Field(ASHA(), description="Which trials end before their last epoch.")
    metric: str = Field("val_loss", description="The metric that is optimised.")
    mode: Literal["min", "max"] = Field("min", description="Whether less or more is better.")
    metric_at: Literal["best", "last"] = Field(
        "best",
        description="The epoch by which a trial counts: its best one, whose weights are kept, or, "
        "as in sweeps from before this key, its last.",
    )
    num_trials: int = Field(16, ge=1, le=10**6, description="Trials in all.")
    max_concurrent: int | None = Field(
        None, ge=1, le=10**6, description="Trials at a time; null: what the machine can hold."
    )
    execution: Execution = Field(PackedExecution(), description="Where trials train.")
    storage: PathText = Field("sweeps", description="The directory of all sweeps.")
    deterministic: bool | None = Field(
        None,
        description="The same file and seed give the same sweep, whatever trial is faster (median, "
        "hyperband and pbt: the same trials, stopped as they arrive). null: on without a GPU.",
    )
    group: int = Field(
        4,
        ge=1,
        le=10**6,
        description="Trials that a deterministic sweep suggests and compares together; at least "
        "as many as run at a time, or hosts will wait.",
    )
    retries: int = Field(
        2, ge=0, le=10**6, description="A trial that fails goes on from its checkpoint so often."
    )
    keep_best: int = Field(
        5, ge=1, le=10**6, description="Of trials that ended, so many best keep their checkpoint."
    )
    time_budget: Duration | None = Field(
        None, description="Stop in order after so long, such as 90m or 12h; resume goes on."
    )
    warm_start: list[dict[str, Any]] = Field(
        [], description="Parameters that are tried first; filled in by --warm_start_from."
    )
    log_wandb: bool = Field(False, description="One W&B run per trial.")

    @model_validator(mode="before")
    @classmethod
    def _types_have_defaults(cls, values: Any) -> Any:
        """``search: {seed: 7}`` means the default type with another seed."""
        if not isinstance(values, Mapping):
            return values
        filled = dict(values)
        for key, default in DEFAULT_TYPES.items():
            if isinstance(filled.get(key), Mapping):
                # Before there was `auto`, the default was `tpe`; only that has this key.
                earlier = key == "search" and "startup_trials" in filled[key]
                filled[key] = {"type": "tpe" if earlier else default, **filled[key]}
        return filled

    def with_rungs(self, train_rows: int) -> SweepConfig:
        """With the first rung that so many training rows ask for, if nobody has set one."""
        if not isinstance(self.scheduler, ASHA):
            return self
        training = self.train.training
        largest, longest = (
            max([getattr(training, key), *self._searched(f"training.{key}")])
            for key in ("batch_size", "warmup_ratio")
        )
        settled = self.scheduler.settled(-(-train_rows // largest), longest * training.num_epochs)
        return self.model_copy(update={"scheduler": settled})

    def _searched(self, key: str) -> list[Any]:
        """The ends of a key's range, or all its values; none if it is not searched."""
        spec = self.search_space.root.get(key)
        return [] if spec is None else extremes(spec)

    @property
    def expected_epochs(self) -> float:
        """Of all trials; successive halving lets one in ``reduction_factor`` go on."""
        whole = self.train.training.num_epochs
        if not isinstance(self.scheduler, ASHA):
            return float(self.num_trials * whole)
        total, survivors, done = 0.0, float(self.num_trials), 0
        for reach in (*self.scheduler.rungs(whole), whole):
            total += survivors * (reach - done)
            survivors, done = max(1.0, survivors / self.scheduler.reduction_factor), reach
        return total


@dataclass(frozen=True)
class ResolvedSweep:
    """A checked sweep and the directory it belongs to."""

    name: str
    config: SweepConfig

    @property
    def directory(self) -> Path:
        return Path(self.config.storage).expanduser().absolute() / self.name


def load_sweep(
    path: Path | None, overrides: Sequence[str] = (), *, begun: bool = False
) -> SweepConfig:
    """Read a sweep's YAML (None: all defaults), apply overrides, check every key and value.

    ``begun``: the file is that of a sweep that has begun, and may be older than some keys.
    """
    source = str(path) if path else "default sweep"
    base = path.parent if path else PROJECT
    mapping = dict(read_yaml(path)) if path else {}
    train, train_base, train_source = _part(
        mapping.get("train"), DEFAULT_CONFIG, base, f"{source}: train"
    )
    train = as_begun(train) if begun else train
    space, _, space_source = _part(
        mapping.get("search_space"), DEFAULT_SPACE, base, f"{source}: search_space"
    )
    mapping |= {"train": train, "search_space": space}
    if begun:
        mapping = {**BEFORE_THE_KEY, **mapping}
    for override in sorted(overrides, key=_rank):
        mapping = _without_other_types(apply_overrides(mapping, [override]), _key(override))
        if isinstance(mapping["train"], str):  # --set train=PATH
            train, train_base, train_source = _part(mapping["train"], DEFAULT_CONFIG, base, source)
            mapping["train"] = train
        if isinstance(mapping["search_space"], str):
            space, _, space_source = _part(mapping["search_space"], DEFAULT_SPACE, base, source)
            mapping["search_space"] = space
    if not isinstance(mapping["train"], Mapping):
        raise ConfigError(f"{source}: `train` is {shown(mapping['train'])}, but must be {PART}")
    checked = parse_config(mapping.pop("train"), source=train_source, base=train_base)
    build(SearchSpace, mapping["search_space"], space_source)
    config = build(SweepConfig, {**mapping, "train": checked}, source)
    if config.metric not in OBJECTIVES:
        hint = did_you_mean(config.metric, OBJECTIVES)
        raise ConfigError(
            f"{source}: `metric` is {config.metric!r}{hint}, but must be one of "
            f"{', '.join(OBJECTIVES)}"
        )
    if config.metric == "field_accuracy" and not isinstance(config.scheduler, NoScheduler):
        raise ConfigError(
            f"{source}: `metric` is field_accuracy, which is only known at a trial's end; "
            "set `scheduler: {type: none}`"
        )
    searched = check_space(config.search_space, checked, space_source)
    first = check_points(config.warm_start, searched, checked, source)
    if isinstance(config.scheduler, PBT) and not changeable(searched):
        raise ConfigError(
            f"{source}: `scheduler` is pbt, which changes parameters while a trial trains, but the "
            f"search space has none that can be: {', '.join(CHANGEABLE)}"
        )
    return config.model_copy(update={"search_space": searched, "warm_start": first})


def _key(override: str) -> str:
    return override.partition("=")[0].strip()


def _rank(override: str) -> int:
    """``train=...`` and ``search.type=...`` come before what changes a value in them."""
    key = _key(override)
    return 0 if key in ("train", "search_space") else 1 if key.endswith(".type") else 2


def _without_other_types(mapping: dict[str, Any], changed: str) -> dict[str, Any]:
    """After ``--set scheduler.type=none``: without what only the type before it had."""
    section, _, key = changed.partition(".")
    values = mapping.get(section)
    if section not in TYPED or key != "type" or not isinstance(values, Mapping):
        return mapping
    for kind in get_args(get_args(TYPED[section])[0]):
        if values["type"] in get_args(kind.model_fields["type"].annotation):
            fields = kind.model_fields
            kept = {k: v for k, v in values.items() if k in fields}
            for name in [k for k, v in kept.items() if v == "auto" and fields[k].annotation is int]:
                del kept[name]  # which only the type before it knew
            return {**mapping, section: kept}
    return mapping


def check_name(name: str) -> str:
    """A sweep's name becomes a directory, and must stay inside the storage."""
    if not SWEEP_NAME.fullmatch(name):
        raise ConfigError(
            f"the name {name!r} cannot be used; letters, digits, `_`, `-` and `.` are allowed, up "
            "to 100, the first a letter or digit"
        )
    return name


def _part(value: Any, default: Path, base: Path, where: str) -> tuple[dict[str, Any], Path, str]:
    """A mapping given in place or by path: (mapping, base of its relative paths, its name)."""
    if isinstance(value, Mapping):
        return dict(value), base, where
    if value is None:
        return read_yaml(default), default.parent, str(default)
    if not isinstance(value, str):
        raise ConfigError(f"{where} is {shown(value)}, but must be {PART}")
    path = next((p for p in (base / value, Path(value)) if exists(p, where)), Path(value))
    return read_yaml(path), path.parent, str(path)


def dump_sweep(config: SweepConfig) -> str:
    """The resolved sweep as YAML that ``load_sweep`` reads back to an equal object."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
