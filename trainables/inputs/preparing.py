"""The LLM's part in the shared inputs: it embeds the tools, its tokenizer reads the texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from trainables.config import ModelConfig, PretrainConfig
from trainables.data.registry import Tool
from trainables.errors import DataError
from trainables.inputs.cache import embeddings_path, load_embeddings, save_embeddings
from trainables.inputs.checked_data import CheckedData
from trainables.inputs.shared_inputs import SharedInputs, make_shared_inputs

if TYPE_CHECKING:  # who finds everything in the cache does without torch
    from trainables.llm.frozen import FrozenLLM

EMBEDDED_MODEL = ModelConfig()
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
    llm: FrozenLLM,
    data: CheckedData,
    tool_embeddings: npt.NDArray[np.float32] | None = None,
    model: ModelConfig = EMBEDDED_MODEL,
) -> SharedInputs:
    """Tokenise the target texts and put everything that trials share together.

    Without ``tool_embeddings`` [T, D] the LLM makes them here, past every cache.
    """
    if tool_embeddings is None:
        tool_embeddings = llm.last_token_states([tool.prompt for tool in data.tools]).numpy()
    names = llm.mean_input_embeddings([tool.name for tool in data.tools]).numpy()
    return _with_texts(llm, data, tool_embeddings, names, model)


def check_texts(llm: FrozenLLM, data: CheckedData, model: ModelConfig = EMBEDDED_MODEL) -> None:
    """Raises DataError or LLMError for what ``prepare_inputs`` could not read; computes nothing."""
    llm.prompt_ids([tool.prompt for tool in data.tools])
    llm.token_ids([tool.name for tool in data.tools], special=False)
    nothing = np.zeros((len(data.tools), 1), dtype=np.float32)
    _with_texts(llm, data, nothing, nothing, model)


def _with_texts(
    llm: FrozenLLM,
    data: CheckedData,
    tool_embeddings: npt.NDArray[np.float32],
    names: npt.NDArray[np.float32],
    model: ModelConfig,
) -> SharedInputs:
    from trainables.llm.place.prompt_text import make_prompt

    prompt = make_prompt(model.settled.prompt, llm.tokenizer, llm.vocabulary)
    end = llm.tokenizer.eos_token_id

    def encode(texts: list[str]) -> list[list[int]]:
        encoded = llm.token_ids(texts, special=False)
        return encoded if end is None else [[*ids, int(end)] for ids in encoded]

    inputs = make_shared_inputs(
        data.tools,
        data.rows,
        tool_embeddings,
        names,
        encode,
        data.train_rows,
        data.val_rows,
        prompt,
    )
    check_length(inputs, model.soft_tokens, llm.max_tokens)
    return inputs


def check_length(inputs: SharedInputs, soft_tokens: int, most: int) -> None:
    """Raises DataError where prompt, soft tokens and the longest text are more than is read."""
    longest, prompt = inputs.token_ids.shape[2], len(inputs.prompt)
    # The last token of a text is predicted, not read.
    if prompt + soft_tokens + longest - 1 <= most:
        return
    if not prompt and soft_tokens == 1:
        raise DataError(
            f"the longest target text has {longest} tokens, but the LLM reads at most {most}; "
            "shorten the tools' names"
        )
    raise DataError(
        f"the longest target text has {longest} tokens, after {prompt} of `model.prompt` and "
        f"{soft_tokens} soft tokens, but the LLM reads at most {most}; shorten the prompt, lower "
        "`model.num_soft_tokens`, or shorten the tools' names"
    )
