"""The tool registry: ``tools.json``, a list of ``{"name", "description"}``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.errors import DataError, did_you_mean
from trainables.files import read_input
from trainables.yaml_config import shown

FIELDS = ("name", "description")


@dataclass(frozen=True)
class Tool:
    name: str
    description: str

    @property
    def prompt(self) -> str:
        """What the frozen LLM reads; its state at the last token is the tool's embedding."""
        return f"Tool: {self.name}\nDescription: {self.description}"


def load_registry(path: Path) -> list[Tool]:
    """Read and check a registry; every problem names the entry and the remedy."""
    return parse_registry(read_input(path, "the JSON file of `data.tool_registry`"), path)


def parse_registry(text: str, path: Path) -> list[Tool]:
    """The tools of a registry's text; ``path`` is where it stands, for the messages."""
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise DataError(f'{path}: must be a non-empty list of {{"name", "description"}} objects')
    tools = [_tool(path, number, entry) for number, entry in enumerate(entries, start=1)]
    seen: dict[str, int] = {}
    for number, tool in enumerate(tools, start=1):
        if tool.name in seen:
            raise DataError(
                f"{path}: entries {seen[tool.name]} and {number} share the name `{tool.name}`; "
                "names must be unique, rename or remove one"
            )
        seen[tool.name] = number
    return tools


def _tool(path: Path, number: int, entry: Any) -> Tool:
    if not isinstance(entry, dict):
        raise DataError(f"{path}: entry {number} is {shown(entry)}, but must be an object")
    where = f"{path}: entry {number} (`{str(entry.get('name', '?'))[:80]}`)"
    if "desc" in entry:
        raise DataError(
            f"{where} uses the key `desc`; rename it to `description`, or let "
            f"`python run_tune.py migrate tools {path} --out NEW.json` do it"
        )
    for key in entry:
        if key not in FIELDS:
            hint = did_you_mean(key, FIELDS)
            raise DataError(f"{where} has the unknown key `{key}`{hint}; allowed: {FIELDS}")
    for key in FIELDS:
        value = entry.get(key)
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{where}: `{key}` is {shown(value)}, but must be a non-empty text")
        if any(not c.isprintable() for c in value.replace("\n", "") or "x"):
            raise DataError(f"{where}: `{key}` has control characters; remove them")
        if key == "name" and "\n" in value:
            raise DataError(f"{where}: `name` has line breaks; remove them")
    return Tool(entry["name"].strip(), entry["description"].strip())
