"""A JSON file that people write by hand: read, or refused with what is often the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainables.errors import DataError
from trainables.yaml_config import shown

QUOTES = ("'", "‘", "’", "“", "”", "„", "«", "»", "`")
FORM = '{"name", "description"}'


def parse_list(text: str, path: Path) -> list[Any]:
    """The entries of a list that is not empty; ``path`` is where it stands, for the messages."""
    entries = parse_json(text, path)
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: must be a non-empty list of {FORM} objects{_nearly(entries)}")
    return entries


def parse_json(text: str, path: Path) -> Any:
    """What a JSON file says. Line breaks and tabs may stand in its texts as they are."""
    try:
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            if error.msg.startswith("Invalid control character"):
                return json.loads(text, strict=False)
            raise
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not valid JSON: {error}{_remedy(text, error.pos)}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}") from None


def _remedy(text: str, place: int) -> str:
    """What is often the reason that JSON cannot be read from ``place`` on."""
    before, after = text[:place].rstrip(), text[place:]
    if not text.strip():
        return "; the file is empty"
    if text.lstrip()[0] not in "[{":
        return f"; it begins with {shown(text.split(None, 1)[0])}: is it the profiling table?"
    if before.endswith(("}", "]")) and after.startswith(("{", "[")):
        return "; one value after the other (JSON Lines?): put them into one list, `[..., ...]`"
    if before.endswith(",") and after[:1] in ("]", "}"):
        return f"; remove the comma before `{after[0]}`"
    if after.startswith(QUOTES):
        return f'; JSON has straight double quotes, `"`, not `{after[0]}`'
    if after.startswith(("//", "/*", "#")):
        return "; JSON has no comments, remove them"
    return f", at {shown(after.splitlines()[0])}" if after.strip() else "; it ends too early"


def _nearly(entries: Any) -> str:
    """How what is no list can become one."""
    if not isinstance(entries, dict):
        return f", but is {shown(entries)}"
    lists = [key for key, value in entries.items() if isinstance(value, list)]
    if len(lists) == 1:
        return f"; the list stands below the key `{lists[0]}`: write the list alone"
    if entries and all(isinstance(value, str) for value in entries.values()):
        return "; names and descriptions must be values, not keys and values"
    return ", but is an object"
