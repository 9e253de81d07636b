"""Checkpoints of earlier releases: single ``torch.save`` files, told apart by their tensors' names.

embedding_attention   semantics from the LLM's input embeddings, fused by self-attention, no gate
gated                 the gated encoder with one resource token and without normalisation

``trainables.migration`` reads them; every other loader refuses them and says how to convert them.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from trainables.errors import CheckpointError

Form = Literal["embedding_attention", "gated"]
FORMS: dict[Form, str] = {
    "embedding_attention": (
        "a single file of the earlier architecture (semantics from the LLM's input embeddings, "
        "fusion by self-attention, no gate), whose fusion has no place in the gated encoder"
    ),
    "gated": (
        "a single file of an earlier release of the gated encoder, without the tools' names, "
        "options and feature statistics that a checkpoint now holds"
    ),
}
ANCHOR = "resource_mlp.fc1.weight"
UNSAFE = re.compile(r"Unsupported (?:global: GLOBAL|class) (\S+)")
ENCODER_ENTRY = "encoder_state_dict."
PARTS = (
    "semantic_embedding",
    "tool_token_ids",
    "resource_mlp",
    "fusion_attention",
    "fusion_norm",
    "semantic_encoder",
    "fusion",
)

# Losses and metrics are often numpy scalars; rebuilding one runs no code of the file's choice.
_scalar = np.float64(0).__reduce__()[0]
NUMPY_SCALARS: list[Any] = [
    (_scalar, "numpy._core.multiarray.scalar"),
    (_scalar, "numpy.core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
]


@dataclass(frozen=True)
class EarlierFile:
    """The encoder's tensors by their names inside it, and whatever else the file holds."""

    path: Path
    form: Form
    weights: dict[str, Tensor]
    others: dict[str, Any]


def read_earlier_file(path: Path) -> EarlierFile:
    """Recognise a file whose tensors stand flat or nested, under any prefix (DDP's, compile's).

    Raises CheckpointError for whatever is not a checkpoint of an earlier release.
    """
    content = _load(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, but must hold a dict")
    tensors = dict(_flat(content))
    prefix = _encoder_prefix(path, tensors)
    weights = {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix) and name.removeprefix(prefix).split(".")[0] in PARTS
    }
    own = {f"{prefix}{name}" for name in weights}
    return EarlierFile(path, _form(path, weights), weights, dict(_others(content, tensors, own)))


def is_earlier_file(path: Path) -> bool:
    try:
        read_earlier_file(path)
    except CheckpointError:
        return False
    return True


def refusal(path: Path) -> CheckpointError:
    """Why ``path``, a file, cannot be loaded directly, and the command that converts it."""
    if not is_earlier_file(path):
        return CheckpointError(
            f"{path}: is a file; give the directory of a checkpoint or of an export"
        )
    return CheckpointError(
        f"{path}: {FORMS[read_earlier_file(path).form]}. Convert it: python run_tune.py migrate "
        f"checkpoint {path} --out DIR --config TRAIN.yaml"
    )


def _load(path: Path) -> Any:
    """Tensors and plain values only: nothing in the file is run. Large files stay on the disk."""
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS):
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # noqa: BLE001 - a damaged file makes the unpickler raise anything
        if found := UNSAFE.search(str(error)):
            raise CheckpointError(
                f"{path}: holds more than tensors and plain values ({found[1]}), which is not "
                "loaded; load it where you trust it and save its `encoder_state_dict` alone"
            ) from None
        raise CheckpointError(
            f"{path}: no file that `torch.save` wrote, or damaged ({type(error).__name__})"
        ) from None


def _flat(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor with the dotted path to it."""
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")


def _others(
    content: Mapping[Any, Any], tensors: Mapping[str, Tensor], own: set[str]
) -> Iterator[tuple[str, Any]]:
    """Entries of the file beside the encoder, and tensors in its place that are none of its."""
    for key, value in content.items():
        names = [name for name, _ in _flat({key: value})]
        if own.isdisjoint(names):
            yield str(key), value
        else:
            yield from ((name, tensors[name]) for name in names if name not in own)


def _encoder_prefix(path: Path, tensors: Mapping[str, Tensor]) -> str:
    found = [name.removesuffix(ANCHOR) for name in tensors if f".{name}".endswith(f".{ANCHOR}")]
    chosen = [p for p in found if p.startswith(ENCODER_ENTRY)] if len(found) > 1 else found
    if len(chosen) != 1:
        what = f"`{ANCHOR}` below {', '.join(found)}" if found else f"no `{ANCHOR}`"
        raise CheckpointError(
            f"{path}: no checkpoint of an earlier encoder: has {what}, but needs exactly one, "
            "below `encoder_state_dict`"
        )
    return chosen[0]


def _form(path: Path, weights: Mapping[str, Tensor]) -> Form:
    if "fusion.gate_alpha" in weights:
        return "gated"
    if any(name.startswith("fusion_attention.") for name in weights):
        return "embedding_attention"
    raise CheckpointError(
        f"{path}: has `{ANCHOR}`, but neither `fusion.gate_alpha` nor `fusion_attention.*`: of no "
        "earlier encoder"
    )
