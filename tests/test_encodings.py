"""No text file, pipe or log takes the encoding of whatever locale a process was started in."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("search_spaces", "trainables", "tuning", "benchmarks", "docs")
FILES = [ROOT / "run_tune.py", *sorted(p for part in PARTS for p in (ROOT / part).rglob("*.py"))]
# The name of a call -> the place of its `mode` among the arguments; None: it has none.
TEXT = {
    "open": 0,  # of a path; the function's is the second
    "read_text": None,
    "write_text": None,
    "fdopen": 1,
    "FileHandler": None,
    "TextIOWrapper": None,
    "TemporaryFile": 0,
    "NamedTemporaryFile": 0,
}
BINARY_BY_DEFAULT = ("TemporaryFile", "NamedTemporaryFile")
PROCESSES = ("Popen", "run", "check_output", "check_call", "call")
# Calls of these names that open no file of text.
OTHERS = ("os.open", "Workload.open", "tarfile.open", "safe_open", "self._open")


def without_encoding(source: str) -> list[int]:
    """The lines of calls that leave the encoding to the locale."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return sorted(call.lineno for call in calls if _leaves_it_open(call))


def _leaves_it_open(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    last = name.rpartition(".")[2]
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in given or name in OTHERS:
        return False
    if last in PROCESSES:
        return any(key in given for key in ("text", "universal_newlines"))
    if last not in TEXT or (name == "write_text"):  # `trainables.files.write_text` is UTF-8
        return False
    place = TEXT[last]
    if place is None:
        return True
    place += name == "open"
    mode = given.get("mode", call.args[place] if len(call.args) > place else None)
    if mode is None:
        return last not in BINARY_BY_DEFAULT
    return "b" not in ast.unparse(mode)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_text_has_an_encoding(path: Path) -> None:
    assert without_encoding(path.read_text(encoding="utf-8")) == []


def test_calls_that_leave_it_to_the_locale_are_found() -> None:
    bad = """
open(p)
open(p, "w")
p.open("a")
p.open(mode="r", newline="")
(d / "f").read_text()
(d / "f").write_text("é")
os.fdopen(1, "w")
logging.FileHandler(p)
tempfile.NamedTemporaryFile("w")
subprocess.run(c, text=True)
subprocess.Popen(c, universal_newlines=True)
"""
    good = """
open(p, "rb")
p.open("ab", buffering=0)
p.open("w", encoding="utf-8")
p.read_text(encoding="utf-8")
write_text(p, "é")
os.open(p, os.O_RDONLY)
tempfile.TemporaryFile()
subprocess.run(c)
subprocess.run(c, encoding="utf-8")
"""
    assert without_encoding(bad) == list(range(2, 13))
    assert without_encoding(good) == []


def test_a_file_of_ours_is_checked() -> None:
    assert len(FILES) > 150
    assert all(any(part in p.parts for p in FILES) for part in itertools.chain(PARTS))
