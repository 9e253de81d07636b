"""The exported encoder of a sweep whose tools have names of any language."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import TOOLS
from tests.faults.specimen import make_specimen

RUN_TUNE = Path(__file__).parents[3] / "run_tune.py"
NAMES = ["détecteur", "検索\u3000器", "\U0001f469\u200d\U0001f4bb"]


def test_names_of_any_language_are_exported_where_the_terminal_knows_ascii_only(
    tmp_path: Path,
) -> None:
    tools = [{**tool, "name": name} for tool, name in zip(TOOLS, NAMES, strict=True)]
    directory = make_specimen(tmp_path / "Ünï code", tools)
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, str(RUN_TUNE), "export", "specimen", "--storage", ".", "--out", "out"],
        cwd=directory.parent,
        env={**os.environ, **ascii_only},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    card = (directory.parent / "out" / "README.md").read_text(encoding="utf-8")
    assert ", ".join(NAMES) in card
