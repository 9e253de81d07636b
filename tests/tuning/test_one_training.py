"""The command ``train``, from its first line to its last, on a tiny LLM."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import ConfigMaker
from trainables.llm.frozen import FrozenLLM
from trainables.training.checkpoint_files import WEIGHTS_FILE, newest_whole
from tuning.cli import main


@pytest.fixture
def command(make_config: ConfigMaker, tmp_path: Path) -> list[str]:
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(make_config().model_dump()))
    return ["train", "--config", str(path)]


def test_a_finding_is_said_once_when_it_appears(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--learning_rate", "1e-6"]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"^Epoch \d/3", out, re.MULTILINE)) == 3
    (said,) = re.findall(r"^gate_stuck: .*", out, re.MULTILINE)
    assert "no training.gate_lr_multiplier would do, raise training.learning_rate" in said


def test_a_stuck_gate_ends_it_with_its_reason_and_a_checkpoint(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stops = ["--set", "training.stop_stuck_gates=true"]
    assert main([*command, "--learning_rate", "1e-6", *stops]) == 1
    captured = capsys.readouterr()
    assert captured.out.count("Epoch 1/3") == 1
    assert "Epoch 2/3" not in captured.out
    last = captured.err.splitlines()[-1]
    assert last.startswith("error: training ended, stopped early: the gate is at α = ")
    assert (tmp_path / "out" / "checkpoint_000001").is_dir()


def test_a_second_training_finds_what_the_first_has_prepared(
    command: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def trained(name: str) -> bytes:
        assert main([*command, "--output_dir", str(tmp_path / name)]) == 0
        return (newest_whole(tmp_path / name) / WEIGHTS_FILE).read_bytes()

    first = trained("first")
    tools = re.findall(r"^ +(tool \d/3: .+) \(from the LLM\)$", capsys.readouterr().out, re.M)
    assert len(tools) == 3
    monkeypatch.setattr(FrozenLLM, "last_token_states", None)  # it neither reads
    monkeypatch.setattr(FrozenLLM, "tokenizer", None)  # nor tokenises
    assert trained("second") == first
    out = capsys.readouterr().out
    assert re.findall(r"^ +(tool \d/3: .+) \(from the cache\)$", out, re.M) == tools
    stages = [line[:5] for line in out.splitlines() if line.startswith("[")]
    assert stages == [f"[{n}/5]" for n in range(1, 6)]
