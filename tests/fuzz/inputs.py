"""What people might write: files and arguments made at random, some valid, most not quite."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import yaml
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from search_spaces.schema import Choice, Fixed, FloatRange, IntRange
from tests.fuzz.data_files import both_files, registries, tables
from tests.fuzz.environments import environments
from tests.fuzz.llm_directories import llm_directories
from tests.fuzz.pieces import (
    FRACTIONS,
    NUMBERS,
    WORDS,
    Case,
    cut,
    odd_bytes,
    often,
    scalars,
    values,
)
from trainables.config import PretrainConfig
from tuning.config.space import searchable_keys
from tuning.config.sweep import SweepConfig
from tuning.history.event_log import encode
from tuning.history.manifest import with_checksum

SECTIONS = {
    name: list(f.annotation.model_fields) for name, f in PretrainConfig.model_fields.items()
}  # type: ignore[union-attr]
TRAIN_KEYS = [f"{section}.{key}" for section, keys in SECTIONS.items() for key in keys]
SWEEP_KEYS = [
    *SweepConfig.model_fields,
    *(f"train.{key}" for key in TRAIN_KEYS),
    *(f"search.{key}" for key in ("type", "seed", "startup_trials")),
    *(f"scheduler.{key}" for key in ("type", "grace_epochs", "reduction_factor", "min_trials")),
    *(f"execution.{key}" for key in ("type", "hosts", "lanes", "workers_per_trial")),
]


def as_yaml(value: Any) -> bytes:
    """YAML without anchors and without the tags that only an unsafe loader reads."""
    stream = io.StringIO()
    yaml.dump(copy.deepcopy(value), stream, Dumper=yaml.SafeDumper, allow_unicode=True)
    return stream.getvalue().encode("utf-8", "surrogatepass")


def set_at(mapping: dict[str, Any], dotted: str, value: Any) -> None:
    """As a person would write it, whatever stands on the way."""
    *sections, last = dotted.split(".")
    for section in sections:
        if not isinstance(mapping.get(section), dict):
            mapping[section] = {}
        mapping = mapping[section]
    mapping[last] = value


@st.composite
def mutated(draw: DrawFn, base: Callable[[], dict[str, Any]], keys: Sequence[str]) -> bytes:
    """A valid mapping with a few of its values replaced, or a few keys added."""
    mapping = base()
    for _ in range(draw(st.integers(0, 2))):
        key = draw(often(draw(st.sampled_from(keys)), st.text(max_size=6)))
        set_at(mapping, key, draw(st.sampled_from(NUMBERS + FRACTIONS) | values))
    text = as_yaml(mapping)
    return draw(often(text, odd_bytes | cut(text)))


def train_base() -> dict[str, Any]:
    return {
        "data": {"tool_registry": "tools.json", "profiling_data": "profiling.csv"},
        "training": {"batch_size": 8, "num_epochs": 2},
    }


def sweep_base() -> dict[str, Any]:
    return {"train": train_base(), "search": {"type": "tpe"}, "num_trials": 4}


train_files: SearchStrategy[Case] = mutated(train_base, TRAIN_KEYS).map(
    lambda text: Case(["--set", "train=train.yaml", "--num_trials", "4"], {"train.yaml": text})
)
sweep_files: SearchStrategy[Case] = mutated(sweep_base, SWEEP_KEYS).map(
    lambda text: Case(["--config", "sweep.yaml"], {"sweep.yaml": text})
)


USUAL = [
    *"num_trials=3 train.training.num_epochs=2 search.seed=7 scheduler.type=none group=2".split(),
    *"search_space.model.dropout.high=0.3 train.model.dropout=0.2 time_budget=90m".split(),
    *"execution.lanes=2 max_concurrent=1 search.type=random keep_best=1 deterministic=true".split(),
    "search_space={model.dropout: {type: float, low: 0, high: 0.1}}",
    "scheduler={type: asha, grace_epochs: 2}",
]


@st.composite
def overrides(draw: DrawFn) -> Case:
    """``--set`` with values as YAML or as whatever a shell lets through, and the other flags."""
    arguments = ["--config", "good.yaml"]
    shown = values.map(lambda v: as_yaml(v).decode("utf-8", "surrogatepass").strip())
    for _ in range(draw(st.integers(1, 3))):
        key = draw(often(draw(st.sampled_from(SWEEP_KEYS)), st.text(max_size=6)))
        odd = f"{key}={draw(shown | st.text(max_size=8))}"
        arguments += ["--set", draw(st.sampled_from([*USUAL, *[odd] * len(USUAL)]))]
    flags = ("--num_trials", "--num_epochs", "--batch_size")
    for flag in draw(st.lists(st.sampled_from(flags), max_size=2)):
        arguments.append(f"{flag}={draw(shown)}")
    return Case([text.replace("\0", "") for text in arguments])


SPACE: dict[str, dict[str, Any]] = {
    "training.learning_rate": {"type": "float", "low": 1e-4, "high": 0.1, "log": True},
    "training.batch_size": {"type": "int", "low": 4, "high": 16, "step": 4},
    "training.weight_decay": {"type": "float", "low": 0, "high": 0.1},
    "training.max_grad_norm": {"type": "choice", "choices": [0.5, 1, None]},
    "training.scheduler": {"type": "choice", "choices": ["cosine", "linear"]},
    "training.seed": {"type": "fixed", "value": 3},
    "model.dropout": {"type": "float", "low": 0, "high": 0.5, "step": 0.1},
    "model.d_resource": {"type": "int", "low": 8, "high": 64, "log": True},
    "model.num_attention_heads": {"type": "choice", "choices": "auto"},
    "model.normalize": {"type": "choice", "choices": [True, False]},
}
RANGE_KEYS = sorted({k for m in (FloatRange, IntRange, Choice, Fixed) for k in m.model_fields})


@st.composite
def spaces(draw: DrawFn) -> Case:
    space: dict[str, Any] = {}
    for known in draw(
        st.lists(st.sampled_from(sorted(SPACE)), min_size=1, max_size=4, unique=True)
    ):
        key = draw(often(known, st.sampled_from(searchable_keys()) | st.text(max_size=8)))
        spec: Any = dict(SPACE[known])
        if draw(st.integers(0, 3)) == 0:
            change = st.sampled_from(NUMBERS + FRACTIONS) | values
            spec[draw(st.sampled_from(RANGE_KEYS))] = draw(change)
        if space and draw(st.integers(0, 3)) == 0:
            other = draw(st.sampled_from(sorted(space)))
            spec["when"] = {other: draw(st.sampled_from([True, 0.5, 1, "cosine"]) | scalars)}
        space[key] = draw(often(spec, scalars))
    kind = draw(st.sampled_from(["tpe", "random", "qmc", "cma_es", "gp"]))
    text = draw(often(as_yaml(space), odd_bytes))
    wanted = ["--set", "search_space=space.yaml", "--set", f"search.type={kind}"]
    return Case(["--config", "good.yaml", *wanted], {"space.yaml": text})


POINT = {
    "training.learning_rate": st.floats(1e-6, 0.5),
    "model.dropout": st.floats(0, 0.9),
    "model.num_attention_heads": st.sampled_from([1, 2, 4, 8, 16, 7]),
    "training.batch_size": st.integers(1, 99),
    "model.normalize": st.booleans(),
}


@st.composite
def point(draw: DrawFn) -> dict[str, Any]:
    """Parameters of a trial."""
    keys = draw(st.lists(st.sampled_from(sorted(POINT)), max_size=3, unique=True))
    found = {key: draw(POINT[key]) for key in keys}
    other = st.dictionaries(
        st.sampled_from(searchable_keys()) | st.text(max_size=4), values, max_size=2
    )
    return {**found, **draw(often({}, other))}


points = point()


@st.composite
def earlier_sweeps(draw: DrawFn) -> Case:
    """``--warm_start_from`` a directory whose history anybody may have written."""
    facts: dict[str, Any] = {"name": "other", "metric": "val_loss", "mode": "min"}
    facts |= {"num_trials": 2, "created": 1, "python": "3", "versions": {}, "inputs": {}}
    for _ in range(draw(often(0, st.just(1)))):
        facts[draw(st.sampled_from(sorted(facts)))] = draw(values)
    events: list[dict[str, Any]] = []
    for number in range(draw(st.integers(0, 3))):
        name = draw(often(f"trial_{number:04d}", st.sampled_from(WORDS)))
        params = draw(points)
        metrics = {"epoch": 1, "val_loss": draw(st.floats() | st.integers(0, 3))}
        trial = {"trial_id": name, "time": 1}
        events += [
            {"event": "trial", "params": params, **trial},
            {"event": "epoch", "metrics": metrics, **trial},
            {"event": "checkpoint", "path": draw(st.sampled_from(WORDS)), **trial},
            {"event": "end", "status": "finished", **trial},
        ]
    for event in draw(st.lists(st.sampled_from(events), max_size=1)) if events else []:
        event[draw(st.sampled_from(sorted(event)))] = draw(values)
    history = b"".join(map(encode, events))
    files = {
        "sweeps/other/manifest.json": json.dumps(with_checksum(facts)).encode(),
        "sweeps/other/trials.jsonl": draw(often(history, cut(history) | odd_bytes)),
    }
    return Case(["--config", "good.yaml", "--warm_start_from", "other"], files)


@st.composite
def first_points(draw: DrawFn) -> Case:
    """``warm_start`` in a sweep's own file."""
    whole = draw(often(draw(st.lists(points, max_size=3)), values))
    sweep = {**sweep_base(), "warm_start": whole}
    return Case(["--config", "sweep.yaml"], {"sweep.yaml": as_yaml(sweep)})


FLAGS = [
    "--config",
    "--set",
    "--storage",
    "--num_trials",
    "--batch_size",
    "--num_epochs",
    "--bogus",
]
arguments: SearchStrategy[Case] = st.lists(
    st.sampled_from(FLAGS) | st.sampled_from(WORDS) | st.text(max_size=8), max_size=6
).map(lambda found: Case([text.replace("\0", "") for text in found]))

KINDS: dict[str, SearchStrategy[Case]] = {
    "training files": train_files,
    "sweep files": sweep_files,
    "--set and flags": overrides(),
    "tools.json": registries(),
    "profiling.csv": tables(),
    "both files": both_files(),
    "search spaces": spaces(),
    "warm start from a sweep": earlier_sweeps(),
    "warm_start in a file": first_points(),
    "any arguments": arguments,
    "LLM directories": llm_directories(),
    "environments": environments(),
}
