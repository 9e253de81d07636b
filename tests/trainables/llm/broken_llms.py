"""LLM directories with one thing wrong each, and what is said of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    ElectraConfig,
    ElectraForCausalLM,
    Gemma4ForCausalLM,
    Gemma4TextConfig,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from tests.conftest import VOCAB, byte_tokenizer, write_llm

Break = Callable[[Path], None]
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4,
}  # fmt: skip
SHORT = {"max_position_embeddings": 256}


@dataclass(frozen=True)
class Broken:
    """``break_it`` changes a good LLM's directory; ``said`` is in the line that refuses it."""

    break_it: Break
    said: str


def change_json(name: str, **values: Any) -> Break:
    def change(directory: Path) -> None:
        path = directory / name
        content = json.loads(path.read_text())
        path.write_text(json.dumps({k: v for k, v in {**content, **values}.items() if v != "-"}))

    return change


def change_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Break:
    def changed(directory: Path) -> None:
        path = directory / "model.safetensors"
        weights = load_file(path)
        change(weights)
        save_file(weights, path, metadata={"format": "pt"})

    return changed


def another_model(make: Callable[[], Any]) -> Break:
    def replace(directory: Path) -> None:
        for name in ("config.json", "generation_config.json", "model.safetensors"):
            (directory / name).unlink()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            make().save_pretrained(directory)

    return replace


def another_tokenizer(make: Callable[[], PreTrainedTokenizerFast]) -> Break:
    return lambda directory: make().save_pretrained(directory)


def no_tokenizer(directory: Path) -> None:
    for path in directory.glob("tokenizer*"):
        path.unlink()


