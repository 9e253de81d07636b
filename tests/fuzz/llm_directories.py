"""Directories of LLMs as hubs, converters and people leave them: any file, not quite right."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from safetensors.torch import load, save

from tests.conftest import byte_tokenizer
from tests.fuzz.pieces import FRACTIONS, NUMBERS, Case, cut, odd_bytes, often, scalars, values
from tests.trainables.llm.families import tiny_config, tiny_model

LLM, KEPT = "llm", "cache"  # the LLM, and where it is told what is known of it
WEIGHTS = "model.safetensors"
# Plain, gated, with a window, with a mixture, recurrent; one is no causal LM.
FAMILIES = ["qwen2", "llama", "gpt2", "bloom", "gemma2", "mixtral", "mamba", "opt", "bert"]
CHAT = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TEMPLATES = [
    *(CHAT, CHAT, CHAT.replace("content", "text"), "{{ bos_token }}", "", "{{", "{% if %}"),
    *("{{ raise_exception('no') }}", "{{ strftime_now('%d') }}" + CHAT, CHAT + CHAT),
    *("{{ messages[0]['content'] }}", "{{ 1 / 0 }}", "{{ messages[7].content }}"),
]
IN_CONFIG = [
    *("model_type architectures vocab_size hidden_size n_embd num_hidden_layers".split()),
    *("num_attention_heads num_key_value_heads head_dim intermediate_size rope_theta".split()),
    *("rope_scaling rope_parameters max_position_embeddings tie_word_embeddings auto_map".split()),
    *("quantization_config bos_token_id eos_token_id pad_token_id attn_implementation".split()),
    *("sliding_window layer_types use_cache is_decoder attention_dropout hidden_act".split()),
    *("torch_dtype transformers_version return_dict output_hidden_states dtype".split()),
    *("num_labels id2label".split()),
]
IN_GENERATION = [
    *("eos_token_id pad_token_id bos_token_id max_new_tokens max_length do_sample top_k".split()),
    *("temperature num_beams stop_strings num_return_sequences no_repeat_ngram_size".split()),
    *("return_dict_in_generate repetition_penalty forced_eos_token_id bad_words_ids".split()),
    *("suppress_tokens cache_implementation use_cache min_length prompt_lookup_num_tokens".split()),
]
IN_TOKENIZER = [
    *("tokenizer_class model_max_length add_bos_token add_eos_token pad_token eos_token".split()),
    *("bos_token unk_token padding_side truncation_side clean_up_tokenization_spaces".split()),
    *("added_tokens_decoder additional_special_tokens extra_special_tokens auto_map".split()),
]
# What people write there for true, besides anything at all.
LIKELY: list[Any] = [
    *("GPT2Tokenizer LlamaTokenizer Nothing float16 bfloat16 silu eager sdpa llama t5".split()),
    *("LlamaForCausalLM LlamaModel BertForMaskedLM static <new> left right".split()),
    *([], {}, [1], [1, 2], ["LlamaForCausalLM"], ["<x>"], {"rope_type": "linear", "factor": 2.0}),
    {"quant_method": "gptq", "bits": 4, "group_size": 32},
    {"quant_method": "bitsandbytes", "load_in_4bit": True},
    {"AutoModelForCausalLM": "modeling_own.Own"},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    {"0": {"content": "<pad>", "special": True}},
]
CHANGES = "config generation chat tokenizer names weights any gone".split()
PROMPTS = ["auto", "null", "{before: 'Say: ', after: ' So: '}", "{before: [40, 41], after: [9]}"]


@functools.cache
def good(family: str) -> dict[str, bytes]:
    """The files of a random LLM with D = 32 and two layers, and of a tokenizer of bytes."""
    with tempfile.TemporaryDirectory() as place, torch.random.fork_rng():
        torch.manual_seed(0)
        tiny_model(tiny_config(family)).save_pretrained(place)
        byte_tokenizer().save_pretrained(place)
        return {p.name: p.read_bytes() for p in Path(place).iterdir()}


@st.composite
def changed_json(draw: DrawFn, text: bytes, keys: list[str]) -> bytes:
    """A key or two have another value, or are gone."""
    content = json.loads(text)
    for _ in range(draw(st.integers(1, 2))):
        known = draw(st.booleans())
        key = draw(st.sampled_from(sorted(content) if known and content else keys))
        numbers = st.sampled_from(NUMBERS + FRACTIONS)
        if draw(st.integers(0, 4)) == 0:
            content.pop(key, None)
        else:
            content[key] = draw(st.sampled_from(LIKELY) | numbers | scalars | values)
    return json.dumps(content).encode("utf-8", "surrogatepass")


@st.composite
def changed_weights(draw: DrawFn, whole: bytes) -> bytes:
    """A tensor that is missing, misnamed, of another shape or kind, or holds what is no number."""
    tensors = load(whole)
    name = draw(st.sampled_from(sorted(tensors)))
    tensor = tensors.pop(name)
    match draw(st.sampled_from("gone name shape kind nan inf huge zero".split())):
        case "name":
            tensors[draw(st.sampled_from([f"model.{name}", f"{name}_", name.upper()]))] = tensor
        case "shape":
            tensors[name] = tensor[: draw(st.integers(0, max(len(tensor) - 1, 0)))].clone()
        case "kind":
            kinds = [torch.float16, torch.float64, torch.int8, torch.bool]
            tensors[name] = tensor.to(draw(st.sampled_from(kinds)))
        case "nan" | "inf" | "huge" as number:
            tensor.view(-1)[0] = {"nan": float("nan"), "inf": float("inf"), "huge": 1e38}[number]
            tensors[name] = tensor
        case "zero":
            tensors[name] = torch.zeros_like(tensor)
    return save(tensors, metadata={"format": "pt"})


@st.composite
def changed_tokenizer(draw: DrawFn, text: bytes) -> bytes:
    """A part of ``tokenizer.json`` that is gone or says something else."""
    content = json.loads(text)
    place = content["model"] if draw(st.booleans()) else content
    key = draw(st.sampled_from(sorted(place)))
    if key == "vocab" and draw(st.booleans()):
        for token in draw(st.lists(st.sampled_from(sorted(place[key])), max_size=3)):
            place[key].pop(token, None)
    elif draw(st.booleans()):
        del place[key]
    else:
        place[key] = draw(st.sampled_from(LIKELY) | values)
    return json.dumps(content).encode("utf-8", "surrogatepass")


@st.composite
def llm_directories(draw: DrawFn) -> Case:
    files = dict(good(draw(st.sampled_from(FAMILIES))))
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2]))):
        match draw(
            st.sampled_from("config generation chat tokenizer names weights any gone".split())
        ):
            case "config":
                files["config.json"] = draw(changed_json(files["config.json"], IN_CONFIG))
            case "generation":
                text = files.get("generation_config.json", b"{}")
                files["generation_config.json"] = draw(changed_json(text, IN_GENERATION))
            case "names":
                text = files["tokenizer_config.json"]
                files["tokenizer_config.json"] = draw(changed_json(text, IN_TOKENIZER))
            case "chat":
                files["chat_template.jinja"] = draw(st.sampled_from(TEMPLATES)).encode()
            case "tokenizer":
                files["tokenizer.json"] = draw(changed_tokenizer(files["tokenizer.json"]))
            case "weights":
                files[WEIGHTS] = draw(changed_weights(files[WEIGHTS]))
            case "any":
                name = draw(st.sampled_from(sorted(files)))
                files[name] = draw(cut(files[name]) | odd_bytes | st.just(b""))
            case _:
                gone = draw(st.sampled_from(sorted(files)))
                del files[gone]
                break  # what is gone is not changed
    prompt = draw(often("auto", st.sampled_from(PROMPTS)))
    tokens = draw(st.sampled_from(["auto", "auto", "1", "2", "3"]))
    settings = {"llm_model": LLM, "cache_dir": KEPT, "prompt": prompt, "num_soft_tokens": tokens}
    sets = [f"--set=train.model.{key}={value}" for key, value in settings.items()]
    written = {f"{LLM}/{name}": content for name, content in files.items()}
    return Case(["--config", "good.yaml", *sets], written, trained=True)
