"""An LLM's configuration at two layers with random weights: what it is, without its weights."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.quantizers import AutoHfQuantizer

from trainables.config import ModelConfig
from trainables.errors import UserError
from trainables.llm.frozen import FrozenLLM
from trainables.llm.loading import hub_options, named, quiet
from trainables.llm.weight_files import embedding_shape

LAYERS = 2
ROWS = 1024  # of the vocabulary
# Larger ones would take longer than the hosts need to load the LLM itself.
MAX_PARAMETERS = 600_000_000
NOISE = 0.02


def small_copy(config: ModelConfig, directory: Path) -> FrozenLLM | None:
    """The copy, with the LLM's own tokenizer; None where none can be made that works with tokens.

    Raises LLMError for a configuration that transformers cannot read at all.
    """
    with named(config, "no causal LM could be loaded"), quiet():
        settings = AutoConfig.from_pretrained(directory, **hub_options(config))
        _check_quantisation(settings)
    table = embedding_shape(directory)
    text = settings.get_text_config()
    rows = table[0] if table else int(text.vocab_size)
    try:
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(0)
            _shrink(text)
            model = _model(settings, config)
            llm = FrozenLLM(model, directory, hub_options(config)) if model else None
    except UserError:
        raise
    except Exception:  # noqa: BLE001 - two layers may be too few for it; that says nothing
        return None
    if llm is not None:
        llm.vocabulary = rows  # the ids of its tokenizer are held against the LLM's own
    return llm


def _check_quantisation(settings: PretrainedConfig) -> None:
    """Raises ImportError without the packages that it needs; the copy itself is not quantised."""
    if quantisation := getattr(settings, "quantization_config", None):
        # What is said of devices is for the hosts to meet, and unknown kinds are not used at all.
        with suppress(ValueError, RuntimeError):
            quantizer = AutoHfQuantizer.from_config(quantisation, pre_quantized=True)
            quantizer.validate_environment(device_map=None)


def _shrink(text: PretrainedConfig) -> None:
    """Fewer layers, of different kinds if there are any; fewer tokens."""
    layers = int(text.num_hidden_layers)
    kinds = getattr(text, "layer_types", None) or [None] * layers
    other = next((i for i, kind in enumerate(kinds) if kind != kinds[0]), 1)
    kept = [0, other] if layers > LAYERS else list(range(layers))
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == layers:
            setattr(text, name, [value[i] for i in kept])
    text.num_hidden_layers = len(kept)
    text.vocab_size = min(int(text.vocab_size), ROWS)
    for name, value in list(vars(text).items()):
        if name.endswith("token_id") and isinstance(value, int) and value >= text.vocab_size:
            setattr(text, name, None)


def _model(settings: PretrainedConfig, config: ModelConfig) -> nn.Module | None:
    options: dict[str, Any] = {
        "dtype": torch.float32,
        "attn_implementation": "eager",
        "trust_remote_code": config.trust_remote_code,
    }
    with torch.device("meta"):
        size = sum(
            p.numel() for p in AutoModelForCausalLM.from_config(settings, **options).parameters()
        )
    if size > MAX_PARAMETERS:
        return None
    model = AutoModelForCausalLM.from_config(settings, **options)
    with torch.no_grad():  # some families begin with zeros, which nothing passes
        for weight in model.parameters():
            if not weight.any():
                weight.normal_(std=NOISE)
    return model
