"""From checked data to what training needs: tools embedded, texts tokenised."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from trainables.config import PretrainConfig
from trainables.data.registry import Tool
from trainables.errors import DataError
from trainables.files import keep_if_possible
from trainables.inputs.checked_data import CheckedData
from trainables.inputs.shared_inputs import SharedInputs, make_shared_inputs
from trainables.llm.frozen import FrozenLLM
from trainables.llm.location import llm_fingerprint, local_directory

Say = Callable[[str], None]


def embed_tools(
    llm: FrozenLLM,
    config: PretrainConfig,
    tools: Sequence[Tool],
    say: Say,
    interrupt: Callable[[], None] = lambda: None,
) -> npt.NDArray[np.float32]:
    """The tools' semantic embeddings [T, D], from the cache or by padded forward passes.

    ``interrupt`` is called before each of these, and may raise.
    The cache is content-addressed by LLM weights, precision and prompts, so that it never
    answers for another model or another description.
    """
    prompts = [tool.prompt for tool in tools]
    path = embeddings_path(config, llm.dtype, prompts)
    states = _cached(path, len(tools), llm.hidden_size) if path else None
    source = "cache" if states is not None else "LLM"
    if states is None:
        states = llm.last_token_states(prompts, interrupt)
        if path:
            keep_if_possible(path, lambda aside: save_file({"tool_embeddings": states}, aside))
    for number, tool in enumerate(tools, start=1):
        say(f"      tool {number}/{len(tools)}: {tool.name} (from the {source})")
    return states.numpy()


def prepare_inputs(
    llm: FrozenLLM, data: CheckedData, tool_embeddings: npt.NDArray[np.float32]
) -> SharedInputs:
    """Tokenise the target texts and put everything that trials share together."""
    tokenizer = llm.tokenizer
    end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]

    def encode(texts: list[str]) -> list[list[int]]:
        encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [[*ids, *end] for ids in encoded]

    names = llm.mean_input_embeddings([tool.name for tool in data.tools]).numpy()
    inputs = make_shared_inputs(
        data.tools, data.rows, tool_embeddings, names, encode, data.train_rows, data.val_rows
    )
    longest = inputs.token_ids.shape[2]
    if longest > llm.max_tokens:
        raise DataError(
            f"the longest target text has {longest} tokens, but the LLM reads at most "
            f"{llm.max_tokens}; shorten the tools' names"
        )
    return inputs


def embeddings_path(
    config: PretrainConfig, dtype: torch.dtype, prompts: Sequence[str]
) -> Path | None:
    """Where the embeddings of these prompts lie; None while the LLM itself is not here."""
    directory = local_directory(config.model)
    if directory is None:
        return None
    content = json.dumps([llm_fingerprint(directory), str(dtype), list(prompts)])
    key = hashlib.sha256(content.encode()).hexdigest()[:32]
    return Path(config.model.cache_dir) / "tool_embeddings" / f"{key}.safetensors"


def _cached(path: Path, num_tools: int, hidden_size: int) -> torch.Tensor | None:
    if not path.is_file():
        return None
    try:
        states = load_file(path)["tool_embeddings"]
    except (SafetensorError, KeyError, OSError):
        return None
    return states if states.shape == (num_tools, hidden_size) else None
