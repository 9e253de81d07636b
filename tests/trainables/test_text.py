"""Encodings of files, and characters that no text may have."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from trainables.errors import UserError
from trainables.files import read_input
from trainables.text import IN_A_TEXT, decode, line_breaks, named, unusable_characters

EVERYDAY = [
    "no\u00a0break",
    "表\u3000画像",
    "می\u200cگردد",
    "\U0001f469\u200d\U0001f4bb",
    "hy\u00adphen",
    "\u200fعربي\u200e",
    "a\u2028b",
    "\ue000 private",
    "\U0001fae8 newer than this Python",
]


@pytest.mark.parametrize("text", EVERYDAY)
def test_every_character_but_controls_may_stand_in_a_text(text: str) -> None:
    assert unusable_characters(text) == ""


def test_exactly_controls_and_halves_of_pairs_are_refused() -> None:
    for code in range(0x110000):
        character = chr(code)
        refused = unicodedata.category(character) in ("Cc", "Cs")
        assert bool(unusable_characters(character)) == refused, hex(code)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\0", "the control character U+0000 (NULL) at position 2; remove it"),
        ("\x1b[31m", "U+001B (ESCAPE) at position 1"),
        ("ab\x7f", "U+007F (DELETE) at position 3"),
        ("\x93quoted", "U+0093 (in Windows-1252 it is `“`) at position 1"),
        ("\x85", "U+0085 (in Windows-1252 it is `…`)"),
        ("\x81", "U+0081 (of the set C1)"),
        ("a\ud800", "U+D800 (half of a surrogate pair) at position 2; remove it"),
        ("/caf\udce9", "U+DCE9 (the byte 0xE9, which is not UTF-8) at position 5"),
        ("\0\0", "position 2; remove them"),
        ("\0" * 9, "position 3 and 6 more; remove them"),
    ],
)
def test_a_refused_character_is_named_with_its_place(text: str, said: str) -> None:
    assert said in unusable_characters(text)


def test_a_text_of_several_lines_has_tabs_and_every_kind_of_line_end() -> None:
    assert unusable_characters("a\tb\r\nc\rd\n", IN_A_TEXT) == ""
    for text in ("a\nb", "a\rb", "a\u2028b", "a\u2029b"):
        assert line_breaks(text) == f"{named(text[1])} at position 2"
    assert line_breaks("a b\tc") == ""


TABLE = "tool,größe\r\nx,1\r\n"
EXCEL_SAYS = "save it as UTF-8"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf_8_is_read_with_and_without_its_mark(encoding: str) -> None:
    assert decode(TABLE.encode(encoding)) == decode(TABLE.encode())
    assert decode(TABLE.encode()).text == TABLE
    assert decode(b"").text == ""


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (TABLE.encode("utf-16"), "UTF-16"),
        (TABLE.encode("utf-16-le"), "UTF-16"),
        (TABLE.encode("utf-16-be"), "UTF-16"),
        (b"\xfe\xff" + TABLE.encode("utf-16-be"), "UTF-16"),
        (TABLE.encode("utf-32"), "UTF-32"),
        (TABLE.encode("cp1252"), "line 1 has the byte 0xF6, which is not UTF-8 (in Windows-1252"),
        ("x\nö\ny\nö\n".encode("latin-1"), "line 2 has the byte 0xF6"),
    ],
)
def test_text_in_another_encoding_is_told_and_read_all_the_same(content: bytes, what: str) -> None:
    found = decode(content)
    assert what in found.trouble
    assert EXCEL_SAYS in found.trouble
    assert found.text in (TABLE, "x\nö\ny\nö\n")


def test_every_line_that_is_not_utf_8_is_counted() -> None:
    assert "line 2 has the byte 0xF6" in decode("x\nö\ny\nö\nö".encode("latin-1")).trouble
    assert "as 2 more lines have" in decode("x\nö\ny\nö\nö".encode("latin-1")).trouble


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\x03\x04\x14\0\x06\0" + bytes(range(256)), "workbooks of Excel"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "a workbook of Excel"),
        (b"\x1f\x8b\x08", "gzip; unpack it"),
        (b"PAR1\x15", "a Parquet file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run `git lfs pull`"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (bytes(range(256)), "no text"),
    ],
)
def test_what_is_no_text_is_told_as_what_it_is(content: bytes, what: str, tmp_path: Path) -> None:
    assert decode(content).text is None
    assert what in decode(content).trouble
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_input(tmp_path / "x.yaml", "a YAML file")
    assert "cannot be read as a YAML file: it is " in str(caught.value)


def test_line_ends_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"a\r\nb\rc\n")
    assert read_input(tmp_path / "x", "a text") == "a\nb\nc\n"
