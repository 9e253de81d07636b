"""The state of a run, written into a checkpoint and read back from one."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainables.config import PretrainConfig, as_begun
from trainables.errors import CheckpointError
from trainables.files import file_digest, new_directory, system_errors, without_home
from trainables.models.features import FeatureStatistics
from trainables.training.checkpoint_files import (
    FILES,
    FORMAT_VERSION,
    META_FILE,
    OPTIMIZER_FILE,
    RANDOM_FILE,
    WEIGHTS_FILE,
    checkpoint_path,
    meta_checksum,
    read_meta,
)
from trainables.training.run import Run

# What may differ between a checkpoint and the run that continues it.
MAY_DIFFER = {
    "training": {
        "num_epochs",
        "target_loss",
        "patience",
        "field_accuracy_samples",
        "stop_stuck_gates",
    }
}


def write_checkpoint(directory: Path, run: Run, history: list[dict[str, Any]]) -> None:
    """Fill an existing, empty directory with the state of ``run``, between any two steps."""
    with system_errors(directory):
        run.encoder.save_pretrained(directory)
        save_file(_optimizer_state(run), directory / OPTIMIZER_FILE)
        save_file(run.place(), directory / RANDOM_FILE)
    meta = {
        "format_version": FORMAT_VERSION,
        "epoch": run.epoch,
        "step": run.step,
        "config": without_home(run.config.model_dump()),
        "feature_statistics": run.inputs.source.statistics.as_dict(),
        "metrics": history[-1] if history else {},
        "history": history,
        "torch": torch.__version__,
        "checksums": {name: file_digest(directory / name) for name in FILES},
    }
    # Through JSON first: a float or a tuple may read back otherwise, and so would its checksum.
    meta["checksum"] = meta_checksum(json.loads(json.dumps(meta)))  # as it will be read
    (directory / META_FILE).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


def save_checkpoint(parent: Path, run: Run, history: list[dict[str, Any]]) -> Path:
    """``parent/checkpoint_<epoch>``, written aside and renamed; replaces one of that name."""
    path = checkpoint_path(parent, run.epoch)
    shutil.rmtree(path, ignore_errors=True)
    new_directory(path, lambda aside: write_checkpoint(aside, run, history))
    return path


def save_beside(parent: Path, run: Run, history: list[dict[str, Any]]) -> Path:
    """As ``save_checkpoint``, but never in the place of an earlier one of the same epoch.

    A run that took over another's weights reaches an epoch twice; whoever keeps account of the
    checkpoints by path must not lose the newer with the older.
    """
    path = checkpoint_path(parent, run.epoch)
    for number in itertools.count(1):
        if not path.exists():
            break
        path = parent / f"{checkpoint_path(parent, run.epoch).name}_{number}"
    new_directory(path, lambda aside: write_checkpoint(aside, run, history))
    return path


def load_checkpoint(directory: Path, run: Run, *, inherited: bool = False) -> list[dict[str, Any]]:
    """Put ``run`` where the checkpoint was, bit for bit; returns the history until there.

    ``inherited``: from a run with other hyperparameters, whose weights are taken over; ``run``
    keeps its own hyperparameters from here on.
    """
    meta = read_meta(directory)
    if not inherited:
        _check_same_training(directory, as_begun(meta["config"]), run.config)
    weights = load_file(directory / WEIGHTS_FILE)
    _check_same_data(directory, meta, weights, run)
    run.encoder.load_state_dict(weights)
    _load_optimizer_state(run, load_file(directory / OPTIMIZER_FILE))
    run.epoch, run.step = meta["epoch"], meta["step"]
    run.load_place(load_file(directory / RANDOM_FILE))
    return list(meta["history"])


def _optimizer_state(run: Run) -> dict[str, Tensor]:
    state = run.optimizer.state
    return {
        f"{name}.{key}": value.detach().cpu()
        for name, parameter in run.encoder.named_parameters()
        for key, value in state.get(parameter, {}).items()
    }


def _load_optimizer_state(run: Run, saved: Mapping[str, Tensor]) -> None:
    """Through the optimiser's own loader, which puts each tensor on the right device."""
    names = {id(p): name for name, p in run.encoder.named_parameters()}
    ordered = [p for group in run.optimizer.param_groups for p in group["params"]]
    content = run.optimizer.state_dict()
    content["state"] = {}
    for i, parameter in enumerate(ordered):
        prefix = f"{names[id(parameter)]}."
        content["state"][i] = {
            key.removeprefix(prefix): value
            for key, value in saved.items()
            if key.rpartition(".")[0] + "." == prefix
        }
    run.optimizer.load_state_dict(content)


def _check_same_training(directory: Path, saved: dict[str, Any], config: PretrainConfig) -> None:
    current = config.model_dump()
    for section in ("model", "training"):
        for key, value in current[section].items():
            before = saved.get(section, {}).get(key, value)
            if key in MAY_DIFFER.get(section, ()) or key in ("cache_dir", "llm_model"):
                continue
            if before != value:
                raise CheckpointError(
                    f"{directory}: was trained with `{section}.{key}` = {before!r}, but the "
                    f"configuration says {value!r}; give the same value, or train without resuming"
                )


def _check_same_data(
    directory: Path, meta: dict[str, Any], weights: dict[str, Tensor], run: Run
) -> None:
    """Tools, LLM and table show in the semantic embeddings and the feature statistics."""
    saved = weights[run.encoder.semantic_entry]
    current = run.encoder.semantic_embeddings.cpu()
    # Loosely: the embeddings of one LLM differ a little between precisions and machines.
    same_tools = saved.shape == current.shape and torch.allclose(saved, current, 1e-2, 1e-2)
    statistics = FeatureStatistics.from_dict(meta["feature_statistics"])
    if not same_tools or statistics != run.inputs.source.statistics:
        what = "another profiling table" if same_tools else "other tools or another LLM"
        raise CheckpointError(
            f"{directory}: was trained with {what}; give the same data, or train without resuming"
        )
