"""Sweep files: defaults, what is written beside the results, and reading it back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from search_spaces.ranges import extremes
from trainables.errors import ConfigError
from tuning.config.sweep import ResolvedSweep, SweepConfig, dump_sweep, load_sweep
from tuning.history.manifest import read_manifest
from tuning.history.sweeps import CONFIG_FILE
from tuning.sweep.directory import create_directory

PROJECT = Path(__file__).parents[3]
REFERENCE = PROJECT / "docs" / "sweep-file.md"


def test_the_sweep_file_in_the_reference_is_every_default() -> None:
    block = re.search(r"```yaml\n(train: .*?)```", REFERENCE.read_text(), re.S)
    assert block is not None
    shown = yaml.safe_load(block[1])
    assert set(shown) == set(SweepConfig.model_fields)
    path = PROJECT / shown["train"]
    assert path.is_file()
    written = SweepConfig.model_validate(
        {**shown, "train": load_sweep(None).train, "search_space": load_sweep(None).search_space}
    )
    assert written == load_sweep(None)


def test_set_reaches_the_training_through_its_path() -> None:
    config = load_sweep(None, ["train.training.num_epochs=3", "search.seed=7", "max_concurrent=1"])
    assert config.train.training.num_epochs == 3
    assert config.search.seed == 7


def test_a_whole_part_is_set_before_what_changes_in_it(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("training: {num_epochs: 9, batch_size: 4}")
    (tmp_path / "s.yaml").write_text("model.dropout: {type: float, low: 0, high: 0.5}")
    config = load_sweep(
        None,
        [
            "train.training.num_epochs=3",
            f"train={tmp_path / 't.yaml'}",
            "search_space.model.dropout.high=0.25",
            f"search_space={tmp_path / 's.yaml'}",
        ],
    )
    assert (config.train.training.num_epochs, config.train.training.batch_size) == (3, 4)
    assert extremes(config.search_space.root["model.dropout"]) == [0, 0.25]


def test_first_points_have_the_types_that_the_space_draws() -> None:
    """YAML takes 0 for a whole number and 1e-3 for a text."""
    points = "[{model.dropout: 0, training.learning_rate: 1e-3, model.num_attention_heads: 4}]"
    (point,) = load_sweep(None, [f"warm_start={points}"]).warm_start
    assert {key: (type(value), value) for key, value in point.items()} == {
        "model.dropout": (float, 0.0),
        "training.learning_rate": (float, 0.001),
        "model.num_attention_heads": (int, 4),
    }


@pytest.mark.parametrize(
    ("override", "kind"),
    [
        ("scheduler.type=none", "none"),
        ("scheduler.type=hyperband", "hyperband"),
        ("search.type=gp", "gp"),
        ("execution.type=dedicated", "dedicated"),
    ],
)
def test_another_type_takes_over_what_it_has_too(override: str, kind: str, tmp_path: Path) -> None:
    """As a sweep's own file has every key of the type before it."""
    path = tmp_path / "sweep.yaml"
    path.write_text(dump_sweep(load_sweep(None, ["search.seed=7", "scheduler.reduction_factor=4"])))
    part = override.partition(".")[0]
    config = load_sweep(path, [override])
    assert getattr(config, part).type == kind
    assert config.search.seed == 7
    if kind == "hyperband":
        assert config.scheduler.reduction_factor == 4
    with pytest.raises(ConfigError, match=f"unknown key `{part}.startup`"):
        load_sweep(path, [f"{part}.startup=3", override])


def test_storage_may_lie_below_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/jo")
    assert ResolvedSweep("x", load_sweep(None, ["storage=~/s"])).directory == Path("/home/jo/s/x")


@pytest.mark.parametrize("kind", ["tpe", "random", "qmc", "cma_es", "gp"])
def test_samplers_are_chosen_by_name(kind: str) -> None:
    assert load_sweep(None, [f"search.type={kind}"]).search.type == kind


def test_the_written_sweep_reads_back_equal_and_stands_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = ResolvedSweep("mine", load_sweep(None, ["num_trials=3", "storage=here"]))
    create_directory(sweep)
    directory = tmp_path / "here" / "mine"
    again = load_sweep(directory / CONFIG_FILE)
    inputs = directory / "inputs"
    assert again.train.data.tool_registry == str(inputs / "tools.json")
    same_data = {"train": again.train.model_copy(update={"data": sweep.config.train.data})}
    assert again.model_copy(update=same_data) == sweep.config
    assert load_sweep(directory / CONFIG_FILE) == again
    assert yaml.safe_load(dump_sweep(again))["num_trials"] == 3
    assert set(read_manifest(directory)["inputs"]) == {"tools.json", "profiling.csv"}
    assert str(tmp_path) not in (directory / CONFIG_FILE).read_text()
