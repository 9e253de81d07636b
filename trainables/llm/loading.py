"""A causal LM and its tokenizer from their files: whole, or refused by what is wrong with them."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from trainables.config import EMBEDDED, EMBEDDED_DIR, ModelConfig
from trainables.errors import LLMError, UserError
from trainables.llm.location import check_available

SHOWN_KEYS = 3
MAX_REASON = 400  # characters
# Masks and positions, which older releases of transformers wrote among the weights; they are
# computed, and not every family's class lists them as such.
OLD_BUFFERS = re.compile(
    r"(^|\.)(masked_bias|causal_mask|inv_freq|position_ids|attn\.bias|attn\.attention\.bias)$"
)
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def source_of(config: ModelConfig) -> Path | str:
    """What transformers loads it from."""
    return EMBEDDED_DIR if config.llm_model == EMBEDDED else config.llm_model


def hub_options(config: ModelConfig) -> dict[str, Any]:
    return {"cache_dir": config.cache_dir, "trust_remote_code": config.trust_remote_code}


def load_model(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Every weight from the files, on ``device``.

    Raises LLMError for a model that cannot be loaded, and for one whose files do not hold exactly
    its weights: transformers would fill in random ones.
    """
    check_available(config)
    # Measured on CPU: the backward of the fused kernel in bf16 is slower than the plain one.
    # Elsewhere transformers takes the fused one for every family that has it.
    attention = "eager" if device.type == "cpu" else None
    with named(config, "no causal LM could be loaded"), quiet():
        model, found = AutoModelForCausalLM.from_pretrained(
            source_of(config),
            dtype=dtype,
            attn_implementation=attention,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            generation_config=GenerationConfig(),  # decoding is ours, and its file is not read
            **hub_options(config),
        )
    if wrong := _wrong_keys(found):
        raise LLMError(
            f"`model.llm_model` is `{config.llm_model}`: its files are not the weights of a "
            f"{type(model).__name__}: {'; '.join(wrong)}; give a complete causal LM"
        )
    return model.to(device)


def _wrong_keys(found: dict[str, Any]) -> list[str]:
    """Transformers has left out what may be missing or over: tied weights, most old buffers."""
    mismatched = [
        f"{name} {list(there)} instead of {list(wanted)}"
        for name, there, wanted in sorted(found["mismatched_keys"])
    ]
    kinds = {
        "missing": sorted(found["missing_keys"]),
        "unexpected": sorted(k for k in found["unexpected_keys"] if not OLD_BUFFERS.search(k)),
        "of another shape": mismatched,
        "unreadable": list(found["error_msgs"]),
    }
    return [f"{kind}: {_listed(names)}" for kind, names in kinds.items() if names]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_KEYS} more" if len(names) > SHOWN_KEYS else ""
    return ", ".join(names[:SHOWN_KEYS]) + more


def load_tokenizer(source: Path | str, options: dict[str, Any]) -> PreTrainedTokenizerBase:
    """The LLM's own tokenizer; raises LLMError where its files are missing or unreadable."""
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            # Without any files transformers makes one that knows no text.
            known = len(tokenizer) > len(tokenizer.all_special_ids)
        why = None if known else "no files here that know any text"
    except Exception as error:  # noqa: BLE001 - the Rust side raises plain Exceptions
        why = reason(error)
    if why is not None:
        raise LLMError(f"{source}: no tokenizer could be loaded: {_remedied(why, source)}")
    return tokenizer


def _remedied(why: str, source: Path | str) -> str:
    """What is wrong with a tokenizer's files and what to do, by what lies there."""
    directory = Path(source)
    pieces = [path.name for path in directory.glob("*.model")] if directory.is_dir() else []
    if pieces and not (directory / "tokenizer.json").is_file():
        return (
            f"there is only `{pieces[0]}`, which needs other packages; save it as tokenizer.json "
            "with `AutoTokenizer.from_pretrained(...).save_pretrained(...)` where they are "
            "installed"
        )
    return f"{why}; put the tokenizer.json that belongs to the weights beside them"


def without_habits(model: nn.Module) -> None:
    """Take away what a model's files say of how it is used; the ids of its tokens stay.

    ``generate`` fills whatever it is not told from ``model.generation_config`` (stop strings,
    penalties, forced words, kinds of caches), ``forward`` from ``model.config``.
    """
    config: Any = model.config
    for settings in (config, config.get_text_config()):
        settings.return_dict = True
        settings.output_attentions = settings.output_hidden_states = False
    if hasattr(model, "generation_config"):
        ids = {name: getattr(config.get_text_config(), name, None) for name in TOKEN_IDS}
        model.generation_config = GenerationConfig(**ids)


@contextmanager
def named(config: ModelConfig, what: str) -> Iterator[None]:
    """Whatever a library or a model's own code raises becomes one line that names the LLM."""
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - they raise any kind
        raise LLMError(
            f"`model.llm_model` is `{config.llm_model}`: {what}: {reason(error)}"
        ) from None


def reason(error: BaseException) -> str:
    """An exception of a library in words; its kind where its text alone says little."""
    text = " ".join(str(error).split())
    text = text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}..."
    return text if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {text}"


@contextmanager
def quiet() -> Iterator[None]:
    """Whatever is wrong is said in one line, not by the libraries' warnings before it."""
    transformers_logging.disable_progress_bar()
    logger = transformers_logging.get_logger("transformers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
