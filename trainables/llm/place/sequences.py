"""What the LLM reads and where it predicts: prompt, soft tokens, prompt, text, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Rows(NamedTuple):
    """B rows of one run; another run's may have other numbers of soft tokens."""

    soft: Tensor  # [B, S, D]; [B, D] for one soft token
    token_ids: Tensor  # [B, L], right-padded
    counts: Tensor  # [B], real tokens per row; on the CPU, because sizes depend on it


class Sequences(NamedTuple):
    """N rows of P positions; every real target is predicted at one of them."""

    inputs: Tensor  # [N, P, D]
    places: Tensor  # [sum(counts)], into the first two dimensions taken as one
    targets: Tensor  # [sum(counts)], token ids

    def at_places(self, tensor: Tensor) -> Tensor:
        """tensor [N, P, ...] -> [sum(counts), ...]."""
        return tensor.flatten(0, 1)[self.places]


def several(soft: Tensor) -> Tensor:
    """Soft tokens [B, D] or [B, S, D] -> [B, S, D]."""
    return soft.unsqueeze(1) if soft.dim() == 2 else soft


def assemble(
    groups: Sequence[Rows], embed: nn.Module, before: Sequence[int], after: Sequence[int]
) -> Sequences:
    """All rows aligned left: ``before``, S_k soft tokens, ``after``, the text but its last token.

    Target j (from 0) of a row in group k is predicted at len(before) + S_k + len(after) - 1 + j.
    Padding stands behind every real token, so that the causal mask already hides it.
    """
    device = groups[0].token_ids.device
    fixed = _embedded([*before, *after], embed, device)
    starts = [len(before) + several(g.soft).shape[1] + len(after) for g in groups]
    width = max(
        start + int(g.token_ids.shape[1]) - 1 for start, g in zip(starts, groups, strict=True)
    )
    parts = []
    for start, group in zip(starts, groups, strict=True):
        texts = group.token_ids[:, :-1]
        # A token, not zeros: whatever the model makes of it, it must be finite.
        texts = nn.functional.pad(texts, (0, width - start - texts.shape[1]))
        embedded = embed(texts)
        soft = several(group.soft).to(embedded.dtype)
        row = [soft, embedded]
        if fixed is not None:
            around = fixed.to(embedded.dtype).expand(len(soft), -1, -1)
            row = [around[:, : len(before)], soft, around[:, len(before) :], embedded]
        parts.append(torch.cat(row, dim=1))
    inputs = torch.cat(parts) if len(parts) > 1 else parts[0]
    places, chosen = _indices(groups, starts, width, device)
    flat = torch.cat([g.token_ids.flatten() for g in groups])
    return Sequences(inputs, places, flat[chosen].long())


def _embedded(ids: Sequence[int], embed: nn.Module, device: torch.device) -> Tensor | None:
    """[1, len(ids), D]; None for none."""
    return embed(torch.tensor([ids], device=device)) if ids else None


def _indices(
    groups: Sequence[Rows], starts: Sequence[int], width: int, device: torch.device
) -> Tensor:
    """Where every real target is predicted, and where it stands in all token ids: [2, sum]."""
    places, chosen = [], []
    rows = ids = 0
    for start, group in zip(starts, groups, strict=True):
        count, length = group.token_ids.shape
        row, j = (torch.arange(length) < group.counts.unsqueeze(1)).nonzero(as_tuple=True)
        places.append((rows + row) * width + start - 1 + j)
        chosen.append(ids + row * length + j)
        rows += count
        ids += count * length
    both = torch.stack([torch.cat(places), torch.cat(chosen)])
    if device.type == "cuda":  # only from pinned memory does a copy not wait
        both = both.pin_memory()
    return both.to(device, non_blocking=True)
