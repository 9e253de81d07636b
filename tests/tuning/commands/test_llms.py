"""The commands and LLMs that cannot be used: one line, nothing created."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.conftest import ConfigMaker
from tests.trainables.llm.broken_llms import BROKEN, write_broken
from tuning.cli import main

pytestmark = pytest.mark.timeout(300)  # a process of its own loads torch, on a busy machine


@pytest.fixture
def config_file(make_config: ConfigMaker, tmp_path: Path) -> Path:
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(make_config(model__llm_model="llm").model_dump()))
    return path


def refused(
    arguments: list[str], name: str, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(directory.rglob("*"))
    capsys.readouterr()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1, error
    assert BROKEN[name].said in error
    made = {p for p in set(directory.rglob("*")) - set(before) if "hub" not in p.parts}
    assert not made


@pytest.mark.parametrize("name", BROKEN)
def test_train_and_verify_refuse_it(
    name: str, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = ["--set", f"model.llm_model={write_broken(tmp_path / 'llm', name)}"]
    refused(["train", "--config", str(config_file), *sets], name, tmp_path, capsys)
    assert main(["verify", "llm", "--config", str(config_file), *sets]) == 1
    captured = capsys.readouterr()
    assert captured.err == ""
    wrong = [line for line in captured.out.splitlines() if line.startswith("✗ llm")]
    assert wrong
    assert all(BROKEN[name].said in line for line in wrong[-1:])


@pytest.mark.parametrize("name", ["no head", "a tokenizer to come", "quantised"])
def test_validate_refuses_it(
    name: str, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = ["--set", f"train={config_file}"]
    sets += ["--set", f"train.model.llm_model={write_broken(tmp_path / 'llm', name)}"]
    refused(["validate", *sets], name, tmp_path, capsys)


def test_validate_says_how_it_was_tried(
    config_file: Path, llm_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = ["--set", f"train={config_file}", "--set", f"train.model.llm_model={llm_dir}"]
    assert main(["validate", *sets]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1] == "probe        an encoder can be trained against it"
    assert main(["validate", "--set", "train.model.llm_model=embedded"]) == 0
    assert "as a probe has found out before" in capsys.readouterr().out
