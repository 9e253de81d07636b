"""Where an LLM's files lie and what they say of it, without loading anything."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from trainables.config import EMBEDDED, EMBEDDED_DIR, ModelConfig
from trainables.errors import LLMError
from trainables.files import exists
from trainables.llm.weight_files import embedding_shape, missing_shards
from trainables.network import within_reach

REACH_SECONDS = 1.5  # a hub that is there answers in a fraction of it
MAX_HIDDEN_SIZE = 1 << 20
HIDDEN_SIZE_KEYS = ("hidden_size", "n_embd", "n_embed", "d_model")


def local_directory(config: ModelConfig) -> Path | None:
    """The directory of the LLM's files on this machine; None for a hub id not yet cached."""
    if config.llm_model == EMBEDDED:
        return EMBEDDED_DIR
    path = Path(config.llm_model)
    if exists(path, "`model.llm_model`") and path.is_dir():
        if not (path / "config.json").is_file():
            raise LLMError(f"{path}: no `config.json` here; `model.llm_model` must be a causal LM")
        if not _has_weights(path):
            raise LLMError(f"{path}: no weights here (*.safetensors); is the copy complete?")
        if missing := missing_shards(path):
            raise LLMError(
                f"{path}: {len(missing)} of the weight files that its index names are not here, "
                f"the first is `{missing[0]}`; is the copy complete?"
            )
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
    directory = Path(found).parent if isinstance(found, str) else None
    if directory is None or not _has_weights(directory) or missing_shards(directory):
        return None
    return directory


def _has_weights(directory: Path) -> bool:
    return any(path.suffix in (".safetensors", ".bin") for path in directory.iterdir())


def known_hidden_size(config: ModelConfig) -> int | None:
    """D from files on this machine; None of a hub id whose ``config.json`` is not here yet."""
    file = config_file(config)
    return hidden_size(file.parent) if file else None


def llm_hidden_size(config: ModelConfig) -> int | None:
    """D from the LLM's files; of a hub id not cached yet, only its config.json is fetched."""
    directory = local_directory(config)
    if directory is None and not _offline() and _hub_within_reach():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError

        try:
            path = hf_hub_download(config.llm_model, "config.json", cache_dir=config.cache_dir)
        except (HfHubHTTPError, OSError) as error:
            raise LLMError(
                f"`model.llm_model` is `{config.llm_model}`: the hub does not give it: {error}"
            ) from None
        directory = Path(path).parent
    return hidden_size(directory) if directory else None


def check_available(config: ModelConfig) -> None:
    """A hub id must be cached or within reach; libraries would retry for half a minute first."""
    if local_directory(config) is not None:
        return
    name, cache = config.llm_model, config.cache_dir
    if _offline():
        why = "HF_HUB_OFFLINE is set"
    elif not _hub_within_reach():
        why = "the hub cannot be reached from here"
    else:
        return
    raise LLMError(
        f"`model.llm_model` is `{name}`: no directory of that name, not in the cache `{cache}`, "
        f"and {why}. On a machine with a network run `hf download {name} --cache-dir {cache}` and "
        "copy that directory here, or give the path of a local model directory, or `embedded`."
    )


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on")


def _hub_within_reach() -> bool:
    from huggingface_hub import constants

    return within_reach(constants.ENDPOINT, REACH_SECONDS)


def config_file(config: ModelConfig) -> Path | None:
    """Its ``config.json``; of a hub id it may be in the cache before the weights are."""
    directory = local_directory(config)
    if directory is not None:
        return directory / "config.json"
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(config.llm_model, "config.json", cache_dir=config.cache_dir)
    return Path(found) if isinstance(found, str) else None


def config_sections(path: Path) -> tuple[dict[str, Any], ...]:
    """A ``config.json`` and, of a model with more than text, its part for text."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LLMError(f"{path}: cannot be read: {error}") from None
    whole = config if isinstance(config, dict) else {}
    nested = whole.get("text_config")
    return whole, nested if isinstance(nested, dict) else {}


def hidden_size(directory: Path) -> int:
    """D, the width of the input embeddings, by the weights' own header or by ``config.json``.

    The two differ where a model projects its embeddings; what it says once it is loaded counts.
    """
    path = directory / "config.json"
    sections = config_sections(path)
    table = embedding_shape(directory)
    if table and 1 <= table[1] <= MAX_HIDDEN_SIZE:
        return table[1]
    for section in sections:
        for key in HIDDEN_SIZE_KEYS:
            size = section.get(key)
            if type(size) is int and 1 <= size <= MAX_HIDDEN_SIZE:
                return size
    raise LLMError(f"{path}: no usable {' or '.join(HIDDEN_SIZE_KEYS)}; is this a causal LM?")


def check_heads(num_heads: int, size: int, where: str) -> None:
    """Heads must divide D; otherwise an error that lists those that do."""
    if size % num_heads:
        divisors = [h for h in range(1, min(size, 64) + 1) if size % h == 0]
        raise LLMError(
            f"{where} is {num_heads}, but must divide the LLM's hidden size {size}: "
            f"{', '.join(map(str, divisors))}"
        )


def llm_fingerprint(directory: Path) -> str:
    """A digest of the weights and configuration below ``directory``.

    Files up to 64 MiB are read whole; of larger ones size, head and 64 evenly spread megabytes.
    They are read once per process, and again when one has been written to.
    """
    suffixes = (
        *(".safetensors", ".bin", ".json", ".model", ".txt", ".jinja"),
        *(".py", ".tiktoken", ".vocab"),
    )
    paths = sorted(p for p in directory.iterdir() if p.suffix in suffixes)
    stats = [path.stat() for path in paths]
    return _digest(
        tuple((path, s.st_size, s.st_mtime_ns) for path, s in zip(paths, stats, strict=True))
    )


@cache
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, size, _ in files:
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            if size <= 64 << 20:
                digest.update(file.read())
                continue
            for i in range(64):
                file.seek(i * (size - (1 << 20)) // 63)
                digest.update(file.read(1 << 20))
    return digest.hexdigest()
