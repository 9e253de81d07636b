"""Small language models and data sets that the tests write themselves."""

from __future__ import annotations

import csv
import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import find, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from trainables.config import PretrainConfig, parse_config
from trainables.data.profiling import COLUMNS
from trainables.inputs.checked_data import read_data
from trainables.inputs.preparing import prepare_inputs
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.frozen import FrozenLLM

CPU = torch.device("cpu")
settings.register_profile("steady", deadline=None, derandomize=True)  # machines are busy at times
settings.load_profile("steady")
TOOLS = [
    {"name": "grep_logs", "description": "Searches log files for a pattern."},
    {"name": "zip folder", "description": "Compresses a folder."},
    {"name": "r", "description": "Runs an R script on a table of measurements, row by row."},
]
VOCAB = 300


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def character_tables() -> None:
    """Hypothesis builds them with the first text it draws, for seconds, and counts them as slow."""
    find(st.text(), lambda text: True)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token; enough for any text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(["<pad>", "<end>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")


def model_config(family: str) -> PretrainedConfig:
    common: dict[str, Any] = {
        "vocab_size": VOCAB,
        "bos_token_id": None,
        "eos_token_id": 1,
        "initializer_range": 0.2,  # large enough for a soft token to steer it
    }
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    match family:
        case "qwen2":
            return Qwen2Config(**common, **sizes, **heads, tie_word_embeddings=True)
        case "llama":
            return LlamaConfig(**common, **sizes, **heads)
        case _:
            return GPT2Config(**common, n_embd=32, n_layer=2, n_head=4, n_positions=256)


def write_llm(directory: Path, family: str = "qwen2", shard: str = "5GB") -> Path:
    """A random causal LM of ~30,000 parameters with its tokenizer, as a hub directory."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(model_config(family))
    model.save_pretrained(directory, max_shard_size=shard)
    byte_tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def llm_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llm(tmp_path_factory.mktemp("llm"))


def write_data(directory: Path, tools: list[dict[str, str]] = TOOLS) -> Path:
    """tools.json and profiling.csv: three tools, 16 rows each."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tools.json").write_text(json.dumps(tools))
    levels = itertools.product(tools, ("small", "large"), (1, 8), (2, 7.5), (20, 100))
    with (directory / "profiling.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        rng = random.Random(0)
        for tool, size, cores, mem, sm in levels:
            writer.writerow([tool["name"], size, cores, mem, sm, 4, round(rng.uniform(1, 900), 2)])
    return directory


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


ConfigMaker = Callable[..., PretrainConfig]


@pytest.fixture
def make_config(llm_dir: Path, data_dir: Path, tmp_path: Path) -> ConfigMaker:
    """A training on the tiny LLM and data; keyword ``section__key`` sets a value."""

    def make(**values: Any) -> PretrainConfig:
        mapping: dict[str, dict[str, Any]] = {
            "model": {
                "llm_model": str(llm_dir),
                "cache_dir": str(tmp_path / "hub"),
                "num_attention_heads": 4,
                "num_soft_tokens": 1,
                "prompt": None,
            },
            "data": {
                "tool_registry": str(data_dir / "tools.json"),
                "profiling_data": str(data_dir / "profiling.csv"),
            },
            "training": {
                "batch_size": 8,
                "num_epochs": 3,
                "precision": "fp32",
                "field_accuracy_samples": 0,
                "gate_lr_multiplier": 10,
            },
            "logging": {"output_dir": str(tmp_path / "out")},
        }
        for dotted, value in values.items():
            section, key = dotted.split("__")
            mapping[section][key] = value
        return parse_config(mapping, source="test", base=tmp_path)

    return make


@pytest.fixture
def llm(make_config: ConfigMaker) -> FrozenLLM:
    return FrozenLLM.load(make_config().model, CPU, torch.float32)


@pytest.fixture
def inputs(make_config: ConfigMaker, llm: FrozenLLM) -> SharedInputs:
    return prepare_inputs(llm, read_data(make_config()))
