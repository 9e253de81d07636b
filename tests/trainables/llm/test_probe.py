"""The probe: every kind of LLM that cannot be used is named at once, whatever others are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    MiniCPM3Config,
    MiniCPM3ForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from tests.conftest import CPU, VOCAB, ConfigMaker, byte_tokenizer, write_llm
from tests.trainables.llm.broken_llms import (
    BROKEN,
    SHORT,
    SIZES,
    another_tokenizer,
    ascii_without_unknown,
    change_json,
    change_weights,
    copy_changed,
    words_without_unknown,
    write_broken,
)
from trainables.config import EMBEDDED_DIR, ModelConfig
from trainables.errors import DataError, LLMError
from trainables.inputs.checked_data import read_data
from trainables.inputs.preparing import check_texts, prepare_inputs
from trainables.llm import verdict
from trainables.llm.frozen import FrozenLLM
from trainables.llm.location import hidden_size, llm_hidden_size
from trainables.llm.probe import load_probed, load_probed_llm, probe
from trainables.llm.small_copy import small_copy
from trainables.llm.tokens import encode
from trainables.llm.verdict import Verdict, known_verdict
from trainables.llm.weight_files import embedding_shape


def model_of(directory: Path, cache: Path) -> ModelConfig:
    return ModelConfig(llm_model=str(directory), cache_dir=str(cache))


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_used_is_refused_by_what_is_wrong(
    name: str, make_config: ConfigMaker, tmp_path: Path
) -> None:
    directory = write_broken(tmp_path / "llm", name)
    config = make_config(model__llm_model=str(directory))
    with pytest.raises((LLMError, DataError)) as refusal:
        check_texts(load_probed_llm(config, CPU), read_data(config))
    assert BROKEN[name].said in str(refusal.value)
    assert str(directory) in str(refusal.value)
    kept = (tmp_path / "hub" / "llm_verdicts").exists()
    assert kept == (name == "a word without an embedding"), "the LLM is good for other texts"


def test_a_head_that_is_missing_is_never_filled_with_random_weights(
    make_config: ConfigMaker, tmp_path: Path
) -> None:
    """Not even where nothing is probed."""
    config = make_config(model__llm_model=str(write_broken(tmp_path / "llm", "no head")))
    with pytest.raises(LLMError, match=r"missing: lm_head\.weight"):
        FrozenLLM.load(config.model, CPU, torch.float32)


def test_masks_that_older_releases_wrote_among_the_weights_do_no_harm(tmp_path: Path) -> None:
    """As the published GPT-2 and its like have them; no head, no prefix, either."""

    def as_published(weights: dict[str, Tensor]) -> None:
        for name in list(weights):
            weights[name.removeprefix("transformer.")] = weights.pop(name)
        for layer in range(2):
            weights[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 256, 256).tril()
            weights[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)

    directory = write_llm(tmp_path / "llm", "gpt2")
    config = model_of(directory, tmp_path / "hub")
    before = load_probed(config, CPU, torch.float32).states_of([[5, 6, 7]])
    change_weights(as_published)(directory)
    assert torch.equal(load_probed(config, CPU, torch.float32).states_of([[5, 6, 7]]), before)


# Widths


def test_the_width_is_that_of_the_embeddings_whatever_the_configuration_calls_it(
    tmp_path: Path,
) -> None:
    model = BloomForCausalLM(BloomConfig(vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=4))
    model.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content["n_embed"] = content.pop("hidden_size")
    (tmp_path / "config.json").write_text(json.dumps(content))
    config = model_of(tmp_path, tmp_path / "hub")
    assert embedding_shape(tmp_path) == (VOCAB, 32)
    assert llm_hidden_size(config) == 32
    assert load_probed(config, CPU, torch.float32).hidden_size == 32
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")  # without a header
    assert llm_hidden_size(config) == 32


def test_a_model_that_projects_its_embeddings_has_their_width(
    make_config: ConfigMaker, tmp_path: Path
) -> None:
    options: Any = {**SIZES, "ffn_dim": 64}
    model = OPTForCausalLM(OPTConfig(**options, **SHORT, word_embed_proj_dim=16))
    model.save_pretrained(tmp_path / "llm")
    byte_tokenizer().save_pretrained(tmp_path / "llm")
    config = make_config(model__llm_model=str(tmp_path / "llm"))
    assert hidden_size(tmp_path / "llm") == 16
    llm = load_probed_llm(config, CPU)
    inputs = prepare_inputs(llm, read_data(config))
    assert inputs.tool_embeddings.shape == inputs.name_embeddings.shape == (3, 16)


# What stands behind the head


@pytest.mark.parametrize("where", ["states", "logits"])
def test_what_is_scaled_in_its_place_is_noticed(llm: FrozenLLM, where: str) -> None:
    assert llm._head_gives_the_logits()
    assert llm.head is not None
    whole = llm.model.forward

    def scaled_before(head: nn.Module, inputs: tuple[Tensor]) -> None:
        inputs[0].mul_(2)

    def scaled_behind(*arguments: Any, **options: Any) -> Any:
        output = whole(*arguments, **options)
        output.logits.mul_(2)
        return output

    if where == "states":
        llm.head.register_forward_pre_hook(scaled_before)
    else:
        llm.model.forward = scaled_behind  # type: ignore[method-assign]
    assert not llm._head_gives_the_logits()


def test_zeros_do_not_hide_that_states_are_scaled_before_the_head(tmp_path: Path) -> None:
    """Padding's embedding is zero, and so is everything that a pass makes of it."""
    latent = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4}
    options: Any = {**SIZES, **latent, "num_key_value_heads": 4, "head_dim": 4, "v_head_dim": 8}
    torch.manual_seed(0)
    model = MiniCPM3ForCausalLM(MiniCPM3Config(**options, pad_token_id=0))
    assert not model.get_input_embeddings().weight[0].any()
    assert not FrozenLLM(model, tmp_path, {})._head_is_linear


