"""Findings on their way: history, table, answers, resuming; and trials that end by them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from ray.tune.schedulers import TrialScheduler
from rich.console import Console

from search_spaces.schema import SearchSpace
from tests.tuning.history.test_sweeps import EVENTS, epoch, trial, write_sweep
from trainables.files import file_digest
from trainables.statuses import Status
from trainables.training.checkpoint_files import FILES, FORMAT_VERSION, META_FILE
from trainables.training.reports import EpochReport
from tuning.commands.answers import show_summary, show_trials, trials_answer
from tuning.config.sweep import load_sweep
from tuning.history.event_log import read_events
from tuning.history.record import SweepRecord
from tuning.history.sweeps import read_sweep
from tuning.monitors.table import TableMonitor, trial_table
from tuning.search.halving import Halving
from tuning.search.optuna_trials import frozen_trials
from tuning.search.ranges import distributions
from tuning.search.schedulers import SuccessiveHalving
from tuning.sweep.resuming import take_up
from tuning.sweep.running import open_sweep
from tuning.tune_edge import to_result

STUCK = {"id": "gate_stuck", "text": "the gate is at α = 0 and can reach 0.01 at most"}
FLAT = {"id": "loss_not_falling", "text": "train_loss was 3 in epoch 1 and is 3 in epoch 3"}


def found_epoch(number: int, *findings: dict[str, str]) -> dict[str, Any]:
    return {**epoch("trial_0000", number, 3.0), "findings": list(findings)}


def started(*epochs: dict[str, Any], status: str = "running") -> list[dict[str, Any]]:
    begun = trial("trial_0000", [], "running")
    end = {"event": "end", "trial_id": "trial_0000", "status": status, "time": 9}
    ended = [] if status == "running" else [{**end, "message": STUCK["text"]}]
    return [*begun, *epochs, *ended]


ENDED = started(found_epoch(1), found_epoch(2, STUCK), status="stopped early")


def test_a_finding_stands_in_the_history_until_it_is_gone(tmp_path: Path) -> None:
    events = started(found_epoch(1, STUCK), found_epoch(2, STUCK, FLAT), found_epoch(3, FLAT))
    directory = write_sweep(tmp_path, events=events)
    record = read_sweep(directory).trials["trial_0000"]
    assert record.found == [FLAT]
    assert record.news == []
    (answer,) = trials_answer(directory)
    assert [(f["epoch"], f["id"]) for f in answer["findings"]] == [
        (1, "gate_stuck"), (2, "gate_stuck"), (2, "loss_not_falling"), (3, "loss_not_falling")
    ]  # fmt: skip
    json.dumps(answer, allow_nan=False)


def test_an_epoch_told_again_takes_its_findings_back(tmp_path: Path) -> None:
    events = started(found_epoch(1, STUCK), found_epoch(2, STUCK), found_epoch(1))
    (answer,) = trials_answer(write_sweep(tmp_path, "again", events))
    assert answer["findings"] == []
    back = {"event": "history", "trial_id": "trial_0000", "history": [found_epoch(1)["metrics"]]}
    events = [*started(found_epoch(1, FLAT), found_epoch(2, STUCK)), back]
    (answer,) = trials_answer(write_sweep(tmp_path, "back", events))
    assert answer["findings"] == [{"epoch": 1, **FLAT}]


@pytest.mark.parametrize("findings", [["x"], [{"id": "gate_stuck"}], [{"id": 1, "text": "x"}]])
def test_findings_of_the_wrong_shape_are_skipped(
    findings: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    event = {**epoch("trial_0004", 2, 0.1), "findings": findings}
    before = trials_answer(write_sweep(tmp_path, "before"))
    assert trials_answer(write_sweep(tmp_path, "after", [*EVENTS, event])) == before
    assert "an event was skipped" in caplog.text


def test_a_line_tells_a_finding_once_and_the_table_has_its_name() -> None:
    out = io.StringIO()
    record = SweepRecord("mine", "val_loss", "min", 6)
    monitor = TableMonitor(record, 3, Console(file=out, width=140))
    for event in started(found_epoch(1, STUCK), found_epoch(2, STUCK)):
        record.apply(event)
        monitor.on_event(record, event, None)
    lines = [line for line in out.getvalue().splitlines() if "gate_stuck" in line]
    assert lines == [f"trial_0000 gate_stuck: {STUCK['text']}"]
    table = trial_table(record)
    (column,) = (c for c in table.columns if c.header == "finding")
    assert [str(cell) for cell in column.cells] == ["gate_stuck"]


def test_a_trial_that_ended_by_a_finding_says_so_everywhere(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path, events=ENDED)
    record = read_sweep(directory)
    status = record.trials["trial_0000"].described_status
    assert status == f"stopped early at epoch 2: {STUCK['text']}"
    out = io.StringIO()
    show_trials(directory, Console(file=out, width=140, highlight=False))
    assert f"trial_0000: {status}" in out.getvalue()
    assert out.getvalue().count(STUCK["text"]) == 1
    show_summary(record, directory, Console(file=out, width=140, highlight=False))
    assert "Findings:    gate_stuck in 1; " in out.getvalue()


def test_optuna_is_told_that_it_was_stopped() -> None:
    """Its losses are those of its epochs and worth knowing, but it is no finished trial."""
    record = SweepRecord("mine", "val_loss", "min", 6)
    for event in ENDED:
        record.apply(event)
    space = SearchSpace.model_validate({"model.dropout": {"type": "float", "low": 0, "high": 0.5}})
    views = [(t, float("inf")) for t in record.ordered()]
    (frozen,) = frozen_trials(record, views, distributions(space), {})
    assert frozen.state == optuna.trial.TrialState.PRUNED
    assert frozen.intermediate_values == {1: 3.0, 2: 3.0}
    assert frozen.user_attrs["message"] == STUCK["text"]


def write_checkpoint_files(
    folder: Path, epochs: list[dict[str, Any]], config: dict[str, Any] | None = None
) -> None:
    """As much of a checkpoint as resuming looks at."""
    last = epochs[-1]["epoch"]
    directory = folder / f"checkpoint_{last:06d}"
    directory.mkdir(parents=True)
    for name in FILES:
        (directory / name).write_bytes(b"x")
    meta = {
        "format_version": FORMAT_VERSION,
        "epoch": last,
        "step": epochs[-1].get("step"),
        "history": epochs,
        "config": config or {},
        "checksums": {name: file_digest(directory / name) for name in FILES},
    }
    (directory / META_FILE).write_text(json.dumps(meta))


@pytest.mark.parametrize("stops", [True, False])
def test_a_trial_killed_between_its_last_epoch_and_its_end_ends_when_resumed(
    stops: bool, tmp_path: Path
) -> None:
    record = SweepRecord("mine", "val_loss", "min", 6)
    for event in started(found_epoch(1), found_epoch(2, STUCK)):
        record.apply(event)
    epochs = [record.trials["trial_0000"].reports[e] for e in (1, 2)]
    write_checkpoint_files(tmp_path / "tune" / "trial_0000", epochs)
    config = load_sweep(None, [f"train.training.stop_stuck_gates={str(stops).lower()}"])
    sweep = open_sweep(tmp_path, config, record, print)
    starts = take_up(sweep, retry_failed=False)
    sweep.history.close()
    assert [start.number for start in starts] == ([] if stops else [0])
    if stops:
        end = list(read_events(tmp_path))[-1]
        told = {"event": "end", "status": "stopped early", "message": STUCK["text"]}
        assert {key: end[key] for key in told} == told


def test_the_last_report_of_a_trial_counts_at_a_rung_as_it_does_after_a_resume() -> None:
    record = SweepRecord("mine", "val_loss", "min", 2)
    for event in ENDED:
        record.apply(event)
    resumed = Halving.of_record(record, (2,), 2, 2)
    live = Halving((2,), 2, 2, 2)
    scheduler = SuccessiveHalving(live, "val_loss", lambda: 2)
    ray_trial: Any = SimpleNamespace(config={"number": 0})
    metrics = {"epoch": 2, "val_loss": 3.0}
    last = to_result(EpochReport(metrics, status=Status.STOPPED_EARLY), checkpoint=True)
    scheduler.on_trial_complete(None, ray_trial, last)
    other: Any = SimpleNamespace(config={"number": 1})
    report = to_result(EpochReport({"epoch": 2, "val_loss": 4.0}), checkpoint=True)
    assert scheduler.on_trial_result(None, other, report) == TrialScheduler.STOP
    resumed.report(1, 2, 4.0)
    assert resumed.goes_on(1, 2) is False
