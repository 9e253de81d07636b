"""The tensors of an earlier release's file, brought into today's encoder, each accounted for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainables.config import ModelConfig
from trainables.errors import CheckpointError
from trainables.migration.changes import Change
from trainables.models.earlier_files import EarlierFile
from trainables.models.features import FeatureStatistics
from trainables.models.resource_encoder import ResourceEncoder
from trainables.models.resource_mlp import ResourceMLP

EMBEDDINGS = "semantic_encoder.tool_semantic_embeddings"
FC2 = "resource_mlp.fc2.weight"
ATTENTION = "fusion.cross_attention"
GATE = "fusion.gate_alpha"
MIRRORED = (GATE, f"{ATTENTION}.out_proj.weight", f"{ATTENTION}.out_proj.bias")
COMPUTED = ("resource_mlp.", "fusion.")  # modules whose every tensor shapes the output
LEFT_OUT = {
    "semantic_encoder.llm_model": "the LLM is read from `model.llm_model`, never from a checkpoint",
    "semantic_embedding": "the LLM's input embeddings; semantics are its last hidden states now",
    "tool_token_ids": "the tokens of `semantic_embedding`",
    "fusion_attention": "self-attention over the two streams has no place in the gated fusion",
    "fusion_norm": "the norm of `fusion_attention`",
    "optimizer_state_dict": "a training begins with moments of its own",
    "scheduler_state_dict": "the learning rate follows from the configuration",
}
PROGRESS = ("epoch", "global_step", "best_loss", "metrics")


def gated_encoder(
    file: EarlierFile, tools: Sequence[str], statistics: FeatureStatistics, model: ModelConfig
) -> tuple[ResourceEncoder, list[Change]]:
    """The gated encoder of the file, in evaluation mode: equal features give equal outputs."""
    embeddings = _needed(file, EMBEDDINGS)
    if len(embeddings) != len(tools):
        raise CheckpointError(
            f"{file.path}: has embeddings of {len(embeddings)} tools, but `data.tool_registry` "
            f"lists {len(tools)}; give the registry that it was trained with, in its order"
        )
    width = len(_needed(file, FC2))
    encoder = ResourceEncoder(
        tools,
        embeddings,
        num_attention_heads=model.num_attention_heads,
        dropout=model.dropout,
        d_resource=None if width == embeddings.shape[1] else width,
        resource_tokens="summary",
        normalize=False,
        feature_statistics=statistics,
    )
    weights, changes = _carry(file, encoder.state_dict())
    if weights[GATE] < 0:
        weights |= {name: -weights[name] for name in MIRRORED}
        why = "the same function; a healthy gate grows upward from 0"
        changes.append(Change("mirrored", "gate_alpha and out_proj, both times -1", why))
    encoder.load_state_dict(weights)
    return encoder.eval(), changes + left_out(file, weights)


def resource_mlp_weights(
    file: EarlierFile, width: int | None
) -> tuple[dict[str, Tensor], list[Change]]:
    """The resource MLP alone, [B, R] -> [B, width]; None takes the file's width."""
    target = ResourceMLP(width or len(_needed(file, FC2)), dropout=0.0).state_dict()
    named = {f"resource_mlp.{name}": tensor for name, tensor in target.items()}
    weights, changes = _carry(file, named)
    carried = {name.removeprefix("resource_mlp."): tensor for name, tensor in weights.items()}
    return carried, changes + left_out(file, weights)


def _carry(
    file: EarlierFile, target: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[Change]]:
    """A float32 copy for every name of ``target``; a bias that was switched off becomes zeros."""
    found = _joined_projections(file.weights, target)
    parts = {name.split(".")[0] + "." for name in target} & set(COMPUTED)
    unknown = [n for n in found if n.startswith(tuple(parts)) and n not in target]
    if unknown:
        raise CheckpointError(
            f"{file.path}: has `{unknown[0]}`, which this encoder has not, so that its outputs "
            "could not be kept; it cannot be migrated"
        )
    weights, changes = {}, []
    for name, like in target.items():
        if name not in found and name.endswith("bias"):
            weights[name] = torch.zeros_like(like)
            changes.append(Change("filled", f"{name} {_shape(like)}", "zeros: it had no bias"))
            continue
        weights[name] = _fitting(file, name, _needed(file, name, found), like)
        changes.append(Change("carried", f"{name} {_shape(like)}", ""))
    return weights, changes


def _joined_projections(
    weights: Mapping[str, Tensor], target: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Query, key and value projections in one tensor where the encoder keeps them in one."""
    joined = f"{ATTENTION}.in_proj_weight"
    separate = [f"{ATTENTION}.{part}_proj_weight" for part in "qkv"]
    found = dict(weights)
    if joined in target and all(name in found for name in separate):
        found[joined] = torch.cat([found.pop(name) for name in separate])
    return found


def _needed(file: EarlierFile, name: str, found: Mapping[str, Tensor] | None = None) -> Tensor:
    tensor = (file.weights if found is None else found).get(name)
    if tensor is None:
        raise CheckpointError(f"{file.path}: has no `{name}`; is the file whole?")
    return tensor


def _fitting(file: EarlierFile, name: str, tensor: Tensor, like: Tensor) -> Tensor:
    if like.ndim == 0 and tensor.numel() == 1:
        tensor = tensor.reshape(())
    if tensor.shape != like.shape:
        raise CheckpointError(
            f"{file.path}: `{name}` has the shape {_shape(tensor)}, but {_shape(like)} is needed; "
            "give the LLM that it was trained with as `model.llm_model`, or the width of its "
            "resource tokens as `model.d_resource`"
        )
    return tensor.detach().float().clone().contiguous()


def left_out(file: EarlierFile, carried: Iterable[str]) -> list[Change]:
    """What of the file goes nowhere, tensors of one group together, with the reason."""
    used = set(carried) | {f"{ATTENTION}.{part}_proj_weight" for part in "qkv"}
    unused: dict[str, Any] = {n: v for n, v in file.weights.items() if n not in used}
    groups: dict[str, list[Any]] = {}
    for name, value in {**unused, **file.others}.items():
        groups.setdefault(_group(name), []).append(value)
    return [_left_out(name, values) for name, values in groups.items()]


def _group(name: str) -> str:
    return next((g for g in LEFT_OUT if f"{name}.".startswith(f"{g}.")), name)


def _left_out(name: str, values: Sequence[Any]) -> Change:
    tensors = [value for value in values if isinstance(value, Tensor)]
    if name in PROGRESS and not tensors:
        written = json.dumps(values[0], default=str)
        return Change("noted", f"{name} {written}", "of the old training; the count starts anew")
    size = sum(tensor.nbytes for tensor in tensors) / 2**20
    plural = "s" if len(tensors) > 1 else ""
    count = f" ({len(tensors)} tensor{plural}, {size:.1f} MiB)" if tensors else ""
    return Change("left out", f"{name}{count}", LEFT_OUT.get(name, "not known to this release"))


def _shape(tensor: Tensor) -> str:
    return f"[{', '.join(map(str, tensor.shape))}]"
