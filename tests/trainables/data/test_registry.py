"""Tool registries as people write them: what works, and everything that is wrong at once."""

from __future__ import annotations

import json
import pickle
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TOOLS
from trainables.data.faults import MOST_SHOWN
from trainables.data.registry import Tool, load_registry
from trainables.errors import DataError, UserError

DESCRIPTIONS = [
    "Searches\u00a0log files.",
    "ログを\u3000検索する。",
    "جستجو می\u200cکند",
    "For a \U0001f469\u200d\U0001f4bb and the \U0001f3f4\U000e0067\U000e007f",
    "hy\u00adphen",
    "columns\tand\ttabs",
    "two\r\nlines",
    "old\rMac",
    "a\u2028b\u2029c",
    "\u200fعربي\u200e and \u202bembedded\u202c, \u2067isolated\u2069",
    "zero\u200bwidth \ufeff mark",
    "private \ue000, unassigned \U0001fae8, not a character \ufffe",
]
NAMES = [
    "grep\u00a0logs",
    "検索\u3000器",
    "می\u200cگردد",
    "\U0001f469\u200d\U0001f4bb",
    "d\u00e9tecteur",
    unicodedata.normalize("NFD", "détecteur"),
    "\u200fعربي",
    "soft\u00adhyphen",
    'with "quotes", commas; and more',
    "\u2764\ufe0f",
]


def load(tmp_path: Path, content: Any) -> list[Tool]:
    """Entries, or the text of a file, or its bytes."""
    path = tmp_path / "tools.json"
    if not isinstance(content, str | bytes):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_registry(path)


def refused(tmp_path: Path, content: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        load(tmp_path, content)
    return caught.value


@pytest.mark.parametrize("text", DESCRIPTIONS)
@pytest.mark.parametrize("escaped", [True, False])
def test_a_description_is_kept_as_it_is_written(text: str, escaped: bool, tmp_path: Path) -> None:
    entries = [{"name": "a", "description": text}]
    (tool,) = load(tmp_path, json.dumps(entries, ensure_ascii=escaped))
    assert tool.description == text
    assert tool.prompt == f"Tool: a\nDescription: {text}"


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_kept_as_it_is_written(name: str, tmp_path: Path) -> None:
    (tool,) = load(tmp_path, [{"name": f"\u00a0{name} ", "description": "b"}])
    assert tool.name == name


def test_line_breaks_and_tabs_may_stand_in_the_json_as_they_are(tmp_path: Path) -> None:
    (tool,) = load(tmp_path, '[{"name": "a", "description": "first\tline\nsecond"}]')
    assert tool.description == "first\tline\nsecond"


@pytest.mark.parametrize("mark", ["\ufeff", ""])
def test_a_mark_of_utf_8_is_no_part_of_the_text(mark: str, tmp_path: Path) -> None:
    assert load(tmp_path, mark + json.dumps(TOOLS))[0].name == "grep_logs"


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("description", "a\0", "`description` has the control character U+0000 (NULL) at position"),
        ("description", "a\x07b", "U+0007 (ALERT) at position 2; remove it"),
        ("description", "\x93quoted\x94", "U+0093 (in Windows-1252 it is `“`) at position 1"),
        ("description", "a\ud83d", "U+D83D (half of a surrogate pair) at position 2; remove it"),
        ("description", "a\x0cb\x0bc", "remove them"),
        (
            "description",
            " \u200b\u00a0",
            "`description` is ' \\u200b\\xa0', but must be a text that",
        ),
        ("name", "a\0", "`name` has the control character U+0000 (NULL) at position 2"),
        ("name", "a\tb", "`name` has the control character U+0009 (TAB) at position 2"),
        (
            "name",
            "a\r\nb",
            "`name` has line breaks (U+000D (CARRIAGE RETURN) at position 2, U+000A",
        ),
        ("name", "a\u2028b", "`name` has line breaks (U+2028 (LINE SEPARATOR) at position 2)"),
        ("name", "a\ud83d", "half of a surrogate pair"),
        ("name", "\u200b\u200d", "must be a text that can be seen"),
    ],
)
def test_a_character_that_cannot_stay_is_named(
    field: str, text: str, said: str, tmp_path: Path
) -> None:
    entry = {"name": "a", "description": "b", field: text}
    assert said in str(refused(tmp_path, [entry]))


