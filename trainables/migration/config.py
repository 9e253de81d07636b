"""A training's YAML of the older format, edited in place so that all else stays as written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import yaml

from trainables.errors import ConfigError
from trainables.migration.changes import Change
from trainables.retired_keys import RETIRED_KEYS
from trainables.yaml_config import load_yaml

RETIRED = {dotted.removeprefix("model."): reason for dotted, reason in RETIRED_KEYS.items()}
HIDDEN_SIZE = "llm_hidden_dim"
Pair = tuple[Any, Any]  # yaml.Node, of a key and of its value


class Edit(NamedTuple):
    """Characters ``start`` to ``end`` of the text give way to ``replacement``."""

    start: int
    end: int
    replacement: str = ""


def migrate_config(text: str, source: str) -> tuple[str, list[Change]]:
    """The text without the retired keys, and what was changed; comments and order stay.

    The section ``model`` stands at the top, or below ``train`` in a sweep's file. Raises
    ConfigError where the edited text would not read as exactly the mapping that is meant.
    """
    before = load_yaml(text, source)
    if not isinstance(before, dict):
        raise ConfigError(f"{source}: must be a mapping of keys to values")
    path = ("train", "model") if isinstance(before.get("train"), dict) else ("model",)
    model = _below(before, path)
    retired = [key for key in model if key in RETIRED]
    if not retired:
        return text, []
    follows = HIDDEN_SIZE in model and model.get("d_resource") == model[HIDDEN_SIZE]
    kept = {key: value for key, value in model.items() if key not in RETIRED}
    expected = _replaced(before, path, kept | ({"d_resource": None} if follows else {}))
    section = _section(text, path)
    if section is not None:
        edits, changes = _edits(text, section, retired, follows)
        after = _edited(text, edits)
        if _mapping_of(after) == expected:
            return after, changes
    raise ConfigError(
        f"{source}: {', '.join(retired)} cannot be taken out of the text (an anchor, an alias or a "
        "merge key?); write the section `model` out by hand"
    )


def _below(mapping: dict[str, Any], path: Sequence[str]) -> dict[Any, Any]:
    below: Any = mapping
    for key in path:
        below = below.get(key)
        if not isinstance(below, dict):
            return {}
    return below


def _replaced(mapping: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy with ``value`` at ``path``; what an alias shares with that place stays."""
    key, *rest = path
    return {**mapping, key: _replaced(mapping[key], rest, value) if rest else value}


def _mapping_of(text: str) -> Any:
    try:
        return load_yaml(text, "the edited text")
    except ConfigError:
        return None


def _section(text: str, path: Sequence[str]) -> Pair | None:
    """The section's key and mapping as they are written; None if they come from elsewhere."""
    name: Any = None
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    for key in path:
        written = {k.value: (k, v) for k, v in node.value}
        if key not in written:
            return None
        name, node = written[key]
    return name, node


def _edits(
    text: str, section: Pair, retired: Sequence[str], follows: bool
) -> tuple[list[Edit], list[Change]]:
    name, model = section
    pairs, in_braces = list(model.value), bool(model.flow_style)
    gone = [pair for pair in pairs if pair[0].value in retired]
    cut = _cut_from_braces if in_braces else _cut_lines
    edits = cut(text, pairs, gone)
    changes = []
    for key, value in gone:
        end = value.end_mark.index if in_braces else _line_end(text, value.end_mark.index)
        written = text[key.start_mark.index : end].strip()
        changes.append(Change("dropped", f"model.{written}", RETIRED[key.value]))
    if len(gone) == len(pairs) and not in_braces:
        colon = text.index(":", name.end_mark.index) + 1
        edits.append(Edit(colon, colon, " {}"))
    for key, value in pairs:
        if follows and key.value == "d_resource":
            edits.append(Edit(value.start_mark.index, value.end_mark.index, "null"))
            written = text[value.start_mark.index : value.end_mark.index]
            why = "it equalled the hidden size, and null follows the LLM"
            changes.append(Change("set", f"model.d_resource: null, was {written}", why))
    return edits, changes


def _cut_lines(text: str, pairs: Sequence[Pair], gone: Sequence[Pair]) -> list[Edit]:
    """Whole lines, with the comment at their end."""
    return [
        Edit(
            text.rfind("\n", 0, key.start_mark.index) + 1,
            _line_end(text, value.end_mark.index),
        )
        for key, value in gone
    ]


def _line_end(text: str, place: int) -> int:
    newline = text.find("\n", place)
    return len(text) if newline < 0 else newline + 1


def _cut_from_braces(text: str, pairs: Sequence[Pair], gone: Sequence[Pair]) -> list[Edit]:
    """Each with the comma that follows it; of the last ones, the comma before them."""
    kept = [i for i, pair in enumerate(pairs) if pair not in gone]
    last = kept[-1] if kept else -1
    edits = [
        Edit(pairs[i][0].start_mark.index, pairs[i + 1][0].start_mark.index)
        for i in range(last)
        if i not in kept
    ]
    if last < len(pairs) - 1:
        start = pairs[last][1].end_mark.index if kept else pairs[0][0].start_mark.index
        edits.append(Edit(start, pairs[-1][1].end_mark.index))
    return edits


def _edited(text: str, edits: Sequence[Edit]) -> str:
    for start, end, replacement in sorted(edits, reverse=True):
        text = text[:start] + replacement + text[end:]
    return text
