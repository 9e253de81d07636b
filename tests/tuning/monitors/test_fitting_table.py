"""On a terminal of any width the rows of a table can be told apart."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.tuning.history.test_sweeps import EVENTS, trial, write_sweep
from tuning.commands.answers import show_list, show_summary, show_trials
from tuning.history.record import SweepRecord
from tuning.history.sweeps import read_sweep
from tuning.monitors.fitting_table import FittingTable, Shown
from tuning.monitors.table import TableMonitor, trial_table

MANY = [*EVENTS, *trial("trial_10000", [2.5, 2.25], "stopped early")]
WIDTHS = range(20, 201)


def screen(width: int) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=width, highlight=False), out


def record_of(events: list[dict[str, Any]]) -> SweepRecord:
    record = SweepRecord("mine", "val_loss", "min", 6)
    for event in events:
        record.apply(event)
    return record


@pytest.mark.parametrize("events", [EVENTS, MANY])
def test_every_row_begins_with_its_trial(events: list[dict[str, Any]]) -> None:
    record = record_of(events)
    for width in WIDTHS:
        console, out = screen(width)
        console.print(trial_table(record))
        head, *rows = out.getvalue().splitlines()
        begun = [row for row in rows if not row.startswith(" ")]  # others go on with parameters
        assert [row.split()[0] for row in begun] == list(record.trials), width
        assert all(cell_len(row) <= width for row in rows)
        assert head.split()[:2] == ["trial", "status"], width


def test_a_narrower_table_has_fewer_columns_not_cut_ones() -> None:
    seen = {}
    for width in WIDTHS:
        console, out = screen(width)
        console.print(trial_table(record_of(EVENTS)))
        head, *rows = out.getvalue().splitlines()
        seen[width] = head.split()
        assert "…" not in head
        if width >= 30:  # what is cut off a status then is the epoch, which has its own column
            assert all("stopped early" in row for row in rows if "…" in row), width
    assert seen[20] == ["trial", "status"]
    assert seen[40] == ["trial", "status", "val_loss"]
    whole = ["trial", "status", "epoch", "val_loss", "α", "retention", "finding", "parameters"]
    assert seen[80] == whole[:-1]
    assert seen[140] == seen[200] == whole


def test_the_live_table_of_forty_columns_names_its_trials() -> None:
    out = io.StringIO()
    record = SweepRecord("mine", "val_loss", "min", 6)
    monitor = TableMonitor(record, 3, Console(file=out, force_terminal=True, width=40, height=30))
    for event in EVENTS:
        record.apply(event)
        monitor.on_event(record, event, None)
    monitor.close()
    last = out.getvalue().rpartition("trial ")[2]
    for name in record.trials:
        assert f"{name}  " in last
    assert "tri…" not in out.getvalue()


def test_the_screens_of_a_sweep_name_its_trials(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    record = read_sweep(directory)
    for width in (20, 40, 80):
        for show in (
            lambda console: show_trials(directory, console),
            lambda console: show_summary(record, directory, console),
        ):
            console, out = screen(width)
            show(console)
            for name in record.trials:
                assert any(line.split()[:1] == [name] for line in out.getvalue().splitlines())


def test_the_list_names_every_sweep_whole(tmp_path: Path) -> None:
    names = ["a", "sweep_20260101_120000", "sweep_20260101_120001", "x" * 60]
    for name in names:
        write_sweep(tmp_path / "made").rename(tmp_path / name)
    for width in WIDTHS:
        console, out = screen(width)
        show_list(tmp_path, console)
        _, *rows = out.getvalue().splitlines()
        first = min(max(map(len, names)), width)  # the rest of the longest is on lines of its own
        assert "".join(row[:first].strip() for row in rows) == "".join(names), width
        assert "…" not in out.getvalue()


def test_room_that_is_left_goes_to_what_matters_more() -> None:
    table = FittingTable({"n": Shown(0), "text": Shown(2, least=4), "other": Shown(1, least=5)})
    table.add_row("1", "t" * 9, "o" * 9)
    found = {}
    for width in (8, 12, 16, 21, 23):
        console, out = screen(width)
        console.print(table)
        found[width] = out.getvalue().splitlines()[1].split()
    assert found == {
        8: ["1", "oooo…"],
        12: ["1", "o" * 9],
        16: ["1", "ttt…", "oooooo…"],
        21: ["1", "tttttt…", "o" * 9],
        23: ["1", "t" * 9, "o" * 9],
    }
