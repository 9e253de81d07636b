"""The shared inputs, found or prepared: which of the two, what the LLM does, what is kept."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import ConfigMaker
from trainables.config import PretrainConfig
from trainables.inputs.cache import (
    ARRAYS,
    DTYPES,
    embeddings_path,
    load_embeddings,
    prepared_path,
    unread_prompts,
)
from trainables.inputs.checked_data import read_data
from trainables.inputs.find_or_prepare import FROM_CACHE, PREPARED, find_or_prepare
from trainables.inputs.preparing import embed_tools
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm import precision
from trainables.llm.frozen import FrozenLLM, select_dtype

CPU = torch.device("cpu")


@pytest.fixture
def no_llm(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on none can be loaded, and one that stands neither reads nor tokenises."""

    def refused(*arguments: object, **options: object) -> None:
        raise AssertionError("the LLM was asked")

    monkeypatch.setattr(FrozenLLM, "load", refused)
    monkeypatch.setattr(FrozenLLM, "last_token_states", refused)
    monkeypatch.setattr(FrozenLLM, "tokenizer", property(refused))


def prompts_of(config: PretrainConfig) -> list[str]:
    return [tool.prompt for tool in read_data(config).tools]


def test_the_first_prepares_and_the_next_finds_the_same_without_an_llm(
    make_config: ConfigMaker, inputs: SharedInputs, request: pytest.FixtureRequest
) -> None:
    config = make_config()
    said: list[str] = []
    first, origin = find_or_prepare(config, on_gpu=False, say=said.append)
    assert origin == PREPARED
    assert said == [
        f"      tool {number}/3: {name} (from the LLM)"
        for number, name in enumerate(inputs.tool_names, start=1)
    ]
    request.getfixturevalue("no_llm")
    second, origin = find_or_prepare(config, on_gpu=False, say=said.append)
    assert origin == FROM_CACHE
    assert len(said) == len(inputs.tool_names)
    for field in fields(SharedInputs):
        expected = getattr(inputs, field.name)
        for found in (getattr(first, field.name), getattr(second, field.name)):
            same = np.array_equal(found, expected) if field.name in ARRAYS else found == expected
            assert same, field.name


def test_an_llm_that_stands_is_used_and_stays(
    make_config: ConfigMaker, llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    monkeypatch.setattr(FrozenLLM, "load", None)
    _, origin = find_or_prepare(config, on_gpu=False, llm=llm)
    assert origin == PREPARED
    assert llm.last_token_states(["Tool: a"]).shape == (1, llm.hidden_size)


def test_who_interrupts_leaves_no_inputs(make_config: ConfigMaker, llm: FrozenLLM) -> None:
    config = make_config()

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_or_prepare(config, on_gpu=False, llm=llm, interrupt=interrupt)
    path = prepared_path(config, on_gpu=False)
    assert path is not None
    assert not path.exists()


def test_the_llm_has_the_precision_of_those_who_train(
    make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here is no GPU, and fp32 is this CPU's precision; the workers' GPUs take bf16."""
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: False)
    config = make_config(training__precision="auto")
    find_or_prepare(config, on_gpu=True)
    paths = {p: embeddings_path(config, dtype, prompts_of(config)) for p, dtype in DTYPES.items()}
    assert {p for p, path in paths.items() if path and path.is_file()} == {"bf16"}


def test_prompts_count_as_read_once_the_cache_has_the_llms_answers(
    make_config: ConfigMaker, llm: FrozenLLM
) -> None:
    config = make_config()
    prompts = prompts_of(config)
    assert unread_prompts(config, on_gpu=False) == prompts
    embed_tools(llm, config, read_data(config).tools, lambda line: None)
    assert unread_prompts(config, on_gpu=False) == []
    assert unread_prompts(make_config(training__precision="bf16"), on_gpu=False) == prompts
    find_or_prepare(config, on_gpu=False, llm=llm)
    embeddings = embeddings_path(config, "torch.float32", prompts)
    assert embeddings is not None
    embeddings.unlink()
    assert unread_prompts(config, on_gpu=False) == []


def test_embeddings_of_earlier_versions_are_found(make_config: ConfigMaker, tmp_path: Path) -> None:
    """Their names and their content, written by torch, are what they were."""
    for name, dtype in DTYPES.items():
        assert dtype == str(select_dtype(name, CPU))
    config = make_config(
        model__llm_model="embedded", data__tool_registry="default", data__profiling_data="default"
    )
    prompts, folder = prompts_of(config), tmp_path / "hub" / "tool_embeddings"
    names = {dtype: str(embeddings_path(config, dtype, prompts)) for dtype in DTYPES.values()}
    assert names == {
        "torch.float32": f"{folder}/134655d0b9fe71136e2946e260bec830.safetensors",
        "torch.bfloat16": f"{folder}/f0fbe40d387b29943df9102517d7294e.safetensors",
    }
    states = torch.randn(2, 3)
    save_file({"tool_embeddings": states}, tmp_path / "old.safetensors")
    found = load_embeddings(tmp_path / "old.safetensors", (2, 3))
    assert found is not None
    assert (found == states.numpy()).all()
    assert load_embeddings(tmp_path / "old.safetensors", (3, 3)) is None
