"""Keys of an older configuration: refused, with what determines them now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.errors import ConfigError

RETIRED_KEYS = {
    "model.llm_hidden_dim": "the hidden size is read from the LLM",
    "model.num_tools": "the number of tools is read from `data.tool_registry`",
    "model.freeze_semantic": "the semantic stream is always frozen",
}


def refuse_retired_keys(mapping: Mapping[str, Any], source: str) -> None:
    """Raises ConfigError for the first one in a training's configuration."""
    for dotted, reason in RETIRED_KEYS.items():
        section, key = dotted.split(".")
        values = mapping.get(section)
        if isinstance(values, Mapping) and key in values:
            raise ConfigError(
                f"{source}: `{dotted}` belonged to an older format and is now determined by "
                f"itself: {reason}. Delete the key; `python run_tune.py migrate config` does it "
                "for a whole file."
            )
