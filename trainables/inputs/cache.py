"""What was prepared, on the disk: what one sweep or training has prepared, the next one finds.

Below ``model.cache_dir`` stand two kinds of files: ``tool_embeddings/``, the LLM's part of the
work, good for every table with these tools; and ``shared_inputs/``, all of it, good for the same
table. They are content-addressed by everything that goes into them, so that a cached answer is
never one to another question. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from trainables.config import PretrainConfig
from trainables.data import templates
from trainables.data.registry import load_registry
from trainables.files import file_digest, keep_if_possible
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.location import llm_fingerprint, local_directory
from trainables.llm.precision import Precision, llm_precision
from trainables.models.features import FeatureStatistics

FORMAT_VERSION = 3
# As torch writes them: the names of files depend on it.
DTYPES: dict[Precision, str] = {"bf16": "torch.bfloat16", "fp32": "torch.float32"}
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
        config.model.model_dump()["prompt"],
        file_digest(Path(templates.__file__)),
    ]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    return Path(config.model.cache_dir) / "shared_inputs" / f"{name}.safetensors"


def find_inputs(config: PretrainConfig, on_gpu: bool) -> SharedInputs | None:
    """What was prepared earlier for the same data and LLM; None if nothing was."""
    path = prepared_path(config, on_gpu)
    return load_prepared(path) if path else None


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


def keep_link(path: Path, other: Path) -> None:
    """The same inputs under another question that has this answer; a copy where no link can be."""
    if not path.is_file():
        return

    def link(aside: Path) -> None:
        try:
            os.link(path, aside)
        except OSError:
            shutil.copyfile(path, aside)

    keep_if_possible(other, link)


def embeddings_path(config: PretrainConfig, dtype: str, prompts: Sequence[str]) -> Path | None:
    """Where an LLM of this ``dtype`` would leave these prompts' embeddings; None before it is here.

    ``dtype`` as torch writes it, ``torch.float32``.
    """
    directory = local_directory(config.model)
    if directory is None:
        return None
    content = json.dumps([llm_fingerprint(directory), dtype, list(prompts)])
    key = hashlib.sha256(content.encode()).hexdigest()[:32]
    return Path(config.model.cache_dir) / "tool_embeddings" / f"{key}.safetensors"


def load_embeddings(path: Path, shape: tuple[int, int]) -> npt.NDArray[np.float32] | None:
    """The embeddings [T, D] that were written there; None if none of this shape are whole."""
    if not path.is_file():
        return None
    try:
        states = load_file(path)["tool_embeddings"]
    except (SafetensorError, KeyError, OSError):
        return None
    return states if states.shape == shape else None


def save_embeddings(embeddings: npt.NDArray[np.float32], path: Path) -> None:
    arrays = {"tool_embeddings": np.ascontiguousarray(embeddings)}
    keep_if_possible(path, lambda aside: save_file(arrays, aside))


def unread_prompts(config: PretrainConfig, on_gpu: bool) -> list[str]:
    """The tools' prompts that the LLM has still to read; none where the cache has its answers."""
    prompts = [tool.prompt for tool in load_registry(Path(config.data.tool_registry))]
    dtype = DTYPES[llm_precision(config.training.precision, on_gpu)]
    paths = (prepared_path(config, on_gpu), embeddings_path(config, dtype, prompts))
    return [] if any(path and path.is_file() for path in paths) else prompts
