"""The command ``train``, from its first line to its last, on a tiny LLM."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.conftest import ConfigMaker, write_data
from trainables.llm.frozen import FrozenLLM
from trainables.training.checkpoint_files import (
    META_FILE,
    WEIGHTS_FILE,
    meta_checksum,
    newest_whole,
    read_meta,
)
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


def with_copies(make_config: ConfigMaker, tmp_path: Path, split: str) -> list[str]:
    """``train`` on a table in which every row stands twice, with the output directory ``split``."""
    directory = tmp_path / "copies"
    if not directory.is_dir():
        path = write_data(directory) / "profiling.csv"
        header, *rows = path.read_text().splitlines()
        path.write_text("\n".join([header, *rows, *rows]))
    config = make_config(
        data__tool_registry=str(directory / "tools.json"),
        data__profiling_data=str(directory / "profiling.csv"),
        training__scheduler="constant",
        logging__output_dir=str(tmp_path / split),
    )
    path = tmp_path / "copies.yaml"
    content = config.model_dump()
    del content["data"]["split"]
    path.write_text(yaml.safe_dump(content))
    return ["train", "--config", str(path)]


def as_earlier_releases_wrote_it(checkpoint: Path) -> None:
    meta = json.loads((checkpoint / META_FILE).read_text())
    for section, key in NEWER:
        del meta["config"][section][key]
    meta["checksum"] = meta_checksum(meta)
    (checkpoint / META_FILE).write_text(json.dumps(meta))


NEWER = (("data", "split"), ("model", "prompt"), ("model", "num_soft_tokens"))
HELD_OUT = re.compile(r"Target texts: (\d+) for training, (\d+) held out")
LAST = re.compile(r"^Epoch 3/3 .* Val Loss: (\S+)", re.MULTILINE)


@pytest.mark.parametrize("split", ["rows", "distinct_rows"])
def test_a_training_that_is_resumed_keeps_its_split(
    split: str, make_config: ConfigMaker, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Of the older kind, whose checkpoints do not name it, and of the newer, whatever is asked."""
    begun = ["--set", f"data.split={split}"]
    other = {"rows": "distinct_rows", "distinct_rows": "rows"}[split]
    command = with_copies(make_config, tmp_path, split)
    assert main([*command, *begun, "--set", "training.warmup_ratio=0"]) == 0
    whole = capsys.readouterr().out
    last = tmp_path / split / "checkpoint_000003"
    shutil.rmtree(last)
    if split == "rows":
        for path in (tmp_path / split).glob("checkpoint_*"):
            as_earlier_releases_wrote_it(path)
    again = [*command, "--resume", "--set", f"data.split={other}"]
    assert main([*again, "--set", "training.warmup_ratio=0"]) == 0
    resumed = capsys.readouterr().out
    assert f"`data.split` stays `{split}`, with which the training began" in resumed
    assert HELD_OUT.findall(resumed) == HELD_OUT.findall(whole)
    assert LAST.findall(resumed) == LAST.findall(whole)
    assert read_meta(last)["config"]["data"]["split"] == split


def test_a_new_training_writes_the_new_split_down(
    make_config: ConfigMaker, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = with_copies(make_config, tmp_path, "new")
    assert main([*command, "--num_epochs", "1"]) == 0
    out = capsys.readouterr().out
    assert "repeated: 48 of 96 rows equal one before them; none is both trained and held out" in out
    config = read_meta(tmp_path / "new" / "checkpoint_000001")["config"]
    assert config["data"]["split"] == "distinct_rows"


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
