"""The semantic stream: pooling at the last real token, and nothing that learns."""

from __future__ import annotations

import torch

from tuning.verification.check import (
    TOOLS,
    Check,
    ProblemError,
    Subjects,
    must_equal,
    small_encoder,
)

PROMPTS = [tool.prompt for tool in TOOLS]


@torch.no_grad()
def _last_real_token(subjects: Subjects) -> str:
    llm = subjects.llm
    ids = [llm.tokenizer(prompt, return_tensors="pt")["input_ids"] for prompt in PROMPTS]
    by_hand = torch.cat([llm.body(input_ids=i).last_hidden_state[:, -1] for i in ids])
    try:
        for side in ("left", "right"):
            llm.tokenizer.padding_side = side
            states = llm.last_token_states(PROMPTS)
            must_equal(states, by_hand, f"with padding on the {side} the state")
    finally:
        llm.tokenizer.padding_side = "right"
    return ""


def _batched_equals_single(subjects: Subjects) -> str:
    alone = torch.cat([subjects.llm.last_token_states([prompt]) for prompt in PROMPTS])
    must_equal(subjects.llm.last_token_states(PROMPTS), alone, "the state of a batched prompt")
    return ""


def _nothing_trainable(subjects: Subjects) -> str:
    stream = small_encoder().semantic_encoder
    learning = [name for name, p in stream.named_parameters() if p.requires_grad]
    learning += [name for name, b in stream.named_buffers() if b.requires_grad]
    if learning:
        raise ProblemError(f"trainable: {', '.join(learning)}")
    return ""


CHECKS = (
    Check(
        "the last real token is found, padding on the left or the right",
        "take the hidden state at the last position whose mask is 1",
        _last_real_token,
    ),
    Check(
        "prompts in a batch give what each gives alone",
        "hand the attention mask to the LLM, and pool by it",
        _batched_equals_single,
    ),
    Check(
        "nothing in it is trainable",
        "register the embeddings as a buffer, without gradient",
        _nothing_trainable,
    ),
)
