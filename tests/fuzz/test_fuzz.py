"""A few generated inputs of every kind; ``python -m tests.fuzz`` tries thousands."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.inputs import KINDS
from tests.fuzz.outcome import Workbench, limited

EXAMPLES = 30
FEWER = {"LLM directories": 10, "environments": 5}  # a model each, a process each


@pytest.mark.usefixtures("character_tables")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(180)
def test_any_input_works_or_is_refused_with_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    examples = FEWER.get(kind, EXAMPLES)
    tally = fuzz(kind, examples, 0, Workbench(tmp_path))
    assert not tally.wrong, tally.wrong[-1]
    assert tally.tried >= examples
    assert tally.refused
    assert tally.accepted or kind == "any arguments", "nothing valid among them"


@pytest.mark.parametrize("trouble", ["raise", "leave", "hang", "chat"])
def test_what_goes_wrong_is_counted(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(*arguments: object) -> tuple[int, str]:
        match trouble:
            case "raise":
                raise RuntimeError("a bug")
            case "leave":
                (tmp_path / "half-made").touch()
                return 0, ""
            case "hang":
                with limited(9, 0.1):
                    time.sleep(9)
        return 2, "error: one\nerror: two\n"

    monkeypatch.setattr("tests.fuzz.outcome.run", spoil)
    tally = fuzz("any arguments", 3, 0, Workbench(tmp_path))
    assert tally.wrong
