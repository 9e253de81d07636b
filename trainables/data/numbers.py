"""Numbers as spreadsheets and people write them: what is in the way of reading one."""

from __future__ import annotations

import re
from typing import NamedTuple

from trainables.text import named

# What each column is in, and how people write that.
UNITS = {
    "cpu_core": ("cores", ("core", "cores", "cpu", "cpus", "vcpu", "vcpus", "c")),
    "cpu_mem_gb": ("GB", ("gb", "g")),
    "gpu_sm": ("percent", ("percent", "pct", "prozent")),
    "gpu_mem_gb": ("GB", ("gb", "g")),
    "latency_ms": ("milliseconds", ("ms", "msec", "msecs", "millisecond", "milliseconds")),
}
PERCENT = ("%", "％", "٪")
MISSING = set("na n/a #n/a nan null none nil - -- — ? . missing unknown undefined tbd".split())
SPREADSHEET_ERROR = re.compile(r"#[A-Z/0]+[!?]?")
GROUPS = r"\d{1,3}(?P<group>[ ,.'’_\u00a0\u2009\u202f])\d{3}(?:(?P=group)\d{3})*"
GROUPED = re.compile(rf"(?P<sign>[+-]?){GROUPS}(?:(?P<point>[.,])(?P<rest>\d+))?")
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
WITH_TEXT = re.compile(r"(?P<before>[^\d+.,-]*)(?P<number>[+-]?[\d., ]*\d)\s*(?P<after>\D*)")
DATE = re.compile(r"\d{1,4}[-/.][A-Za-z\d]{1,3}([-/.]\d{1,4})?|[A-Z][a-z]{2}-\d{2}")
QUOTES = "\"'`“”„‘’«»"


class Trouble(NamedTuple):
    """What a text is that is no number, if that can be told, and how to mend it."""

    what: str
    remedy: str

    def __str__(self) -> str:
        text = f"{self.what}{'' if self.what.endswith('?') else ';'} {self.remedy}"
        return f": {text}" if self.what else ""


def trouble(column: str, text: str) -> Trouble:
    """What stands in the way of reading a text of ``column`` as a number."""
    bare = text.strip(QUOTES).strip()
    if not text or text.casefold() in MISSING or SPREADSHEET_ERROR.fullmatch(text):
        return Trouble("a missing value", "measure it, or remove the row")
    if bare != text:
        blank = " and the blank before them" if text[0] == '"' else ""
        return Trouble("quotes", f"leave them out{blank}")
    if text.startswith("="):
        return Trouble("a formula", "export its value")
    if grouped := GROUPED.fullmatch(text):
        return _ungrouped(grouped, text)
    if DECIMAL_COMMA.fullmatch(text):
        return Trouble("a decimal comma?", f"write {text.replace(',', '.')}")
    if DATE.fullmatch(text):
        return Trouble("a date, a range, a fraction?", "write one number")
    if found := WITH_TEXT.fullmatch(text):
        return _without_text(column, found)
    strange = next((c for c in text if not c.isascii()), "")
    return Trouble(f"it has {named(strange)}", "write digits") if strange else Trouble("", "")


def _ungrouped(found: re.Match[str], text: str) -> Trouble:
    """Of `1,234` it cannot be known what it is."""
    group, point = found["group"], found["point"]
    if text.count(group) == 1 and group == "," and point is None:
        return Trouble(
            "a decimal comma, or separated thousands?",
            f"write {text.replace(',', '.')} or {text.replace(',', '')}",
        )
    whole = text if point is None else text[: found.start("point")]
    digits = re.sub(r"[^\d+-]", "", whole)
    rest = "" if point is None else f".{found['rest']}"
    return Trouble("separated thousands", f"write {digits}{rest}")


def _without_text(column: str, found: re.Match[str]) -> Trouble:
    before, number, after = (found[name].strip() for name in ("before", "number", "after"))
    strange = next((c for c in before + after if not c.isascii() and not c.isalpha()), "")
    if after in PERCENT and not before:
        return Trouble("a percent sign", f"write {_plain(column, number)}")
    if strange:
        return Trouble(f"it has {named(strange)}", "write digits")
    if not before + after:
        return Trouble("separated thousands?", "write digits and a point")
    if before or not after.isalpha():
        return Trouble("more than a number", f"leave out `{before or after}`")
    unit, own = UNITS[column]
    if after.casefold() in own:
        return Trouble(f"a unit: {column} is in {unit}", f"write {_plain(column, number)}")
    return Trouble(f"a unit: {column} is in {unit}", "convert it, and write no unit")


def _plain(column: str, number: str) -> str:
    """The digits alone may have a comma."""
    try:
        float(number)
    except ValueError:
        return trouble(column, number).remedy.removeprefix("write ")
    return number
