"""The loss: against a version that takes one text at a time, and with an LLM that stays frozen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.llm.frozen import FrozenLLM
from trainables.training.batches import Batch
from trainables.training.run import Run
from trainables.training.step import train_step
from tuning.verification.check import Check, ProblemError, Subjects, must_equal, random_tensor


def _padded_batch(run: Run) -> Batch:
    """Three texts of different lengths."""
    templates = torch.tensor([0, 1, 3])
    batch = run.inputs.batch(torch.tensor([0, 9, 18]), templates)
    if len(set(batch.counts.tolist())) == 1:
        raise ProblemError("the texts that should differ in length do not")
    return batch


def _naive(llm: FrozenLLM, soft: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of every real token, [sum(counts)], one unpadded text at a time."""
    losses = []
    for row, tokens, count in zip(soft, batch.token_ids, batch.counts, strict=True):
        tokens = tokens[: int(count)].long()
        inputs = torch.cat([row[None], llm.embed_tokens(tokens)])[None]
        logits = llm.model(inputs_embeds=inputs).logits[0, :-1]
        losses.append(nn.functional.cross_entropy(logits, tokens, reduction="none"))
    return torch.cat(losses)


@torch.no_grad()
def _padding_changes_nothing(subjects: Subjects) -> str:
    llm, batch = subjects.llm, _padded_batch(subjects.run())
    soft = random_tensor(len(batch.counts), llm.hidden_size)
    losses = llm.token_losses(soft, batch.token_ids, batch.counts)
    must_equal(losses, _naive(llm, soft, batch), "the loss of a token")
    return ""


def _step_reports_the_mean(subjects: Subjects) -> str:
    run = subjects.run()
    batch = run.next_batch()
    with torch.no_grad():
        expected = _naive(subjects.llm, run.soft_tokens(batch), batch).mean()
    for error in train_step([run], subjects.llm).values():
        raise error
    must_equal(torch.tensor(run.series.column("loss")[0]), expected, "the loss of a step")
    return ""


def _llm_is_frozen(subjects: Subjects) -> str:
    llm, batch = subjects.llm, _padded_batch(subjects.run())
    soft = random_tensor(len(batch.counts), llm.hidden_size).requires_grad_()
    llm.token_losses(soft, batch.token_ids, batch.counts).mean().backward()
    learning = sum(p.requires_grad or p.grad is not None for p in llm.model.parameters())
    if learning:
        raise ProblemError(f"{learning} of the LLM's tensors are trainable")
    if soft.grad is None or not soft.grad.abs().min(dim=0).values.any():
        raise ProblemError("no gradient passes through the LLM to the soft tokens")
    return ""


CHECKS = (
    Check(
        "a padded batch gives each token the loss that its text has alone",
        "count real target tokens only, each predicted by the position before it",
        _padding_changes_nothing,
    ),
    Check(
        "a step's loss is the mean over the real target tokens",
        "divide by the number of real tokens; padding must not count",
        _step_reports_the_mean,
    ),
    Check(
        "the LLM is frozen, and gradients pass through it to the soft tokens",
        "call `requires_grad_(False)` on the model, and no `no_grad` around its forward pass",
        _llm_is_frozen,
    ),
)
