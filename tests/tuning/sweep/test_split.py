"""A sweep keeps the split that it began with, from before there was a choice as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import write_data
from trainables.errors import UserError
from trainables.inputs.cache import prepared_path
from trainables.inputs.checked_data import read_data
from tuning.config.sweep import ResolvedSweep, SweepConfig, load_sweep
from tuning.history.event_log import EventLog
from tuning.history.manifest import read_created, read_manifest
from tuning.history.sweeps import CONFIG_FILE
from tuning.sweep.directory import _write_created, create_directory, read_config, write_config

KEY = "    split: distinct_rows\n"


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A new sweep's directory, on a table in which every row stands twice."""
    data = write_data(tmp_path / "data")
    header, *rows = (data / "profiling.csv").read_text().splitlines()
    (data / "profiling.csv").write_text("\n".join([header, *rows, *rows]))
    settings = [
        f"storage={tmp_path / 'sweeps'}",
        f"train.data.tool_registry={data / 'tools.json'}",
        f"train.data.profiling_data={data / 'profiling.csv'}",
    ]
    made = ResolvedSweep("mine", load_sweep(None, settings))
    create_directory(made)
    return made.directory


@pytest.fixture
def earlier(sweep: Path) -> Path:
    """The same, as releases wrote it that knew no such key."""
    text = (sweep / CONFIG_FILE).read_text()
    assert KEY in text
    text = text.replace(KEY, "")
    (sweep / CONFIG_FILE).write_text(text)
    _write_created(EventLog(sweep), read_manifest(sweep), text)
    return sweep


def leaked(config: SweepConfig) -> int:
    return read_data(config.train).leaked


def test_a_new_sweep_writes_its_split_down(sweep: Path) -> None:
    config = read_config(sweep)
    assert config.train.data.split == "distinct_rows"
    assert leaked(config) == 0


def test_an_earlier_sweep_goes_on_with_each_row_by_itself(earlier: Path) -> None:
    before = (earlier / CONFIG_FILE).read_text()
    config = read_config(earlier)
    assert config.train.data.split == "rows"
    assert leaked(config) > 0
    assert read_config(earlier, ["num_trials=40"]).train == config.train
    assert (earlier / CONFIG_FILE).read_text() == before


def test_an_earlier_sweep_that_is_changed_writes_its_split_down(earlier: Path) -> None:
    write_config(earlier, read_config(earlier, ["num_trials=40"]), print)
    text = (earlier / CONFIG_FILE).read_text()
    assert "    split: rows\n" in text
    created = read_created(earlier)
    assert created is not None
    assert created["sweep"] == text
    assert load_sweep(earlier / CONFIG_FILE) == read_config(earlier)


def test_the_split_of_a_sweep_that_has_begun_cannot_be_changed(earlier: Path) -> None:
    with pytest.raises(UserError, match="`train` cannot be changed in a sweep that has begun"):
        read_config(earlier, ["train.data.split=distinct_rows"])


def test_the_inputs_of_both_splits_lie_apart(earlier: Path) -> None:
    train = read_config(earlier).train
    data = train.data.model_copy(update={"split": "distinct_rows"})
    other = train.model_copy(update={"data": data})
    assert prepared_path(train, on_gpu=False) != prepared_path(other, on_gpu=False)


def test_a_new_sweep_from_an_earlier_ones_file_has_the_new_split(earlier: Path) -> None:
    assert load_sweep(earlier / CONFIG_FILE).train.data.split == "distinct_rows"
