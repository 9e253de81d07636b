"""``migrate`` as it is typed: what it writes, what it refuses, what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.assets import make_earlier_files
from tests.conftest import write_data
from trainables.config import load_config
from trainables.models.resource_encoder import ResourceEncoder
from tuning.cli import main

GATED = str(make_earlier_files.DIRECTORY / "gated.pt")
OLD = """\
model: {llm_hidden_dim: 8, d_resource: 8, num_attention_heads: 2, llm_model: not/cached}
data:
  tool_registry: data/tools.json   # ours
  profiling_data: data/profiling.csv
"""


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data")
    Path("old.yaml").write_text(OLD)
    Path("old.json").write_text('[{"name": "a", "desc": "b"}]')
    Path("taken").write_text("")


def test_a_configuration_and_then_its_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "config", "old.yaml", "--out", "new.yaml"]) == 0
    assert Path("old.yaml").read_text() == OLD
    assert load_config(Path("new.yaml")).model.d_resource is None
    assert main(["migrate", "checkpoint", GATED, "--out", "new", "--config", "new.yaml"]) == 0
    assert ResourceEncoder.from_pretrained("new").hidden_size == 8
    out = capsys.readouterr().out
    assert "set       model.d_resource: null, was 8" in out
    assert "carried   fusion.gate_alpha" in out
    assert "note      The file does not say how the six figures were scaled" in out


def test_a_registry() -> None:
    assert main(["migrate", "tools", "old.json", "--out", "deep/er/new.json"]) == 0
    assert json.loads(Path("deep/er/new.json").read_text()) == [{"name": "a", "description": "b"}]


COMMANDS = [
    ["config", "old.yaml", "--out", "new.yaml"],
    ["tools", "old.json", "--out", "new.json"],
    ["checkpoint", GATED, "--out", "new", "--config", "current.yaml"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda a: a[0])
def test_a_dry_run_says_the_same_and_writes_nothing(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("current.yaml").write_text(OLD.replace("llm_hidden_dim: 8, ", ""))
    before = sorted(tmp_path.rglob("*"))
    assert main(["migrate", *arguments, "--dry-run"]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    said = capsys.readouterr().out
    assert said.endswith("dry run: nothing written\n")
    assert main(["migrate", *arguments]) == 0
    done = capsys.readouterr().out
    assert said.splitlines()[:-1] == done.splitlines()[:-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["config", "old.yaml", "--out", "old.yaml"], "exists already and is never overwritten"),
        (["config", "old.yaml", "--out", "taken"], "exists already"),
        (["config", "old.yaml", "--out", "taken/new.yaml"], "is not a directory"),
        (["config", "no.yaml", "--out", "new.yaml"], "no.yaml: no such file"),
        (["tools", "old.yaml", "--out", "new.json"], "not valid JSON"),
        (["tools", "old.json"], "the following arguments are required: --out"),
        (["checkpoint", GATED, "--out", "new"], "required: --config"),
        (["checkpoint", GATED, "--out", "new", "--config", "old.yaml"], "migrate config"),
        (["checkpoint", "old.json", "--out", "new", "--config", "n.yaml"], "n.yaml: no such file"),
        (["checkpoint", "no.pt", "--out", "new", "--config", "e.yaml"], "no.pt: cannot be read"),
        (["checkpoint", "data", "--out", "new", "--config", "e.yaml"], "Is a directory"),
        (["checkpoint", "old.json", "--out", "new", "--config", "e.yaml"], "or damaged"),
        (["checkpoint", GATED, "--out", "new", "--config", "e.yaml"], "of 3 tools, but"),
        (["checkpoint", GATED, "--out", "new", "--config", "b.yaml"], "leave that key out"),
        (["bogus"], "invalid choice: 'bogus'"),
    ],
)
def test_bad_input_ends_with_one_line_and_nothing_created(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("e.yaml").write_text("")
    Path("b.yaml").write_text("model: {architecture: embedding_attention}")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert main(["migrate", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_what_today_refuses_is_left_to_mend(capsys: pytest.CaptureFixture[str]) -> None:
    Path("odd.yaml").write_text("model: {num_tools: 3, drop_out: 0.1}\n")
    assert main(["migrate", "config", "odd.yaml", "--out", "new.yaml"]) == 1
    assert "to mend   new.yaml: unknown key `model.drop_out`" in capsys.readouterr().out
    assert Path("new.yaml").read_text() == "model: {drop_out: 0.1}\n"


def test_a_path_that_was_relative_to_the_old_place_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["migrate", "config", "../old.yaml", "--out", "new.yaml"]) == 1
    assert "to mend   `data.tool_registry` is relative to the file" in capsys.readouterr().out


def test_resuming_from_an_earlier_file_names_the_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for out in (GATED, str(Path(GATED).parent)):
        assert main(["train", "--resume", "--output_dir", out]) == 2
        assert "python run_tune.py migrate checkpoint" in capsys.readouterr().err
