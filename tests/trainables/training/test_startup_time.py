"""An LLM's size and cost from its config.json alone, and how long a start should take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from tests.conftest import ConfigMaker, model_config, write_llm
from trainables.llm.shape import LLMShape, llm_shape
from trainables.training.startup_time import announcement, expected_initialisation, lateness

QWEN_05B = {
    "model_type": "qwen2", "hidden_act": "silu", "hidden_size": 896, "intermediate_size": 4864,
    "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
    "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
QWEN_7B = {
    **QWEN_05B, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
    "tie_word_embeddings": False,
}  # fmt: skip


def shape(directory: Path, config: dict[str, Any]) -> LLMShape | None:
    path = directory / "config.json"
    path.write_text(json.dumps(config))
    return llm_shape(path)


@pytest.mark.parametrize(
    ("config", "published"), [(QWEN_05B, 494_032_768), (QWEN_7B, 7_615_616_512)]
)
def test_parameters_are_those_published(
    config: dict[str, Any], published: int, tmp_path: Path
) -> None:
    found = shape(tmp_path, config)
    assert found is not None
    assert found.parameters == pytest.approx(published, rel=1e-3)
    nested = shape(tmp_path, {"text_config": config})
    assert nested == found


@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt2"])
def test_parameters_are_those_of_the_model(family: str, tmp_path: Path) -> None:
    found = llm_shape(write_llm(tmp_path, family) / "config.json")
    model = AutoModelForCausalLM.from_config(model_config(family))
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "wpe" not in name]
    assert found is not None
    assert found.parameters == sum(p.numel() for p in matrices)


def test_flops_are_two_per_weight_and_token_and_grow_with_the_length(tmp_path: Path) -> None:
    found = shape(tmp_path, QWEN_7B)
    assert found is not None
    weights = found.parameters - found.vocabulary * found.hidden_size  # the input's table is read
    assert found.forward_flops(10, 1) == pytest.approx(20 * weights, rel=1e-3)
    assert found.forward_flops(10, 500) > found.forward_flops(10, 1)


@pytest.mark.parametrize("change", [{"num_experts": 8}, {"vocab_size": None}, {"hidden_size": 0}])
def test_what_is_no_plain_decoder_has_no_shape(change: dict[str, Any], tmp_path: Path) -> None:
    assert shape(tmp_path, {**QWEN_05B, **change}) is None


def test_a_long_initialisation_is_announced_with_the_cache_that_shortens_it(
    make_config: ConfigMaker, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN_7B))
    (tmp_path / "model.safetensors").touch()
    config = make_config(model__llm_model=str(tmp_path))
    unread = expected_initialisation(config, ["Tool: a\nDescription: b" * 5] * 7, on_gpu=False)
    cached = expected_initialisation(config, [], on_gpu=False)
    assert unread is not None
    assert cached is not None
    assert cached.seconds == pytest.approx(6 + 7.6 * 4, rel=0.01)  # fp32 at 1 GB/s
    assert unread.seconds > cached.seconds
    line = announcement(unread, "hub")
    assert line is not None
    assert "36 s to load the LLM and" in line
    assert "`model.cache_dir` (hub)" in line
    assert "embed" not in str(announcement(cached, "hub"))


def test_a_short_initialisation_is_not_announced_and_a_long_one_is_late(
    make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    assert announcement(expected_initialisation(config, [], on_gpu=False), "hub") is None
    monkeypatch.setattr("trainables.training.startup_time.cpu_rate", lambda: 1e10)
    monkeypatch.setattr("trainables.training.startup_time.time.perf_counter", lambda: 100.0)
    assert lateness(config, 95.0, [], on_gpu=False) is None
    late = lateness(config, 0.0, ["Tool: a"], on_gpu=False)
    assert late is not None
    assert late.text.startswith("initialisation took 100 s, expected were about 6 s")
    assert config.model.cache_dir in late.text
