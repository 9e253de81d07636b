"""Text as people write it: how a file is encoded, and which characters no text may have."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

# Unicode has no names for control characters, only these aliases (NameAliases.txt).
CONTROLS = (
    "NULL,START OF HEADING,START OF TEXT,END OF TEXT,END OF TRANSMISSION,ENQUIRY,ACKNOWLEDGE,ALERT,"
    "BACKSPACE,TAB,LINE FEED,LINE TABULATION,FORM FEED,CARRIAGE RETURN,SHIFT OUT,SHIFT IN,"
    "DATA LINK ESCAPE,DEVICE CONTROL ONE,DEVICE CONTROL TWO,DEVICE CONTROL THREE,"
    "DEVICE CONTROL FOUR,NEGATIVE ACKNOWLEDGE,SYNCHRONOUS IDLE,END OF TRANSMISSION BLOCK,CANCEL,"
    "END OF MEDIUM,SUBSTITUTE,ESCAPE,FILE SEPARATOR,GROUP SEPARATOR,RECORD SEPARATOR,"
    "UNIT SEPARATOR"
).split(",")
DELETE, FIRST_OF_C1, LAST_OF_C1 = 0x7F, 0x80, 0x9F
BYTES_IN_TEXT = range(0xDC80, 0xDD00)  # how Python keeps bytes of a path that are no text
# The environment of processes that we start: whatever the locale, they read and write files as
# UTF-8, and what a terminal cannot show never ends them.
TEXT_AS_UTF8 = {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}
SHOWN = 3  # characters of one text that are told one by one
IN_A_TEXT = "\t\n\r"  # control characters that a text of several lines may have


def named(character: str) -> str:
    """``U+00A0 (NO-BREAK SPACE)``; the empty string is the end of a text."""
    if not character:
        return "the end"
    return f"U+{ord(character):04X} ({_name(character)})"


def _name(character: str) -> str:
    code = ord(character)
    if code < len(CONTROLS):
        return CONTROLS[code]
    if code == DELETE:
        return "DELETE"
    if FIRST_OF_C1 <= code <= LAST_OF_C1:
        meant = bytes([code]).decode("cp1252", "ignore")
        return f"in Windows-1252 it is `{meant}`" if meant else "of the set C1"
    if code in BYTES_IN_TEXT:
        return f"the byte 0x{code - BYTES_IN_TEXT.start + 0x80:02X}, which is not UTF-8"
    if unicodedata.category(character) == "Cs":
        return "half of a surrogate pair"
    return unicodedata.name(character, "a character without a name")


def unusable_characters(text: str, allowed: str = "") -> str:
    """What must be removed from a text, by name and position, and the advice; usually empty.

    Control characters and halves of surrogate pairs. Everything else may stand in a text: blanks
    of every kind, joiners, marks of direction, emoji.
    """
    what = {"Cc": "the control character ", "Cs": ""}
    bad = [
        f"{what[category]}{named(c)} at position {place}"
        for place, c in enumerate(text, start=1)
        if c not in allowed and (category := unicodedata.category(c)) in what
    ]
    return f"{listed(bad, SHOWN)}; remove {'them' if len(bad) > 1 else 'it'}" if bad else ""


def line_breaks(text: str) -> str:
    """Characters that begin a new line, by name and position; empty for a text of one line."""
    bad = [
        f"{named(c)} at position {place}"
        for place, c in enumerate(text, start=1)
        if c in "\n\r" or unicodedata.category(c) in ("Zl", "Zp")
    ]
    return listed(bad, SHOWN)


def listed(items: Sequence[str], most: int) -> str:
    """``a, b, c and 4 more``."""
    shown, more = ", ".join(items[:most]), len(items) - most
    return f"{shown} and {more} more" if more > 0 else shown


@dataclass(frozen=True)
class FileText:
    """What a file says; ``trouble``: why its bytes are not the UTF-8 that they must be.

    With a trouble, ``text`` is what was probably meant, to be checked for further faults and for
    nothing else; it is None where the file holds no text at all.
    """

    text: str | None
    trouble: str = ""


MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
NO_TEXT = (
    (b"PK\x03\x04", "a zip archive, as workbooks of Excel and LibreOffice are"),
    (b"\xd0\xcf\x11\xe0", "a workbook of Excel"),
    (b"\x1f\x8b", "compressed by gzip; unpack it"),
    (b"BZh", "compressed by bzip2; unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd; unpack it"),
    (b"PAR1", "a Parquet file"),
    (b"%PDF", "a PDF"),
)
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
SAVE_AS = "save it as UTF-8"
SAMPLE = 4096  # bytes that tell an encoding


def decode(content: bytes) -> FileText:
    """The text of a file that must be UTF-8, with or without its mark (BOM)."""
    for start, what in NO_TEXT:
        if content.startswith(start):
            return FileText(None, f"it is {what}")
    if content.startswith(LFS_POINTER):
        return FileText(None, "it is a pointer of Git LFS to the file; run `git lfs pull`")
    if content[:SAMPLE].lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return FileText(None, "it is a web page, not the file behind a link")
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), None)
    encoding = encoding or _without_mark(content[:SAMPLE])
    if encoding is not None:
        text = content.decode(encoding, "replace").removeprefix("\ufeff")
        return FileText(text, f"it is encoded as {encoding[:6].upper()}; {SAVE_AS}")
    try:
        return FileText(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return _not_utf8(content, error.start)


def _without_mark(sample: bytes) -> str | None:
    """UTF-16 without its mark: text of which every other byte is 0."""
    half = len(sample) // 2
    for encoding, zeros, others in (
        ("utf-16-le", sample[1::2], sample[::2]),
        ("utf-16-be", sample[::2], sample[1::2]),
    ):
        if half >= 2 and zeros.count(0) > 0.9 * half and others.count(0) < 0.1 * half:
            return encoding
    return None


def _not_utf8(content: bytes, place: int) -> FileText:
    if b"\0" in content[:SAMPLE]:
        return FileText(None, "it is no text")
    try:
        text, encoding = content.decode("cp1252"), "Windows-1252"
    except UnicodeDecodeError:
        text, encoding = content.decode("latin-1"), "Latin-1"
    line = content.count(b"\n", 0, place) + 1
    others = sum(map(_is_not_utf8, content[place:].split(b"\n")[1:]))
    what = f"line {line} has the byte 0x{content[place]:02X}, which is not UTF-8"
    more = f", as {others} more lines have" if others else ""
    return FileText(text, f"{what} (in {encoding} it is `{text[place]}`){more}; {SAVE_AS}")


def _is_not_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False
