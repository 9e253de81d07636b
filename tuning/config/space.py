"""Search spaces applied to a training configuration: checked against it, filled in, told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from search_spaces.ranges import (
    NumberRange,
    extremes,
    highest,
    last_step,
    typed,
    value_at,
    values,
)
from search_spaces.schema import Choice, Fixed, FloatRange, Range, SearchSpace
from trainables.config import PretrainConfig
from trainables.errors import ConfigError, did_you_mean
from trainables.llm.location import check_heads, known_hidden_size
from trainables.yaml_config import build, set_dotted

HEADS = "model.num_attention_heads"
SOFT_TOKENS = "model.num_soft_tokens"
SECTIONS = ("model", "training")
# What every trial of a sweep must share: the frozen LLM, and what early stopping reckons with.
SHARED = (
    "model.llm_model",
    "model.cache_dir",
    "model.prompt",
    "model.trust_remote_code",
    "training.precision",
    "training.num_epochs",
    "training.stop_stuck_gates",
)
# What may change in the middle of a training: neither shapes nor the number of steps depend on it.
CHANGEABLE = (
    "training.learning_rate",
    "training.gate_lr_multiplier",
    "training.residual_lr_multiplier",
    "training.weight_decay",
    "training.max_grad_norm",
    "model.dropout",
    "model.num_attention_heads",
)
# What only the gated architecture reads.
GATED_ONLY = (
    "training.gate_lr_multiplier",
    "training.residual_lr_multiplier",
    "model.num_soft_tokens",
    "model.d_resource",
    "model.resource_tokens",
    "model.normalize",
)
ARCHITECTURE = "model.architecture"
GATED = "gated_fusion"
MAX_HEADS = 32
MIN_HEAD_SIZE = 8
MOST_LISTED = 8  # values of a stepped range


def searchable_keys() -> list[str]:
    """Every dotted key of a training that may vary between trials."""
    return [
        f"{section}.{key}"
        for section in SECTIONS
        for key in PretrainConfig.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
        if f"{section}.{key}" not in SHARED
    ]


def check_space(space: SearchSpace, config: PretrainConfig, source: str) -> SearchSpace:
    """Every key must exist, every bound and choice be valid; ``choices: auto`` is filled in.

    It stays ``auto`` while the LLM's D is not known on this machine: nothing here asks a network.
    """
    known = searchable_keys()
    filled: dict[str, Range] = {}
    for key, spec in space.root.items():
        if key not in known:
            hint = did_you_mean(key, known)
            raise ConfigError(
                f"{source}: `{key}` cannot be searched{hint}; searchable: {', '.join(known)}"
            )
        if isinstance(spec, Choice) and spec.choices == "auto":
            spec = spec.model_copy(update={"choices": _auto_choices(key, config, source)})
        if isinstance(spec, FloatRange) and _takes_whole_numbers(key):
            raise ConfigError(f"{source}: `{key}` takes whole numbers; use `type: int`")
        for value in extremes(spec):
            with_params(config, {**(spec.when or {}), key: value}, f"{source}: search space")
        if key in GATED_ONLY:
            _check_has_effect(key, spec, space, config, source)
        filled[key] = spec
    checked = SearchSpace(filled)
    if size := known_hidden_size(config.model):
        for heads in searched_heads(checked, config):
            check_heads(heads, size, f"{source}: `{HEADS}`")
    return checked


def _check_has_effect(
    key: str, spec: Range, space: SearchSpace, config: PretrainConfig, source: str
) -> None:
    """A key of the gate must not vary in trials whose architecture has no gate."""
    searched = space.root.get(ARCHITECTURE)
    possible = extremes(searched) if searched else [config.model.architecture]
    possible = [(spec.when or {}).get(ARCHITECTURE, name) for name in possible]
    for name in possible:
        if name != GATED:
            raise ConfigError(
                f"{source}: `{key}` has no effect where `{ARCHITECTURE}` is {name}; give it "
                f"`when: {{{ARCHITECTURE}: {GATED}}}`"
            )


def check_points(
    points: Sequence[Mapping[str, Any]], space: SearchSpace, config: PretrainConfig, source: str
) -> list[dict[str, Any]]:
    """Parameters that are tried without being drawn must give trainings, too.

    Their numbers are returned in the types that the space draws: a population that begins with a
    whole number would keep to whole numbers.
    """
    found = []
    for number, point in enumerate(points):
        where = f"{source}: `warm_start.{number}`"
        trial, size = with_params(config, point, where), known_hidden_size(config.model)
        if size:
            check_heads(trial.model.num_attention_heads, size, f"{where}: `{HEADS}`")
        found.append({key: typed(space.root.get(key), value) for key, value in point.items()})
    return found


def changeable(space: SearchSpace) -> dict[str, Range]:
    """The part of a space that may change while a trial trains."""
    return {
        key: spec
        for key, spec in space.root.items()
        if key in CHANGEABLE and not isinstance(spec, Fixed) and not spec.when
    }


def searched_heads(space: SearchSpace, config: PretrainConfig) -> list[int]:
    """Every number of attention heads that a trial may get."""
    spec, default = space.root.get(HEADS), [config.model.num_attention_heads]
    if spec is None:
        return default
    heads = [int(value) for value in values(spec)]
    return heads + default if spec.when else heads


def most_soft_tokens(space: SearchSpace, config: PretrainConfig) -> int:
    """The largest S that a trial may get."""
    spec = space.root.get(SOFT_TOKENS)
    searched = [int(value) for value in extremes(spec)] if spec else []
    return max([config.model.soft_tokens, *searched])


def with_params(config: PretrainConfig, params: Mapping[str, Any], where: str) -> PretrainConfig:
    """The configuration of one trial."""
    mapping, known = config.model_dump(), searchable_keys()
    for key, value in params.items():
        if key not in known:
            raise ConfigError(f"{where}: `{key}` cannot be searched{did_you_mean(key, known)}")
        set_dotted(mapping, key.split("."), value, where)
    return build(PretrainConfig, mapping, where)


def searched_values(config: PretrainConfig, space: SearchSpace) -> dict[str, Any]:
    """What the keys of a space are in a configuration that does not search them."""
    mapping = config.model_dump()
    pairs = (key.split(".") for key in space.root)
    return {f"{section}.{name}": mapping[section][name] for section, name in pairs}


def describe_steps(space: SearchSpace) -> list[str]:
    """The values of each key whose step leaves out its upper bound, a line for each."""
    return [
        f"{key}: {_listed(spec)} ({spec.high:.12g} is not on a step of {spec.step:.12g})"
        for key, spec in space.root.items()
        if isinstance(spec, NumberRange) and highest(spec) < spec.high
    ]


def _listed(spec: NumberRange) -> str:
    """All values of a stepped range, or the first ones and the last."""
    last = last_step(spec)
    first = range(last + 1 if last < MOST_LISTED else 3)
    found = [f"{value_at(spec, step):.12g}" for step in first]
    if last not in first:
        found += ["...", f"{value_at(spec, last):.12g}"]
    return ", ".join(found)


def _takes_whole_numbers(key: str) -> bool:
    section, name = key.split(".")
    fields = PretrainConfig.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
    return fields[name].annotation in (int, int | None, int | Literal["auto"])


def _auto_choices(key: str, config: PretrainConfig, source: str) -> list[int] | Literal["auto"]:
    """Powers of two that divide D and leave each head at least 8 dimensions."""
    if key != HEADS:
        raise ConfigError(f"{source}: `choices: auto` is for `{HEADS}` only; list the choices")
    size = known_hidden_size(config.model)
    if size is None:
        return "auto"
    powers = [2**i for i in range(MAX_HEADS.bit_length()) if 2**i <= MAX_HEADS]
    return [h for h in powers if size % h == 0 and size // h >= MIN_HEAD_SIZE] or [1]
