"""The reference of all keys is what the models say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from docs.make_reference import PAGE, tables, written
from search_spaces.schema import SearchSpace
from tests.docs.pages import blocks
from trainables.config import DEFAULT_CONFIG, PretrainConfig, load_config
from trainables.data.profiling import load_profiling
from trainables.data.registry import load_registry
from trainables.yaml_config import build
from tuning.config.space import check_space
from tuning.config.sweep import SweepConfig


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text()
    assert page == written(page), "run `python -m docs.make_reference`"


def test_every_key_is_there_with_a_meaning() -> None:
    made = tables()
    rows = [row for table in made.values() for row in table]
    keys = [row.split("`")[1] for row in rows]
    of_training = {
        f"{name}.{key}"
        for name, section in PretrainConfig.model_fields.items()
        for key in section.annotation.model_fields
    }
    assert of_training <= set(keys)
    assert set(SweepConfig.model_fields) == {row.split("`")[1] for row in made["sweep"]}
    assert not [row for row in rows if row.endswith("|  |")], "each key has a meaning"


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("sweep", "| `num_trials` | a whole number, at least 1, at most 1000000 | `16` | "),
        (
            "train.training",
            "| `training.learning_rate` | a number, above 0, at most 1 | `0.001` | ",
        ),
        ("train.model", "| `model.d_resource` | a whole number or `null`, at least 1, "),
        ("scheduler", "| `scheduler.type` | `asha`, `median`, `hyperband`, `pbt`, `none` | `asha`"),
    ],
)
def test_a_row_says_what_is_allowed(table: str, row: str) -> None:
    assert any(line.startswith(row) for line in tables()[table])


def test_a_page_without_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="the page has the tables"):
        written("no table here\n")


def test_the_search_space_that_is_shown_can_be_used() -> None:
    *_, shown = blocks(PAGE, "yaml")
    space = build(SearchSpace, yaml.safe_load(shown), "shown")
    assert set(check_space(space, load_config(DEFAULT_CONFIG), "shown").root) == set(space.root)


def test_the_data_that_is_shown_can_be_read(tmp_path: Path) -> None:
    (tools,) = blocks(PAGE, "json")
    *_, table = blocks(PAGE)
    (tmp_path / "tools.json").write_text(tools)
    (tmp_path / "profiling.csv").write_text(table)
    registry = load_registry(tmp_path / "tools.json")
    rows = load_profiling(tmp_path / "profiling.csv", registry)
    assert [registry[row.tool_index].name for row in rows] == [
        "speech_recognizer",
        "speech_recognizer",
        "zip_folder",
    ]
