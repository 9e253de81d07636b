"""The pieces that generated files and arguments are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True)
class Case:
    """What a person types, and has.

    ``files`` are those that ``arguments`` name, below a directory. ``environment``, where there is
    one, is what differs from this process's, None for a variable that is not set. ``trained``: what
    is accepted must go through a training.
    """

    arguments: list[str]
    files: Mapping[str, bytes] = field(default_factory=dict)
    environment: Mapping[str, str | None] | None = None
    trained: bool = False


WORDS = [
    *"auto embedded default none tpe random qmc cma_es gp asha median hyperband pbt packed".split(),
    *"dedicated min max val_loss field_accuracy cosine features summary fp32 bf16 ~ ~x/y".split(),
    *"1e-3 1e400 0x1F 1_000 2012-01-01 .inf .nan 45s 2d tools.json profiling.csv / .. ../x".split(),
    "", " ", "\0", "a\nb", "é", "\ud800", "x" * 300, "{{", "[rich]", "%s", "'", '"',
]  # fmt: skip
NUMBERS = [0, 1, 2, 3, 4, 5, 8, 16, 31, 32, 64, 128, -1, 10**6, 10**6 + 1, 2**31, 2**63, 10**30]
FRACTIONS = [0.0, 0.1, 0.25, 0.5, 0.999, 1.0, 1.5, 1e-3, 1e-5, 1e-320, 1e308, -0.0, -1.0]

scalars: SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.integers(),
    st.sampled_from(FRACTIONS),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=8),
)
values: SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def often(usual: Any, otherwise: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """What a person means to write, and now and then something else."""
    return st.integers(0, 9).flatmap(lambda n: otherwise if n == 0 else st.just(usual))


odd_bytes = st.binary(max_size=60) | st.text(max_size=60).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)


def cut(text: bytes) -> SearchStrategy[bytes]:
    """The same with its end missing, or with one byte changed."""
    places = st.integers(0, max(len(text) - 1, 0))
    changed = st.tuples(places, st.integers(0, 255)).map(
        lambda found: text[: found[0]] + bytes([found[1]]) + text[found[0] + 1 :]
    )
    return places.map(lambda place: text[:place]) | changed
