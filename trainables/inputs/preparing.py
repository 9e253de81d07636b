"""The LLM's part in the shared inputs: it embeds the tools, its tokenizer reads the texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from trainables.config import PretrainConfig
from trainables.data.registry import Tool
from trainables.errors import DataError
from trainables.inputs.cache import embeddings_path, load_embeddings, save_embeddings
from trainables.inputs.checked_data import CheckedData
from trainables.inputs.shared_inputs import SharedInputs, make_shared_inputs

if TYPE_CHECKING:  # who finds everything in the cache does without torch
    from trainables.llm.frozen import FrozenLLM

Say = Callable[[str], None]
Source = Literal["cache", "LLM"]


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
    path = embeddings_path(config, str(llm.dtype), prompts)
    embeddings = load_embeddings(path, (len(tools), llm.hidden_size)) if path else None
    source: Source = "LLM" if embeddings is None else "cache"
    if embeddings is None:
        embeddings = llm.last_token_states(prompts, interrupt).numpy()
        if path:
            save_embeddings(embeddings, path)
    say_tools([tool.name for tool in tools], source, say)
    return embeddings


def say_tools(names: Sequence[str], source: Source, say: Say) -> None:
    """One line per tool: where its embedding comes from."""
    for number, name in enumerate(names, start=1):
        say(f"      tool {number}/{len(names)}: {name} (from the {source})")


def prepare_inputs(
    llm: FrozenLLM, data: CheckedData, tool_embeddings: npt.NDArray[np.float32] | None = None
) -> SharedInputs:
    """Tokenise the target texts and put everything that trials share together.

    Without ``tool_embeddings`` [T, D] the LLM makes them here, past every cache.
    """
    if tool_embeddings is None:
        tool_embeddings = llm.last_token_states([tool.prompt for tool in data.tools]).numpy()
    names = llm.mean_input_embeddings([tool.name for tool in data.tools]).numpy()
    return _with_texts(llm, data, tool_embeddings, names)


def check_texts(llm: FrozenLLM, data: CheckedData) -> None:
    """Raises DataError or LLMError for what ``prepare_inputs`` could not read; computes nothing."""
    llm.prompt_ids([tool.prompt for tool in data.tools])
    llm.token_ids([tool.name for tool in data.tools], special=False)
    nothing = np.zeros((len(data.tools), 1), dtype=np.float32)
    _with_texts(llm, data, nothing, nothing)


def _with_texts(
    llm: FrozenLLM,
    data: CheckedData,
    tool_embeddings: npt.NDArray[np.float32],
    names: npt.NDArray[np.float32],
) -> SharedInputs:
    end = llm.tokenizer.eos_token_id

    def encode(texts: list[str]) -> list[list[int]]:
        encoded = llm.token_ids(texts, special=False)
        return encoded if end is None else [[*ids, int(end)] for ids in encoded]

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