def sentencepiece_alone(directory: Path) -> None:
    no_tokenizer(directory)
    (directory / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")


def filled_vocabulary(*beyond: str, **special: str) -> PreTrainedTokenizerFast:
    """As many tokens as the LLM has embeddings, and some more."""
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([f"<{i}>" for i in range(VOCAB - len(tokenizer))])
    tokenizer.add_tokens(list(beyond))
    if special:
        tokenizer.add_special_tokens(special)
    return tokenizer


def ascii_without_unknown() -> PreTrainedTokenizerFast:
    """Characters alone, and nothing for those that it does not know."""
    vocabulary = {"<pad>": 0, "<end>": 1, "\n": 2}
    vocabulary |= {chr(code): code - 29 for code in range(32, 127)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")


def words_without_unknown() -> PreTrainedTokenizerFast:
    """It raises at a word that it does not know."""
    words = models.WordLevel(vocab={"Tool": 0, "grep": 1, "<end>": 2}, unk_token="<unknown>")
    tokenizer = Tokenizer(words)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<end>")


def in_shards_without_the_last(directory: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(directory)
    (directory / "model.safetensors").unlink()
    model.save_pretrained(directory, max_shard_size="20KB")
    sorted(directory.glob("*.safetensors"))[-1].unlink()


def cut_off(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:20_000])


def gemma4() -> Gemma4ForCausalLM:
    return Gemma4ForCausalLM(
        Gemma4TextConfig(
            **SIZES, num_key_value_heads=2, head_dim=8, global_head_dim=8,
            hidden_size_per_layer_input=8, vocab_size_per_layer_input=VOCAB,
            num_kv_shared_layers=0, pad_token_id=0, eos_token_id=1,
        )
    )  # fmt: skip


DOWN = "model.layers.1.mlp.down_proj.weight"
EMBEDDINGS = "model.embed_tokens.weight"
NOT_CAUSAL = "it is not causal: the losses of a text's first tokens change with the tokens after"
NO_LLM = "no causal LM could be loaded: "
NO_TOKENIZER = "no tokenizer could be loaded: "
QUANTISED = {"quant_method": "gptq", "bits": 4, "group_size": 32}
IN_FOUR_BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True}
BROKEN: dict[str, Broken] = {
    "other widths": Broken(
        another_model(
            lambda: ElectraForCausalLM(
                ElectraConfig(**SIZES, **SHORT, embedding_size=16, is_decoder=True)
            )
        ),
        "its input embeddings have the width 16, its last states 32",
    ),
    "a masked LM": Broken(
        another_model(lambda: BertForMaskedLM(BertConfig(**SIZES, **SHORT))), NOT_CAUSAL
    ),
    "another masked LM": Broken(
        another_model(lambda: RobertaForMaskedLM(RobertaConfig(**SIZES, **SHORT))), NOT_CAUSAL
    ),
    "no head": Broken(
        another_model(lambda: LlamaModel(LlamaConfig(**SIZES, num_key_value_heads=2))),
        "its files are not the weights of a LlamaForCausalLM: missing: lm_head.weight; give a",
    ),
    "a missing layer": Broken(
        change_json("config.json", num_hidden_layers=3, layer_types=["full_attention"] * 3),
        "missing: model.layers.2.input_layernorm.weight, ",
    ),
    "a layer too many": Broken(
        change_weights(lambda w: w.update({"model.layers.2.mlp.up_proj.weight": w[DOWN].clone()})),
        "unexpected: model.layers.2.mlp.up_proj.weight",
    ),
    "another shape": Broken(
        change_weights(lambda w: w.update({DOWN: w[DOWN][:, :8].clone()})),
        f"of another shape: {DOWN} [32, 8] instead of [32, 64]",
    ),
    "embeddings in every layer": Broken(
        another_model(gemma4), "it does not take embeddings in the place of tokens: "
    ),
    "padding without an embedding": Broken(
        another_tokenizer(lambda: filled_vocabulary(pad_token="[PAD]")),
        "the tokenizer's pad token `[PAD]` has the id 300, but the LLM has embeddings for 300",
    ),
    "an end without an embedding": Broken(
        another_tokenizer(lambda: filled_vocabulary(eos_token="[END]")),
        "the tokenizer's eos token `[END]` has the id 300",
    ),
    "a word without an embedding": Broken(
        another_tokenizer(lambda: filled_vocabulary("grep_logs")),
        "the tokenizer gives `Tool: grep_logs` the token id 300",
    ),
    "no tokenizer": Broken(
        no_tokenizer, f"{NO_TOKENIZER}no files here that know any text; put the tokenizer.json"
    ),
    "no tokenizer, Qwen3": Broken(
        lambda directory: (
            no_tokenizer(directory),
            another_model(
                lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8))
            )(directory),
        )[1],
        f"{NO_TOKENIZER}no files here that know any text",
    ),
    "a tokenizer to come": Broken(
        change_json("tokenizer.json", version="9.0"),
        f"{NO_TOKENIZER}Exception: Unknown tokenizer version '9.0'",
    ),
    "sentencepiece alone": Broken(
        sentencepiece_alone,
        f"{NO_TOKENIZER}there is only `tokenizer.model`, which needs other packages; save it as",
    ),
    "quantised": Broken(
        change_json("config.json", quantization_config=QUANTISED), f"{NO_LLM}ImportError: "
    ),
    "quantised otherwise": Broken(
        change_json("config.json", quantization_config=IN_FOUR_BITS), f"{NO_LLM}ImportError: "
    ),
    "no text": Broken(change_json("config.json", model_type="vit"), NO_LLM),
    "a family to come": Broken(
        change_json("config.json", model_type="nonesuch"), f"{NO_LLM}The checkpoint you are"
    ),
    "impossible sizes": Broken(change_json("config.json", num_attention_heads=0), NO_LLM),
    "a missing shard": Broken(
        in_shards_without_the_last,
        "1 of the weight files that its index names are not here, the first is `model-0000",
    ),
    "cut off": Broken(cut_off, f"{NO_LLM}SafetensorError: "),
    "a NaN": Broken(
        change_weights(lambda w: w[DOWN][3].fill_(float("nan"))),
        f"its weight `{DOWN}` holds values that are not finite (NaN or infinite)",
    ),
    "an infinite embedding that is not read": Broken(
        change_weights(lambda w: w[EMBEDDINGS][299].fill_(float("inf"))),
        f"its weight `{EMBEDDINGS}` holds values that are not finite",
    ),
    "an overflow": Broken(
        change_weights(lambda w: w[DOWN].fill_(3e38)), "are not finite in float32; take another"
    ),
    "a head of zeros": Broken(
        change_weights(lambda w: w[EMBEDDINGS].fill_(0.0)),
        "its losses do not depend on the soft token",
    ),
}


def write_broken(directory: Path, name: str) -> Path:
    """A good LLM's directory with one thing wrong."""
    write_llm(directory)
    BROKEN[name].break_it(directory)
    return directory


def copy_changed(llm_dir: Path, directory: Path, change: Break) -> Path:
    shutil.copytree(llm_dir, directory)
    change(directory)
    return directory
