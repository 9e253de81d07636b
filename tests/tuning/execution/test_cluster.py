"""A Ray that does not start, as on a machine that is too busy for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import pytest

from tests.conftest import write_data, write_llm
from tuning.cli import main


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def init(**options: object) -> NoReturn:
        raise Exception("The current node timed out during startup.\nMore about it.")

    monkeypatch.setattr("ray.init", init)
    monkeypatch.chdir(tmp_path)
    write_llm(tmp_path / "llm")
    write_data(tmp_path / "data")
    train = {
        "model": {"llm_model": "llm", "num_attention_heads": 4},
        "data": {"tool_registry": "data/tools.json", "profiling_data": "data/profiling.csv"},
    }
    (tmp_path / "sweep.yaml").write_text(json.dumps({"train": train}))
    (tmp_path / "train.yaml").write_text(json.dumps(train))


def test_the_sweep_is_interrupted_and_can_be_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", "--config", "sweep.yaml", "--name", "one"]) == 1
    for arguments in (["status", "one"], ["resume", "one"]):
        main(arguments)
        said = capsys.readouterr()
        assert "Ray failed: The current node timed out during startup." in said.out
        assert "run_tune.py resume one" in said.out
        assert "Traceback" not in said.out + said.err


def test_a_training_by_several_workers_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", "train.yaml", "--output_dir", "out", "--workers", "2"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: The current node timed out"), last
