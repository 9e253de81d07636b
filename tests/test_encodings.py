"""No text file, pipe or log takes the encoding of whatever locale a process was started in."""

from __future__ import annotations

import ast
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import TOOLS, write_data
from trainables.text import TEXT_AS_UTF8

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


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def in_ascii(directory: Path, *command: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONIOENCODING"}
    environment = {**kept, **ASCII, "PYTHONPATH": str(ROOT), **more}
    return subprocess.run(
        [sys.executable, *command], cwd=directory, env=environment, capture_output=True
    )


def program(directory: Path, source: str) -> str:
    path = directory / "program.py"
    path.write_text(source, encoding="utf-8")
    return str(path)


@pytest.fixture
def workplace(tmp_path: Path, llm_dir: Path) -> Path:
    """A sweep's file whose every path and tool has a sign that ASCII lacks."""
    place = tmp_path / "données"
    tools = [{**TOOLS[0], "name": "détecteur"}, *TOOLS[1:]]
    write_data(place / "entrées", tools)
    text = json.dumps(tools, ensure_ascii=False)
    (place / "entrées" / "tools.json").write_text(text, encoding="utf-8")
    (place / "modèle").symlink_to(llm_dir)
    sweep = {
        "train": {
            "model": {"llm_model": "modèle", "cache_dir": "à garder"},
            "data": {
                "tool_registry": "entrées/tools.json",
                "profiling_data": "entrées/profiling.csv",
            },
        },
        "storage": "été",
    }
    content = yaml.safe_dump(sweep, allow_unicode=True)
    (place / "sweep.yaml").write_text(content, encoding="utf-8")
    return place


RUN_TUNE = str(ROOT / "run_tune.py")


def test_files_with_other_signs_are_found_where_only_ascii_is_known(workplace: Path) -> None:
    done = in_ascii(workplace, RUN_TUNE, "validate", "--config", "sweep.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert b"everything that can be checked" in done.stdout


@pytest.mark.parametrize("stdio", [{}, {"PYTHONIOENCODING": "ascii"}])
def test_an_error_shows_what_the_terminal_cannot(tmp_path: Path, stdio: dict[str, str]) -> None:
    done = in_ascii(tmp_path, RUN_TUNE, "status", "détecteur", "--storage", "été", **stdio)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: no sweep `d\\xe9tecteur` in \\xe9t\\xe9"), done.stderr


LIBRARY = """
import logging, sys
from pathlib import Path
from tuning.execution.process_state import files_in_utf8, logged_to
import locale
before = locale.setlocale(locale.LC_CTYPE)
with files_in_utf8(), logged_to(Path("log")):
    with open("by_a_library", "w") as file:
        file.write("détecteur α")
    logging.getLogger("ray").warning("détecteur α \\udce9")
assert locale.setlocale(locale.LC_CTYPE) == before
"""


def test_what_libraries_write_while_a_sweep_runs_is_utf8(tmp_path: Path) -> None:
    done = in_ascii(tmp_path, program(tmp_path, LIBRARY))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "by_a_library").read_text(encoding="utf-8") == "détecteur α"
    assert (tmp_path / "log").read_text(encoding="utf-8").endswith("détecteur α \\udce9\n")


CHILD = """
import sys
from pathlib import Path
print("détecteur α \\udce9")
print("détecteur α", file=sys.stderr)
with open("by_a_child", "w") as file:
    file.write("détecteur α")
"""


def test_processes_that_we_start_read_and_write_utf8(tmp_path: Path) -> None:
    done = in_ascii(tmp_path, program(tmp_path, CHILD), **TEXT_AS_UTF8)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode("utf-8") == "détecteur α \\udce9\n"
    assert (tmp_path / "by_a_child").read_text(encoding="utf-8") == "détecteur α"
    assert done.stderr.decode("utf-8") == "détecteur α\n"


def test_a_terminal_without_a_sign_shows_its_number(tmp_path: Path) -> None:
    code = "import sys; from tuning.terminal import prepare_terminal; prepare_terminal(); "
    code += "print('α'); print('α', file=sys.stderr)"
    done = in_ascii(tmp_path, program(tmp_path, code), PYTHONIOENCODING="ascii:strict")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\\u03b1\n", b"\\u03b1\n")
