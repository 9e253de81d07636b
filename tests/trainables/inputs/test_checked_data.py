"""The split into training and held-out rows: stratified, steady, and no row on both sides."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import TOOLS, ConfigMaker, write_data
from trainables.config import PretrainConfig
from trainables.data.profiling import Row
from trainables.errors import DataError
from trainables.inputs.checked_data import describe_split, read_data
from trainables.inputs.shared_inputs import IntArray
from trainables.inputs.split import first_equal, split_rows


def split_before(tool_index: IntArray, fraction: float, seed: int) -> tuple[IntArray, IntArray]:
    """The split of releases that knew no other: each row is drawn by itself."""
    rng = np.random.default_rng(seed)
    held_out: list[int] = []
    for tool in np.unique(tool_index):
        rows = np.flatnonzero(tool_index == tool)
        if len(rows) > 1:
            count = min(max(1, round(fraction * len(rows))), len(rows) - 1)
            held_out.extend(rng.permutation(rows)[:count].tolist())
    val_rows = np.array(sorted(held_out), dtype=np.int64)
    return np.setdiff1d(np.arange(len(tool_index), dtype=np.int64), val_rows), val_rows


# Tool and number of a row; equal ones are copies.
tables = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), min_size=1, max_size=60)
fractions, seeds = st.floats(0.01, 0.99), st.integers(0, 5)


def index_of(table: list[tuple[int, int]]) -> IntArray:
    return np.array([tool for tool, _ in table], dtype=np.int64)


def first_of(table: list[tuple[int, int]]) -> IntArray:
    return np.array([table.index(row) for row in table], dtype=np.int64)


@given(table=tables, fraction=fractions, seed=seeds)
def test_no_row_is_both_trained_and_held_out(
    table: list[tuple[int, int]], fraction: float, seed: int
) -> None:
    train, val = split_rows(index_of(table), fraction, seed, first_of(table))
    assert sorted([*train, *val]) == list(range(len(table)))
    trained, held_out = {table[i] for i in train}, {table[i] for i in val}
    assert not trained & held_out
    for tool in set(index_of(table).tolist()):
        different = {row for row in table if row[0] == tool}
        count = sum(row[0] == tool for row in held_out)
        assert (count == 0) if len(different) == 1 else (1 <= count < len(different))
        assert count == 0 or abs(count - fraction * len(different)) <= 1


@given(table=tables, fraction=fractions, seed=seeds)
def test_each_copy_by_itself_is_drawn_as_it_always_was(
    table: list[tuple[int, int]], fraction: float, seed: int
) -> None:
    before = split_before(index_of(table), fraction, seed)
    for found, expected in zip(split_rows(index_of(table), fraction, seed), before, strict=True):
        assert found.dtype == expected.dtype
        assert found.tolist() == expected.tolist()


@given(table=tables.map(lambda rows: list(dict.fromkeys(rows))), fraction=fractions, seed=seeds)
def test_where_nothing_repeats_the_split_is_as_it_always_was(
    table: list[tuple[int, int]], fraction: float, seed: int
) -> None:
    before = split_before(index_of(table), fraction, seed)
    found = split_rows(index_of(table), fraction, seed, first_of(table))
    assert [part.tolist() for part in found] == [part.tolist() for part in before]


def test_the_shipped_table_is_split_as_it_always_was() -> None:
    for split in ("rows", "distinct_rows"):
        config = PretrainConfig.model_validate(
            {"data": {"split": split, **SHIPPED}, "training": {"batch_size": 16}}
        )
        data = read_data(config)
        index = np.array([row.tool_index for row in data.rows])
        before = split_before(index, 0.1, 0)
        assert data.train_rows.tolist() == before[0].tolist()
        assert data.val_rows.tolist() == before[1].tolist()
        assert (data.repeated, data.leaked) == (0, 0)
        assert describe_split(config.data, data) == []


SHIPPED = {
    key: str(Path(__file__).parents[3] / "trainables" / "data" / name)
    for key, name in (("tool_registry", "tools.json"), ("profiling_data", "profiling.csv"))
}


def test_rows_are_equal_by_tool_and_figures() -> None:
    figures = {"input_size": "small", "cpu_core": 4.0}
    rows = [
        Row(0, figures),
        Row(0, {**figures, "cpu_core": 4}),
        Row(1, figures),
        Row(0, {**figures, "cpu_core": -0.0}),
        Row(0, {**figures, "cpu_core": 0.0}),
        Row(0, dict(figures)),
    ]
    assert first_equal(rows).tolist() == [0, 0, 2, 3, 3, 0]


Change = Callable[[list[str]], list[str]]


@pytest.fixture
def config_of(make_config: ConfigMaker, tmp_path: Path) -> Callable[..., PretrainConfig]:
    """A training on the rows that ``change`` makes of the 48, which stand in a list of lines."""

    def make(change: Change, **values: object) -> PretrainConfig:
        path = write_data(tmp_path / "changed") / "profiling.csv"
        header, *rows = path.read_text().splitlines()
        path.write_text("\n".join([header, *change(rows)]))
        tools = str(path.with_name("tools.json"))
        both = {"data__tool_registry": tools, "data__profiling_data": str(path)}
        return make_config(**both, training__batch_size=2, **values)

    return make


def written_otherwise(row: str) -> str:
    """The same row, as another program writes it."""
    cells = row.split(",")
    return ",".join([f'" {cells[0]}"', cells[1], *(f"{float(cell):.6e}" for cell in cells[2:])])


@pytest.mark.parametrize("again", [str, written_otherwise])
def test_copies_stay_together_however_they_are_written(
    again: Callable[[str], str], config_of: Callable[..., PretrainConfig]
) -> None:
    config = config_of(lambda rows: [*rows, *map(again, rows[:20])])
    data = read_data(config)
    assert (data.repeated, data.leaked) == (20, 0)
    rows = [(row.tool_index, *row.resources.values()) for row in data.rows]
    assert not {rows[i] for i in data.train_rows} & {rows[i] for i in data.val_rows}
    assert "repeated: 20 of 68 rows equal one before them; none is both trained and held out" in (
        describe_split(config.data, data)
    )


def test_a_split_by_rows_says_what_it_trains_and_holds_out(
    config_of: Callable[..., PretrainConfig],
) -> None:
    config = config_of(lambda rows: rows * 2, data__split="rows")
    data = read_data(config)
    rows = [(row.tool_index, *row.resources.values()) for row in data.rows]
    trained = {rows[i] for i in data.train_rows}
    assert data.leaked == sum(rows[i] in trained for i in data.val_rows) > 0
    assert describe_split(config.data, data) == [
        f"repeated: 48 of 96 rows equal one before them; {data.leaked} held-out rows are trained, "
        "too (`data.split: rows`)"
    ]


def test_names_in_two_unicode_forms_are_the_same_row(
    make_config: ConfigMaker, tmp_path: Path
) -> None:
    tools = [{**TOOLS[0], "name": "détecteur"}, *TOOLS[1:]]
    directory = write_data(tmp_path / "data", tools)
    path = directory / "profiling.csv"
    header, *rows = path.read_text().splitlines()
    others = [unicodedata.normalize("NFD", row) for row in rows]
    path.write_text("\n".join([header, *rows, *others]))
    config = make_config(
        data__tool_registry=str(directory / "tools.json"), data__profiling_data=str(path)
    )
    assert read_data(config).repeated == 48


def of_each_tool(count: int) -> Change:
    return lambda rows: [row for i, row in enumerate(rows) if i % 16 < count]


def test_a_tenth_of_three_rows_is_told_as_the_third_that_it_is(
    config_of: Callable[..., PretrainConfig],
) -> None:
    config = config_of(of_each_tool(3))
    data = read_data(config)
    assert (len(data.train_rows), len(data.val_rows)) == (6, 3)
    assert describe_split(config.data, data) == [
        "held out: 33% of the rows, not 10%: of each tool it is a whole number of different rows, "
        "at least one and never all"
    ]


def test_tools_of_which_nothing_is_held_out_are_named(
    config_of: Callable[..., PretrainConfig],
) -> None:
    config = config_of(lambda rows: [*rows[:10], *[rows[16]] * 10])
    data = read_data(config)
    assert describe_split(config.data, data) == [
        "held out: 5% of the rows, not 10%: of each tool it is a whole number of different rows, "
        "at least one and never all",
        "never held out: `zip folder`, `r`, with fewer than two different rows",
        "repeated: 9 of 20 rows equal one before them; none is both trained and held out",
    ]


def test_copies_alone_give_nothing_to_hold_out(config_of: Callable[..., PretrainConfig]) -> None:
    with pytest.raises(DataError, match="no tool has two different rows or more"):
        read_data(config_of(lambda rows: [rows[0]] * 9))
    assert len(read_data(config_of(lambda rows: [rows[0]] * 9, data__split="rows")).val_rows) == 1