# Texts


JAPANESE = [
    {"name": "音声認識", "description": "Transcribes."},
    {"name": "zip", "description": "Compresses."},
    {"name": "r", "description": "Runs a script."},
]


def test_a_name_without_tokens_is_named(make_config: ConfigMaker, tmp_path: Path) -> None:
    from tests.conftest import write_data

    data = write_data(tmp_path / "data", JAPANESE)
    config = make_config(
        model__llm_model=str(write_llm(tmp_path / "llm")),
        data__tool_registry=str(data / "tools.json"),
        data__profiling_data=str(data / "profiling.csv"),
    )
    check_texts(load_probed_llm(config, CPU), read_data(config))  # bytes are tokens of any text
    assert (known_verdict(config.model) or Verdict.model_construct()).any_text
    ascii_without_unknown().save_pretrained(tmp_path / "llm")
    llm = load_probed_llm(config, CPU)
    assert known_verdict(config.model).any_text is False  # type: ignore[union-attr]
    for read in (check_texts, prepare_inputs):
        with pytest.raises(DataError, match="`音声認識` has no tokens: the tokenizer of the LLM"):
            read(llm, read_data(config))


def test_a_text_at_which_a_tokenizer_raises_is_named() -> None:
    texts = ["Tool", "grep", "zip"]
    with pytest.raises(DataError, match=r"`zip` cannot be read by the tokenizer of .*\(here\)"):
        encode(words_without_unknown(), texts, special=False, source="here")
    assert encode(words_without_unknown(), texts[:2], special=False, source="here") == [[0], [1]]


# What a model's files say of how it is used


