"""The one way to the shared inputs: found in the cache, or prepared with the LLM and kept there.

Torch is imported only to load an LLM: who finds them in the cache does without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from trainables.config import PretrainConfig
from trainables.inputs.cache import keep_link, load_prepared, prepared_path, save_prepared
from trainables.inputs.checked_data import read_data
from trainables.inputs.preparing import Say, embed_tools, prepare_inputs
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.precision import llm_precision
from trainables.llm.verdict import known_verdict

if TYPE_CHECKING:
    from trainables.llm.frozen import FrozenLLM

Origin = Literal["from the cache", "prepared here"]
FROM_CACHE: Origin = "from the cache"
PREPARED: Origin = "prepared here"


def find_or_prepare(
    config: PretrainConfig,
    on_gpu: bool,
    *,
    llm: FrozenLLM | None = None,
    say: Say = lambda line: None,
    interrupt: Callable[[], None] = lambda: None,
) -> tuple[SharedInputs, Origin]:
    """The shared inputs of this training, and where they come from.

    ``on_gpu`` tells whether those train on a GPU who will use them: it decides the LLM's precision.
    ``llm`` is one that stands already and is left standing; without it one is loaded, if something
    has to be prepared or it was never probed, and given back. ``say`` gets a line per tool that is
    embedded; ``interrupt`` is called in between, and may raise.

    Raises DataError for a table, a registry or a text that the LLM cannot take, LLMError for an
    LLM that cannot be used.
    """
    path = prepared_path(config, on_gpu)
    inputs = load_prepared(path) if path else None
    # Whoever brings no LLM is to know that there is one that can be used.
    if inputs is not None and (llm is not None or known_verdict(config.model) is not None):
        return inputs, FROM_CACHE
    if llm is None:
        inputs = _prepare_with_own_llm(config, on_gpu, say, interrupt)
    else:
        inputs = _prepare(config, llm, say, interrupt)
    if path := path or prepared_path(config, on_gpu):  # an LLM of the hub may only now be here
        save_prepared(inputs, path)
        settled = prepared_path(with_prompt(config, inputs), on_gpu)
        if settled and settled != path:  # what goes on asks for the tokens that were found
            keep_link(path, settled)
    return inputs, PREPARED


def with_prompt(config: PretrainConfig, inputs: SharedInputs) -> PretrainConfig:
    """With the tokens around the soft tokens in the place of what they were made from."""
    model = config.model.model_copy(update={"prompt": inputs.prompt.as_config})
    return config.model_copy(update={"model": model})


def _prepare_with_own_llm(
    config: PretrainConfig, on_gpu: bool, say: Say, interrupt: Callable[[], None]
) -> SharedInputs:
    from trainables.llm.frozen import free_device_memory, select_device, select_dtype
    from trainables.llm.probe import load_probed

    device = select_device()
    # Theirs who train, also where this process has no GPU and they have one.
    dtype = select_dtype(llm_precision(config.training.precision, on_gpu), device)
    try:  # nothing here holds the LLM when its memory is given back
        return _prepare(config, load_probed(config.model, device, dtype), say, interrupt)
    finally:
        free_device_memory()


def _prepare(
    config: PretrainConfig, llm: FrozenLLM, say: Say, interrupt: Callable[[], None]
) -> SharedInputs:
    data = read_data(config)
    embeddings = embed_tools(llm, config, data.tools, say, interrupt)
    interrupt()
    return prepare_inputs(llm, data, embeddings, config.model)
