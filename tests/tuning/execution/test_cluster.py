"""A Ray that does not start, as on a machine that is too busy for it, leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.conftest import write_data, write_llm
from tests.tuning.execution.test_finding_ray import own_ray
from tuning.cli import main
from tuning.config.sweep import ResolvedSweep, load_sweep
from tuning.sweep.directory import create_directory

__all__ = ["own_ray"]
SAID = "error: The current node timed out during startup. More about it."
EARLIER = Path(__file__).parents[2] / "assets" / "sweep_format_2"


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_ray: Path) -> None:
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


def files(directory: Path) -> dict[str, bytes]:
    """What lies there, but for the cache of inputs and the number of who held a lock last."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in _below(directory)
        if path.is_file() and path.name != "lock" and "hub" not in path.parts
    }


def _below(directory: Path) -> Iterator[Path]:
    return directory.rglob("*")


def test_a_launch_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(tmp_path)
    assert main(["launch", "--config", "sweep.yaml", "--name", "one"]) == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith(SAID)
    assert "Traceback" not in said.out + said.err
    assert "Resume" not in said.out
    assert files(tmp_path) == before
    assert not (tmp_path / "sweeps").exists()


def test_a_resumed_sweep_stays_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_directory(ResolvedSweep("one", load_sweep(Path("sweep.yaml"))))
    before = files(tmp_path)
    assert main(["resume", "one", "--num_trials", "40"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(SAID)
    assert files(tmp_path) == before


def test_so_does_one_of_an_earlier_release(tmp_path: Path) -> None:
    shutil.copytree(EARLIER, tmp_path / "sweeps" / EARLIER.name)
    before = files(tmp_path)
    assert main(["resume", EARLIER.name, "--num_trials", "40"]) == 2
    assert files(tmp_path) == before


def test_a_training_by_several_workers_leaves_no_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--config", "train.yaml", "--output_dir", "out", "--workers", "2"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(SAID)
    assert not (tmp_path / "out").exists()
