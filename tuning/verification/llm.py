"""The configured LLM: at hand, fitting the configuration, and giving what it should."""

from __future__ import annotations

from trainables.config import PretrainConfig
from trainables.errors import UserError
from trainables.inputs.checked_data import read_data
from trainables.inputs.preparing import check_texts
from trainables.inputs.probing import WHOLE_GIB, weights_gib
from trainables.llm.frozen import FrozenLLM, free_device_memory
from trainables.llm.location import (
    check_available,
    check_heads,
    hidden_size,
    llm_hidden_size,
    local_directory,
)
from trainables.llm.probe import load_probed_llm, probe
from trainables.llm.small_copy import small_copy
from tuning.verification.check import Check, ProblemError, Subjects


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
    size = weights_gib(directory)
    if size > WHOLE_GIB:
        copy = small_copy(config.model, directory)
        if copy is not None:
            probe(copy, config.model)
            _read_texts(copy, config)
        done = "not probed" if copy is None else "probed with two layers"
        return f"{done}: {size:.0f} GiB of weights take longer than a minute"
    llm = load_probed_llm(config)
    _read_texts(llm, config)
    device, dtype = llm.device, str(llm.dtype).removeprefix("torch.")
    del llm
    free_device_memory()
    return f"{device}, {dtype}"


def _read_texts(llm: FrozenLLM, config: PretrainConfig) -> None:
    """Data that cannot be read is another module's to tell."""
    try:
        data = read_data(config)
    except UserError:
        return
    check_texts(llm, data)


CHECKS = (
    Check("its files are at hand", "give another `model.llm_model`", _at_hand),
    Check("the heads divide its hidden size", "set `model.num_attention_heads`", _heads_fit),
    Check(
        "it loads, and an encoder can be trained against it",
        "give another `model.llm_model`",
        _answers,
    ),
)
