"""Tool registries with ``desc``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainables.errors import DataError
from trainables.migration.tools import migrate_tools

SOURCE = Path("tools.json")


def migrate(entries: Any) -> tuple[Any, list[str]]:
    text, changes = migrate_tools(json.dumps(entries), SOURCE)
    return json.loads(text), [change.verb for change in changes]


def test_desc_becomes_description_in_its_place() -> None:
    old = [
        {"name": "b", "desc": "Größe"},
        {"desc": "y", "name": "a"},
        {"name": "c", "description": "z"},
        {"name": "d", "desc": "same", "description": "same"},
    ]
    entries, verbs = migrate(old)
    assert [list(entry.items()) for entry in entries] == [
        [("name", "b"), ("description", "Größe")],
        [("description", "y"), ("name", "a")],
        [("name", "c"), ("description", "z")],
        [("name", "d"), ("description", "same")],
    ]
    assert verbs == ["renamed", "renamed", "dropped"]


def test_todays_registry_stays_as_it_is() -> None:
    text = '[{"name":"a",  "description":"b"}]'
    assert migrate_tools(text, SOURCE) == (text, [])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"name": "a", "desc": "x", "description": "y"}], r"entry 1 \(`a`\) .* which differ"),
        ([{"name": "a", "desc": "x"}, {"name": "a", "desc": "y"}], "share the name `a`"),
        ([{"name": "a", "desc": ""}], "non-empty text"),
        ([{"name": "a", "desc": "x", "version": 2}], "unknown key `version`"),
        ({"a": "x"}, "must be a list"),
    ],
)
def test_what_no_registry_can_be_is_refused(entries: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        migrate(entries)
