"""The tool registry: ``tools.json``, a list of ``{"name", "description"}``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.data.faults import Faults
from trainables.data.json_list import parse_list
from trainables.errors import did_you_mean
from trainables.files import read_input
from trainables.names import comparable, difference, nearest, visible
from trainables.text import IN_A_TEXT, line_breaks, unusable_characters
from trainables.yaml_config import shown

FIELDS = ("name", "description")
EARLIER_FIELD = "desc"


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
    """The tools of a registry's text; ``path`` is where it stands, for the messages.

    Names are told apart as ``names.comparable`` says, and kept as they are written.
    """
    entries = parse_list(text, path)
    faults = Faults(path)
    for number, entry in enumerate(entries, start=1):
        for kind, fault in _faults_of(entry):
            faults.add(number, kind, f"{_named(number, entry)}{fault}")
    _check_earlier(entries, path, faults)
    _check_names(entries, faults)
    faults.refuse()
    return [Tool(entry["name"].strip(), entry["description"].strip()) for entry in entries]


def _named(number: int, entry: Any) -> str:
    name = f" (`{str(entry.get('name', '?'))[:80]}`)" if isinstance(entry, dict) else ""
    return f"entry {number}{name}"


def _faults_of(entry: Any) -> Iterator[tuple[str, str]]:
    """The faults of an entry by their kinds, but for those that concern several entries."""
    if not isinstance(entry, dict):
        yield "entry", f" is {shown(entry)}, but must be an object"
        return
    missing = {field for field in FIELDS if field not in entry}
    if EARLIER_FIELD in entry:
        missing.discard("description")
    for key in entry:
        if key not in (*FIELDS, EARLIER_FIELD):
            hint = did_you_mean(key, FIELDS)
            yield "key", f" has the unknown key `{key}`{hint}; allowed: {FIELDS}"
            missing.discard(nearest(key, FIELDS) or "")
    for field in FIELDS:
        if field in entry or field in missing:
            yield from _faults_of_text(field, entry.get(field))


def _faults_of_text(field: str, value: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(value, str) or not value.strip():
        yield field, f": `{field}` is {shown(value)}, but must be a non-empty text"
        return
    if not visible(value):
        yield field, f": `{field}` is {shown(value)}, but must be a text that can be seen"
    if bad := unusable_characters(value, IN_A_TEXT if field == "description" else "\n\r"):
        yield f"characters of {field}", f": `{field}` has {bad}"
    if field == "name" and (breaks := line_breaks(value.strip())):
        yield "line breaks", f": `name` has line breaks ({breaks}); remove them"


def _check_earlier(entries: Sequence[Any], path: Path, faults: Faults) -> None:
    """Entries of the earlier format, told once."""
    earlier = [n for n, e in enumerate(entries, 1) if isinstance(e, dict) and EARLIER_FIELD in e]
    if earlier:
        first, others = earlier[0], len(earlier) - 1
        more = f" (and {others} other entries)" if others else ""
        faults.add(
            first,
            EARLIER_FIELD,
            f"{_named(first, entries[first - 1])} uses the key `desc`; rename it to `description`, "
            f"or let `python run_tune.py migrate tools {path} --out NEW.json` do it{more}",
        )


def _check_names(entries: Sequence[Any], faults: Faults) -> None:
    """No two names may be the same, or differ only in what cannot be seen."""
    seen: dict[str, tuple[int, str]] = {}
    for number, entry in enumerate(entries, start=1):
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not visible(name):
            continue
        before, other = seen.setdefault(visible(name), (number, name))
        if before == number:
            continue
        if comparable(other) == comparable(name):
            form = "" if other.strip() == name.strip() else " (in another Unicode form)"
            text = (
                f"share the name `{name.strip()}`{form}; names must be unique, rename or remove one"
            )
        else:
            text = (
                f"have names that look alike, `{other}` and `{name}`: {difference(other, name)}; "
                "rename or remove one"
            )
        faults.add(number, "names", f"entries {before} and {number} {text}")