HABITS: list[dict[str, Any]] = [
    {"eos_token_id": 1, "return_dict_in_generate": True},
    {"stop_strings": ["e"]},
    {"num_return_sequences": 3},
    {"num_beams": 4, "num_return_sequences": 3},
    {"no_repeat_ngram_size": 3},
    {"repetition_penalty": 1.9},
    {"do_sample": True, "temperature": 3.0},
    {"forced_eos_token_id": 1, "forced_bos_token_id": 7},
    {"bad_words_ids": [[35], [36]]},
    {"suppress_tokens": list(range(2, 200)), "begin_suppress_tokens": [70]},
    {"min_length": 60, "min_new_tokens": 60},
    {"max_length": 3, "max_new_tokens": 3, "max_time": 0.0001},
    {"cache_implementation": "static", "use_cache": False},
    {"prompt_lookup_num_tokens": 2},
    {"output_scores": True, "output_logits": True, "output_hidden_states": True},
    {"sequence_bias": [[[40], 50.0]], "exponential_decay_length_penalty": [1, 2.0]},
    {"guidance_scale": 5.0},
    {"eos_token_id": [40, 50, 60]},
]


@pytest.mark.parametrize("habits", HABITS, ids=lambda h: ",".join(h))
def test_decoding_is_ours_whatever_the_model_is_used_to(
    habits: dict[str, Any], llm: FrozenLLM, llm_dir: Path, tmp_path: Path
) -> None:
    def change(directory: Path) -> None:
        (directory / "generation_config.json").write_text(json.dumps(habits))

    directory = copy_changed(llm_dir, tmp_path / "llm", change)
    other = load_probed(model_of(directory, tmp_path / "hub"), CPU, torch.float32)
    soft = torch.randn(4, 32, generator=torch.Generator().manual_seed(3))
    assert other.write(soft, 12) == llm.write(soft, 12)


@pytest.mark.parametrize(
    "habit",
    [{"return_dict": False}, {"output_hidden_states": True, "output_attentions": True}],
    ids=str,
)
def test_passes_are_ours_whatever_the_model_is_used_to(
    habit: dict[str, Any], llm: FrozenLLM, llm_dir: Path, tmp_path: Path
) -> None:
    directory = copy_changed(llm_dir, tmp_path / "llm", change_json("config.json", **habit))
    other = load_probed(model_of(directory, tmp_path / "hub"), CPU, torch.float32)
    assert torch.equal(other.states_of([[5, 6, 7], [8]]), llm.states_of([[5, 6, 7], [8]]))


def test_a_damaged_file_of_habits_is_not_read(
    llm: FrozenLLM, llm_dir: Path, tmp_path: Path
) -> None:
    def damage(directory: Path) -> None:
        (directory / "generation_config.json").write_text("{")

    directory = copy_changed(llm_dir, tmp_path / "llm", damage)
    other = load_probed(model_of(directory, tmp_path / "hub"), CPU, torch.float32)
    assert torch.equal(other.states_of([[5, 6, 7], [8]]), llm.states_of([[5, 6, 7], [8]]))


# No trace


def test_a_probe_leaves_no_trace(llm: FrozenLLM, make_config: ConfigMaker) -> None:
    before = torch.get_rng_state()
    weights = {name: weight.clone() for name, weight in llm.model.state_dict().items()}
    probe(llm, make_config().model)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(w, weights[name]) for name, w in llm.model.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in llm.model.parameters())
    assert not llm.embed_tokens._forward_hooks


# Verdicts


