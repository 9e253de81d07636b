"""What a probe has found out of an LLM, kept where processes without torch can read it.

Content-addressed by everything that it depends on: the LLM's files, the probe, the libraries.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from trainables.config import ModelConfig, Section
from trainables.files import keep_if_possible
from trainables.llm.location import llm_fingerprint, local_directory

PROBE_VERSION = 1
LIBRARIES = ("torch", "transformers", "tokenizers")
SHIPPED = Path(__file__).with_name("embedded_verdict.json")


class Verdict(Section):
    """An LLM that can be used: D, how many tokens it reads at most, whether any text has some."""

    hidden_size: int
    max_tokens: int
    any_text: bool


class _Kept(Section):
    """A verdict with what it was given for."""

    key: str
    verdict: Verdict


def known_verdict(config: ModelConfig) -> Verdict | None:
    """What was found out of the LLM as it lies there now; None if it was not probed yet."""
    directory = local_directory(config)
    return _find(_key(directory, config), config) if directory else None


def keep_verdict(config: ModelConfig, verdict: Verdict) -> None:
    """Let the next process find it, if the LLM lies where it can be identified."""
    directory = local_directory(config)
    if directory is None:
        return
    key = _key(directory, config)
    if _find(key, config) != verdict:
        keep_if_possible(_path(key, config), partial(_write, key, verdict))


def ship_verdict(config: ModelConfig, verdict: Verdict) -> None:
    """Put it into the package, where it is found without any cache."""
    directory = local_directory(config)
    if directory is not None:
        _write(_key(directory, config), verdict, SHIPPED)


def _write(key: str, verdict: Verdict, path: Path) -> None:
    path.write_text(_Kept(key=key, verdict=verdict).model_dump_json() + "\n", encoding="utf-8")


def _find(key: str, config: ModelConfig) -> Verdict | None:
    for path in (SHIPPED, _path(key, config)):
        try:
            kept = _Kept.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue
        if kept.key == key:
            return kept.verdict
    return None


def _key(directory: Path, config: ModelConfig) -> str:
    libraries = [version(name).split("+")[0] for name in LIBRARIES]
    parts = [PROBE_VERSION, llm_fingerprint(directory), config.trust_remote_code, libraries]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _path(key: str, config: ModelConfig) -> Path:
    return Path(config.cache_dir) / "llm_verdicts" / f"{key[:32]}.json"