NFD = unicodedata.normalize("NFD", "détecteur")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a", "b", "a"), "entries 1 and 3 share the name `a`; names must be unique"),
        (("a", " a\u00a0"), "entries 1 and 2 share the name `a`"),
        (("détecteur", NFD), "entries 1 and 2 share the name `"),
        (("détecteur", NFD), "(in another Unicode form)"),
        (("ab", "a\u200bb"), "entries 1 and 2 have names that look alike, `ab` and `a\\u200bb`"),
        (("ab", "\u200eab"), "`\\u200eab` has U+200E (LEFT-TO-RIGHT MARK) at position 1; rename"),
        (("a b", "a\u00a0b"), "position 2 is U+0020 (SPACE) here, U+00A0 (NO-BREAK SPACE) there"),
    ],
)
def test_names_must_differ_in_what_can_be_seen(
    names: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    entries = [{"name": name, "description": "x"} for name in names]
    assert said in str(refused(tmp_path, entries))


@pytest.mark.parametrize(("a", "b"), [("a", "A"), ("ﬁt", "fit"), ("a b", "a  b"), ("а", "a")])
def test_names_that_differ_otherwise_are_two(a: str, b: str, tmp_path: Path) -> None:
    entries = [{"name": name, "description": "x"} for name in (a, b)]
    assert [tool.name for tool in load(tmp_path, entries)] == [a, b]


BAD = [
    {"name": "", "description": "x"},
    7,
    {"name": "c", "descripton": "y"},
    {"name": "d", "description": "\0"},
    {"name": "e\nf"},
    {"name": "c", "description": "z", "version": 2},
    *TOOLS,
]
SAID = [
    "entry 1 (``): `name` is '', but must be a non-empty text",
    "entry 2 is 7, but must be an object",
    "entry 3 (`c`) has the unknown key `descripton` (did you mean `description`?); allowed: "
    "('name', 'description')",
    "entry 4 (`d`): `description` has the control character U+0000 (NULL) at position 1; remove it",
    "entry 5 (`e f`): `name` has line breaks (U+000A (LINE FEED) at position 2); remove them",
    "entry 5 (`e f`): `description` is None, but must be a non-empty text",
    "entry 6 (`c`) has the unknown key `version`; allowed: ('name', 'description')",
    "entries 3 and 6 share the name `c`; names must be unique, rename or remove one",
]


def test_all_faults_of_a_registry_are_told_at_once(tmp_path: Path) -> None:
    error = refused(tmp_path, BAD)
    path = tmp_path / "tools.json"
    assert error.lines == (f"{path}: {len(SAID)} faults:", *(f"  {fault}" for fault in SAID))
    assert str(error) == f"{path}: {len(SAID)} faults: {'; '.join(SAID)}"
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.lines) == (str(error), error.lines)


def test_of_many_faults_the_first_of_every_kind_is_shown(tmp_path: Path) -> None:
    entries = [{"name": f"a{i}", "description": "\0"} for i in range(30)]
    error = refused(tmp_path, [*entries, {"name": "", "description": "b"}])
    assert len(error.lines) == 1 + MOST_SHOWN + 1
    assert error.lines[0].endswith("31 faults:")
    assert error.lines[-2].startswith("  entry 31 (``): `name` is ''")
    assert error.lines[-1] == "  and 21 more"


def test_a_registry_of_the_earlier_format_is_told_once(tmp_path: Path) -> None:
    error = refused(tmp_path, [{"name": f"a{i}", "desc": "b"} for i in range(5)])
    assert len(error.lines) == 1
    assert "entry 1 (`a0`) uses the key `desc`; rename it to `description`" in str(error)
    assert str(error).endswith("(and 4 other entries)")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not valid JSON: Expecting value: line 1 column 1 (char 0); the file is empty"),
        ('{"name": "a", "description": "b"}\n{"name": "c"}', "JSON Lines?): put them into one"),
        ('[{"name": "a", "description": "b"},]', "remove the comma before `]`"),
        ('[{"name": "a", "description": "b",}]', "remove the comma before `}`"),
        ("[{'name': 'a'}]", "straight double quotes, `\"`, not `'`"),
        ("[{“name”: “a”}]", 'straight double quotes, `"`, not `“`'),
        ('[// mine\n{"name": "a"}]', "JSON has no comments, remove them"),
        ('[{"name": a}]', "at 'a}]'"),
        ('[{"name": "a', "not valid JSON: Unterminated string"),
        ("tool,input_size\ngrep,small", "it begins with 'tool,input_size': is it the profiling"),
        ('{"tools": [{"name": "a"}]}', "the list stands below the key `tools`: write the list"),
        ('{"grep": "Searches."}', "names and descriptions must be values, not keys and values"),
        ('{"a": 1}', "but is an object"),
        ("7", "but is 7"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_what_is_no_list_of_tools_says_what_it_is(content: str, said: str, tmp_path: Path) -> None:
    assert said in str(refused(tmp_path, content))


def test_another_encoding_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it is encoded as UTF-16; save it as UTF-8"):
        load(tmp_path, json.dumps(TOOLS).encode("utf-16"))
    with pytest.raises(UserError, match="line 1 has the byte 0xFC"):
        load(tmp_path, '[{"name": "für", "description": "b"}]'.encode("cp1252"))
