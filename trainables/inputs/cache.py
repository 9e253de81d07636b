"""The shared inputs on disk: what one sweep has prepared, the next one finds.

The files are content-addressed by everything that goes into them, so that a cached answer is never
one to another question. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from trainables.config import PretrainConfig
from trainables.data import templates
from trainables.files import file_digest, keep_if_possible
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.location import llm_fingerprint, local_directory
from trainables.llm.precision import llm_precision
from trainables.models.features import FeatureStatistics

FORMAT_VERSION = 2
ARRAYS = tuple(f.name for f in fields(SharedInputs) if "Array" in f.type or "NDArray" in f.type)


def prepared_path(config: PretrainConfig, on_gpu: bool) -> Path | None:
    """Where the inputs of this training would lie; None while the LLM itself is not cached."""
    directory = local_directory(config.model)
    if directory is None:
        return None
    data = config.data
    key = [
        FORMAT_VERSION,
        llm_fingerprint(directory),
        llm_precision(config.training.precision, on_gpu),
        file_digest(Path(data.tool_registry)),
        file_digest(Path(data.profiling_data)),
        data.validation_fraction,
        data.split_seed,
        data.split,
        file_digest(Path(templates.__file__)),
    ]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    return Path(config.model.cache_dir) / "shared_inputs" / f"{name}.safetensors"


def find_inputs(config: PretrainConfig, on_gpu: bool) -> SharedInputs | None:
    """What an earlier sweep on the same data and LLM has prepared."""
    path = prepared_path(config, on_gpu)
    return load_prepared(path) if path else None


def keep_inputs(inputs: SharedInputs, config: PretrainConfig, on_gpu: bool) -> None:
    """Let the next sweep find them, if the LLM lies where it can be identified."""
    path = prepared_path(config, on_gpu)
    if path:
        save_prepared(inputs, path)


def load_prepared(path: Path) -> SharedInputs | None:
    """The inputs that were written there; None if there are none that are whole."""
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in ARRAYS}
            rest = json.loads(file.metadata()["rest"])
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None
    return SharedInputs(
        **arrays,
        tool_names=tuple(rest["tool_names"]),
        written_figures=tuple(tuple(row) for row in rest["written_figures"]),
        statistics=FeatureStatistics.from_dict(rest["statistics"]),
    )


def save_prepared(inputs: SharedInputs, path: Path) -> None:
    """Written aside and renamed; several that prepare the same at once do no harm."""
    rest: dict[str, Any] = {
        "tool_names": inputs.tool_names,
        "written_figures": inputs.written_figures,
        "statistics": inputs.statistics.as_dict(),
    }
    arrays = {name: np.ascontiguousarray(getattr(inputs, name)) for name in ARRAYS}
    metadata = {"rest": json.dumps(rest)}
    keep_if_possible(path, lambda aside: save_file(arrays, aside, metadata=metadata))