def test_a_verdict_is_found_again_for_the_same_files_alone(
    llm_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = copy_changed(llm_dir, tmp_path / "llm", lambda path: None)
    config = model_of(directory, tmp_path / "hub")
    assert known_verdict(config) is None
    load_probed(config, CPU, torch.float32)
    found = known_verdict(config)
    assert found == Verdict(hidden_size=32, max_tokens=32768, any_text=True)
    assert known_verdict(config.model_copy(update={"trust_remote_code": True})) is None
    (kept,) = (tmp_path / "hub" / "llm_verdicts").iterdir()
    whole = kept.read_text()
    for damaged in ("", whole[:-9], "[]", whole.replace("32,", "true,")):
        kept.write_text(damaged)
        assert known_verdict(config) is None
    kept.write_text(whole)
    assert known_verdict(config) == found
    (directory / "code.py").write_text("")
    assert known_verdict(config) is None
    (directory / "code.py").unlink()
    monkeypatch.setattr(verdict, "PROBE_VERSION", verdict.PROBE_VERSION + 1)
    assert known_verdict(config) is None


def test_no_verdict_is_kept_of_what_is_refused(llm_dir: Path, tmp_path: Path) -> None:
    change = change_weights(lambda w: w["model.norm.weight"].fill_(float("nan")))
    config = model_of(copy_changed(llm_dir, tmp_path / "llm", change), tmp_path / "hub")
    with pytest.raises(LLMError, match=r"model\.norm\.weight"):
        load_probed(config, CPU, torch.float32)
    assert not (tmp_path / "hub").exists()


def test_what_is_shipped_of_the_embedded_llm_is_what_its_probe_says(tmp_path: Path) -> None:
    """Where this fails after the embedded LLM has changed: python -m trainables.llm.probe."""
    config = ModelConfig(cache_dir=str(tmp_path / "hub"))
    llm = FrozenLLM.load(config, CPU, torch.float32)
    assert known_verdict(config) == probe(llm, config)
    assert not (tmp_path / "hub").exists(), "nothing is kept twice"
    assert hidden_size(EMBEDDED_DIR) == llm.hidden_size


# Copies


def test_a_copy_has_two_layers_of_different_kinds_and_the_ids_of_its_original(
    tmp_path: Path,
) -> None:
    kinds = ["sliding_attention"] * 3 + ["full_attention"]
    options = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3}
    content = {
        **SIZES, **options, "model_type": "qwen2", "num_hidden_layers": 4, "layer_types": kinds,
        "vocab_size": 5000, "num_key_value_heads": 2, "pad_token_id": 4999,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(content))
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([f"<{i}>" for i in range(4000)])
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(tmp_path)
    copy = small_copy(model_of(tmp_path, tmp_path), tmp_path)
    assert copy is not None
    text: Any = copy.model.config
    assert text.layer_types == ["sliding_attention", "full_attention"]
    assert probe(copy, model_of(tmp_path, tmp_path)) == Verdict(
        hidden_size=32, max_tokens=32768, any_text=True
    )
    assert copy.token_ids(["<3999>"], special=False) == [[4257]]


def test_a_copy_that_would_be_large_is_none(tmp_path: Path) -> None:
    content = {"model_type": "qwen2", **SIZES, "hidden_size": 20480, "intermediate_size": 81920}
    (tmp_path / "config.json").write_text(json.dumps(content))
    byte_tokenizer().save_pretrained(tmp_path)
    assert small_copy(model_of(tmp_path, tmp_path), tmp_path) is None


@pytest.mark.parametrize("name", ["a masked LM", "embeddings in every layer", "quantised"])
def test_a_copy_tells_what_needs_no_weights(name: str, tmp_path: Path) -> None:
    directory = write_broken(tmp_path / "llm", name)
    config = model_of(directory, tmp_path / "hub")
    with pytest.raises(LLMError) as refusal:
        probed_copy(config, directory)
    assert BROKEN[name].said in str(refusal.value)


def probed_copy(config: ModelConfig, directory: Path) -> None:
    copy = small_copy(config, directory)
    assert copy is not None
    probe(copy, config)


def test_equal_texts_in_bf16_are_not_mistaken_for_different_ones(
    llm_dir: Path, tmp_path: Path
) -> None:
    llm = load_probed(model_of(llm_dir, tmp_path / "hub"), CPU, torch.bfloat16)
    assert np.isfinite(llm.last_token_states(["Tool: a"]).numpy()).all()


def test_a_tokenizer_without_end_and_padding_works(llm_dir: Path, tmp_path: Path) -> None:
    def change(directory: Path) -> None:
        tokenizer = byte_tokenizer()
        tokenizer.pad_token = tokenizer.eos_token = None
        another_tokenizer(lambda: tokenizer)(directory)

    directory = copy_changed(llm_dir, tmp_path / "llm", change)
    llm = load_probed(model_of(directory, tmp_path / "hub"), CPU, torch.float32)
    assert llm.tokenizer.eos_token_id is None
    assert llm.continuations(torch.zeros(2, 32), 5).shape[0] == 2
