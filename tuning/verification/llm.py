"""The configured LLM: at hand, fitting the configuration, and giving what it should."""

from __future__ import annotations

import torch

from trainables.llm.frozen import free_device_memory, load_llm
from trainables.llm.location import (
    check_available,
    check_heads,
    hidden_size,
    llm_hidden_size,
    local_directory,
)
from tuning.verification.check import TOOLS, Check, ProblemError, Subjects, distance

MAX_GIB = 4.0  # a larger one does not load within the minute that `verify` may take
ROUGH = 0.05  # relative; bf16 rounds differently in batches of different shape


def _at_hand(subjects: Subjects) -> str:
    model = subjects.config.model
    check_available(model)
    directory = local_directory(model)
    if directory is None:
        return f"{model.llm_model}, not cached yet; the hub is within reach"
    return f"{model.llm_model}, hidden size {hidden_size(directory)}"


def _heads_fit(subjects: Subjects) -> str:
    model = subjects.config.model
    size = llm_hidden_size(model)
    if size is None:
        raise ProblemError("the hidden size is not known here")
    check_heads(model.num_attention_heads, size, "`model.num_attention_heads`")
    return f"{model.num_attention_heads} heads, {size}"


def _answers(subjects: Subjects) -> str:
    config = subjects.config
    directory = local_directory(config.model)
    if directory is None:
        return "not loaded: not cached yet"
    gib = sum(p.stat().st_size for p in directory.glob("*.safetensors")) / 2**30
    if gib > MAX_GIB:
        return f"not loaded: {gib:.0f} GiB of weights take longer than a minute"
    llm = load_llm(config)
    prompts = [tool.prompt for tool in TOOLS]
    alone = torch.cat([llm.last_token_states([prompt]) for prompt in prompts])
    apart = distance(llm.last_token_states(prompts), alone)
    device, dtype = llm.device, str(llm.dtype).removeprefix("torch.")
    del llm
    free_device_memory()
    if not apart <= ROUGH:
        raise ProblemError(f"states of batched prompts differ by {apart:.2g} from single ones")
    return f"{device}, {dtype}"


CHECKS = (
    Check("its files are at hand", "give another `model.llm_model`", _at_hand),
    Check("the heads divide its hidden size", "set `model.num_attention_heads`", _heads_fit),
    Check(
        "it loads, and prompts in a batch give what each gives alone",
        "give a causal LM whose tokenizer and weights belong together",
        _answers,
    ),
)
