"""Ranges made at random, each for a key of a training that takes all its values."""

from __future__ import annotations

from typing import Any

from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from pydantic import TypeAdapter, ValidationError

from search_spaces.ranges import NumberRange, highest
from search_spaces.schema import LARGEST, Choice, Range
from trainables.config import DEFAULT_CONFIG, load_config
from tuning.config.space import with_params

CONFIG = load_config(DEFAULT_CONFIG)
RANGE: TypeAdapter[Any] = TypeAdapter(Range)
# The least and the most that a training takes.
FLOAT_KEYS = {
    "model.dropout": (0.0, 0.999),
    "training.learning_rate": (1e-320, 1.0),
    "training.weight_decay": (0.0, 1.0),
    "training.gate_lr_multiplier": (0.0, 1000.0),
    "training.max_grad_norm": (1e-300, 1e308),
}
INT_KEYS = {
    "training.batch_size": (1, 10**6),
    "training.seed": (0, 2**31 - 1),
    "training.gate_lr_multiplier": (0, 1000),
    "training.max_grad_norm": (1, LARGEST),
}
CHOICES: dict[str, list[Any]] = {
    "training.max_grad_norm": [0.5, 1, None],
    "training.weight_decay": [0, 0.1, 1.0, 0.01],
    "model.normalize": [True, False],
    "training.scheduler": ["cosine", "linear"],
}
MADE = tuple[str, Range]


@st.composite
def float_ranges(draw: DrawFn) -> MADE:
    """Bounds and steps with a few decimals, as people write them, and any others."""
    key = draw(st.sampled_from(sorted(FLOAT_KEYS)))
    least, most = FLOAT_KEYS[key]
    decimals = st.integers(0, 1000).map(lambda n: n / draw(st.sampled_from([10, 100, 1000])))
    numbers = st.floats(least, most) | decimals.filter(lambda n: least <= n <= most)
    low, high = sorted([draw(numbers), draw(numbers)])
    shape: dict[str, Any] = draw(st.sampled_from([{}, {"log": True}, {"step": None}]))
    if "step" in shape:
        step = decimals | st.floats(1, 1e4).map(lambda parts: (high - low) / parts)
        shape = {"step": draw(step)}
    return key, made({"type": "float", "low": low, "high": high, **shape})


@st.composite
def int_ranges(draw: DrawFn) -> MADE:
    key = draw(st.sampled_from(sorted(INT_KEYS)))
    least, most = INT_KEYS[key]
    numbers = st.integers(least, most) | st.integers(least, least + 20)
    low, high = sorted([draw(numbers), draw(numbers)])
    steps = st.integers(1, 9) | st.integers(1, max(1, high - low))
    shape = draw(st.just({}) | st.just({"log": True}) | steps.map(lambda step: {"step": step}))
    return key, made({"type": "int", "low": low, "high": high, **shape})


def made(spec: dict[str, Any]) -> NumberRange:
    """A checked range; what the schema refuses is no example."""
    try:
        found: NumberRange = RANGE.validate_python(spec)
    except ValidationError:
        assume(False)
    return found


number_ranges: SearchStrategy[MADE] = float_ranges() | int_ranges()
ranges: SearchStrategy[MADE] = number_ranges | st.sampled_from(sorted(CHOICES)).map(
    lambda key: (key, Choice(type="choice", choices=CHOICES[key]))
)


def is_value(made: MADE, value: Any) -> bool:
    """Whether a training can have it, and its range does: type, bounds, steps."""
    key, spec = made
    with_params(CONFIG, {key: value}, "value")
    if isinstance(spec, Choice):
        return any(type(c) is type(value) and c == value for c in spec.choices)
    assert not isinstance(value, bool)
    steps = (value - spec.low) / spec.step if spec.step else 0.0
    return (
        isinstance(value, type(spec.low))
        and spec.low <= value <= highest(spec) <= spec.high
        and abs(steps - round(steps)) < 1e-8
    )
