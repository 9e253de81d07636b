"""What an encoder is worth on the held-out rows: loss, retention, decoded figures."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from trainables.data.templates import parse
from trainables.llm.frozen import FrozenLLM
from trainables.llm.place.sequences import several
from trainables.models.encoder import evaluating
from trainables.models.features import RESOURCES
from trainables.training.batches import Batch, DeviceInputs
from trainables.training.run import Run

EVALUATION_BATCH = 64


def evaluate(run: Run, llm: FrozenLLM) -> tuple[float, float]:
    """Mean loss per token and semantic retention on the held-out rows.

    Row i is read in template i mod K, always the same, so that epochs can be compared.
    """
    losses: list[Tensor] = []
    cosines: list[Tensor] = []
    with torch.no_grad(), evaluating(run.encoder):
        for batch in _validation_batches(run.inputs):
            soft = run.encoder(batch.tool_index, batch.features)
            prompt = run.inputs.prompt
            losses.append(llm.token_losses(soft, batch.token_ids, batch.counts, prompt))
            semantic = run.encoder.semantic_embeddings[batch.tool_index]
            cosines.append(retention(soft, semantic))
    return float(torch.cat(losses).mean()), float(torch.cat(cosines).mean())


def retention(soft: Tensor, semantic: Tensor) -> Tensor:
    """Mean cosine over the soft tokens: [B, S, D] or [B, D] against [B, D] -> [B]."""
    soft = several(soft)
    return torch.cosine_similarity(soft, semantic.unsqueeze(1), dim=-1).mean(dim=1)


def field_accuracy(run: Run, llm: FrozenLLM, samples: int) -> float:
    """Share of the six figures that greedy decoding writes exactly as the target text does.

    On the first ``samples`` held-out rows, evenly spread; the sentence may follow any
    template, and one that follows none gets all six wrong.
    """
    rows = run.inputs.val_rows
    count = min(samples, len(rows))
    places = (torch.arange(count) * len(rows)) // count
    # A few tokens more than the longest text: room for a wrong figure, none for babbling.
    prompt = run.inputs.prompt
    read = len(prompt) + run.config.model.soft_tokens
    limit = min(int(run.inputs.source.token_counts.max()) + 4, llm.max_tokens - read)
    right = 0
    with torch.no_grad(), evaluating(run.encoder):
        for part in places.split(EVALUATION_BATCH):
            chosen = rows[part].to(run.inputs.device)
            soft = run.encoder(run.inputs.tool_index[chosen], run.inputs.features[chosen])
            for place, text in zip(part.tolist(), llm.write(soft, limit, prompt), strict=True):
                said = parse(text) or {}
                truth = zip(RESOURCES, run.inputs.source.written_figures[place], strict=True)
                right += sum(said.get(name) == value for name, value in truth)
    return right / (count * len(RESOURCES))


def _validation_batches(inputs: DeviceInputs) -> Iterator[Batch]:
    """All held-out rows, of like length together."""
    templates = torch.arange(len(inputs.val_rows)) % inputs.num_templates
    # Like lengths together: padding is computed, too.
    by_length = inputs.token_counts[inputs.val_rows, templates].argsort(stable=True)
    for places in by_length.split(EVALUATION_BATCH):
        yield inputs.batch(inputs.val_rows[places], templates[places])
