"""Names that people type: which are the same, which one was meant, in what two of them differ."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import takewhile

from trainables.text import named

WORD = re.compile(r"[^\W_]+")
# Characters that are drawn as nothing: Unicode's Default_Ignorable_Code_Point, 15.0.
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
LONGEST = 100  # characters; longer ones are no names that somebody mistypes
LETTERS_PER_TYPO = 4  # of a word
LETTERS_PER_SLIP = 8  # of a name whose words do not match one by one
STEM = 3  # letters that two words must share at least, to be forms of one word
SHARED = 2 / 3  # of the shorter one's letters
PART = 1 / 2  # of a name's letters, that must stand in its part


def comparable(name: str) -> str:
    """Two names are the same if these are equal: composed (Unicode's NFC), no blanks around.

    All else counts: case, blanks inside, compatibility forms such as `ﬁ`, invisible characters.
    """
    return unicodedata.normalize("NFC", name).strip()


def visible(name: str) -> str:
    """What a reader can tell a name by: without invisible characters, every blank the same."""
    return re.sub(r"\s", " ", INVISIBLE.sub("", comparable(name))).strip()


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that was meant by a mistyped name, if one is near enough."""
    if len(name) > LONGEST:
        return None
    near = [(_distance(name, other), other) for other in known if _is_near(name, other)]
    return min(near)[1] if near else None


def difference(name: str, other: str) -> str:
    """The first place where two names differ, if ASCII does not show it; else an empty string."""
    a, b = comparable(name), comparable(other)
    place = _common_prefix(a, b)
    here, there = a[place : place + 1], b[place : place + 1]
    if a == b or (here.isascii() and there.isascii()):
        return ""
    if visible(a) == visible(b) and len(a) != len(b):  # one has a character that the other has not
        longer, written = (a, name) if len(a) > len(b) else (b, other)
        return f"`{written}` has {named(longer[place])} at position {place + 1}"
    return f"position {place + 1} is {named(here)} here, {named(there)} there"


def _is_near(name: str, other: str) -> bool:
    """Alike to the eye, but for case and separators, word by word, or one a part of the other.

    The limits were chosen by trying pairs of real names: tests/trainables/test_names.py has them.
    """
    if len(other) > 2 * LONGEST:
        return False
    if visible(name) == visible(other):
        return True
    a, b = _words(name), _words(other)
    joined, of_other = "".join(a), "".join(b)
    if not joined or not of_other:
        return False
    slips = max(len(joined), len(of_other)) // LETTERS_PER_SLIP
    if joined == of_other or edits(joined, of_other, slips) <= slips:
        return True
    if len(a) == len(b):
        return all(_is_mistyped(x, y) or _is_other_form(x, y) for x, y in zip(a, b, strict=True))
    if min(len(joined), len(of_other)) < PART * max(len(joined), len(of_other)):
        return False
    shorter, longer = sorted((a, b), key=len)
    ends = (longer[: len(shorter)], longer[-len(shorter) :])
    return any(all(map(_is_mistyped, shorter, end)) for end in ends)


def _is_mistyped(word: str, other: str) -> bool:
    length = max(len(word), len(other))
    typos = max(length // LETTERS_PER_TYPO, int(length >= STEM))
    return edits(word, other, typos) <= typos


def _is_other_form(word: str, other: str) -> bool:
    """As `recognition` and `recognizer`, `gen` and `generator`."""
    shared = SHARED * min(len(word), len(other))
    return _common_prefix(word, other) >= max(STEM, shared)


def _common_prefix(a: str, b: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def folded(name: str) -> str:
    """A name without its case, and without what separates its words."""
    return "".join(_words(name))


def _words(name: str) -> list[str]:
    """The words of ``a_name``, ``a-name``, ``AName``."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return WORD.findall(unicodedata.normalize("NFKC", split).casefold())


def _distance(name: str, other: str) -> float:
    a, b = folded(name), folded(other)
    return edits(a, b) / max(len(a), len(b), 1)


def edits(a: str, b: str, most: int = LONGEST) -> int:
    """Letters to insert, delete, replace or swap with the next, to make one of the other.

    The optimal string alignment distance (Damerau-Levenshtein, no letter edited twice); of names
    that need more than ``most``, some number above it.
    """
    if abs(len(a) - len(b)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        above, row = row, [i]
        for j, y in enumerate(b, start=1):
            cost = min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y))
            if before and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
        before = above
    return row[-1]
