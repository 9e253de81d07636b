"""A tool registry of the older format: ``desc`` becomes ``description``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainables.data.json_list import parse_json
from trainables.data.registry import parse_registry
from trainables.errors import DataError
from trainables.migration.changes import Change
from trainables.yaml_config import shown


def migrate_tools(text: str, source: Path) -> tuple[str, list[Change]]:
    """The registry with ``description`` in place of ``desc``, entries and keys in their order.

    Raises DataError where an entry has both and they differ, and for all that a registry must not
    be.
    """
    entries = parse_json(text, source)
    if not isinstance(entries, list):
        raise DataError(f"{source}: must be a list of objects, but is {shown(entries)}")
    changes: list[Change] = []
    migrated = [_entry(source, i, entry, changes) for i, entry in enumerate(entries, start=1)]
    after = json.dumps(migrated, indent=2, ensure_ascii=False) + "\n" if changes else text
    parse_registry(after, source)
    return after, changes


def _entry(source: Path, number: int, entry: Any, changes: list[Change]) -> Any:
    if not isinstance(entry, dict) or "desc" not in entry:
        return entry
    where = f"entry {number} (`{str(entry.get('name', '?'))[:80]}`)"
    if "description" not in entry:
        changes.append(Change("renamed", f"{where}: desc -> description", "the key's name now"))
        return {"description" if key == "desc" else key: v for key, v in entry.items()}
    if entry["desc"] != entry["description"]:
        raise DataError(
            f"{source}: {where} has `desc` {shown(entry['desc'])} and `description` "
            f"{shown(entry['description'])}, which differ; remove the wrong one"
        )
    changes.append(Change("dropped", f"{where}: desc", "`description` says the same"))
    return {key: value for key, value in entry.items() if key != "desc"}
