"""The exported encoder of a sweep whose tools have names of any language."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TOOLS
from tests.docs.pages import blocks
from tests.faults.specimen import make_specimen
from tuning.cli import main

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


def test_the_code_of_a_card_runs_where_the_llm_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = [{**tool, "name": f'the "{tool["name"]}"'} for tool in TOOLS]
    make_specimen(tmp_path, tools)
    monkeypatch.chdir(tmp_path)
    assert main(["export", "specimen", "--out", "out"]) == 0
    capsys.readouterr()
    code = "\n".join(blocks(tmp_path / "out" / "README.md", "python"))
    assert "generate(inputs_embeds=inputs" in code
    names: dict[str, object] = {}
    exec(code, names)  # noqa: S102 - what a person copies out of it
    assert names["soft"].shape == (16, 32)
    assert len(names["written"]) == 1
    assert capsys.readouterr().out.endswith("\n")
