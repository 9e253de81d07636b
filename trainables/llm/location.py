"""Where an LLM's files lie and what they say of it, without loading anything."""

from __future__ import annotations

import json
from pathlib import Path

from trainables.config import EMBEDDED, EMBEDDED_DIR, ModelConfig
from trainables.errors import LLMError

HIDDEN_SIZE_KEYS = ("hidden_size", "n_embd", "d_model")


def local_directory(config: ModelConfig) -> Path | None:
    """The directory of the LLM's files on this machine; None for a hub id not yet cached."""
    if config.llm_model == EMBEDDED:
        return EMBEDDED_DIR
    path = Path(config.llm_model)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise LLMError(f"{path}: no `config.json` here; `model.llm_model` must be a causal LM")
        return path
    if path.is_absolute() or config.llm_model.count("/") > 1 or path.exists():
        raise LLMError(
            f"`model.llm_model` is `{config.llm_model}`, but there is no such directory; give "
            "`embedded`, a hub id such as `Qwen/Qwen2.5-0.5B`, or a model's directory"
        )
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(config.llm_model, "config.json", cache_dir=config.cache_dir)
    except HFValidationError as error:
        raise LLMError(f"`model.llm_model` is no directory and no hub id: {error}") from None
    return Path(found).parent if isinstance(found, str) else None


def hidden_size(directory: Path) -> int:
    """D, as the model's ``config.json`` states it."""
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise LLMError(f"{path}: cannot be read: {error}") from None
    for section in (config, config.get("text_config") or {}):
        for key in HIDDEN_SIZE_KEYS:
            if isinstance(section.get(key), int):
                return int(section[key])
    raise LLMError(f"{path}: none of {', '.join(HIDDEN_SIZE_KEYS)} is given; is this a causal LM?")


def check_heads(num_heads: int, size: int, where: str) -> None:
    """Heads must divide D; otherwise an error that lists those that do."""
    if size % num_heads:
        divisors = [h for h in range(1, min(size, 64) + 1) if size % h == 0]
        raise LLMError(
            f"{where} is {num_heads}, but must divide the LLM's hidden size {size}: "
            f"{', '.join(map(str, divisors))}"
        )
