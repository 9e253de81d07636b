"""The sweep's history: folding events, damage, locks, and what the reading commands answer."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from trainables.errors import UserError
from tuning.commands.answers import list_answer, status_answer, trials_answer
from tuning.history.event_log import EVENTS_FILE, EventLog
from tuning.history.lock import LOCK_FILE, SweepLock, is_locked
from tuning.history.manifest import write_manifest
from tuning.history.record import SweepRecord
from tuning.history.sweeps import STOP_FILE, find_sweep, read_sweep
from tuning.monitors.table import TimeLeft, summary_line, trial_table
from tuning.sweep.directory import locked
from tuning.sweep.stopping import StopRequests, SweepStopped


def epoch(trial: str, number: int, val_loss: float) -> dict[str, Any]:
    metrics = {
        "epoch": number,
        "train_loss": val_loss + 1,
        "val_loss": val_loss,
        "gate_alpha": 0.1 * number,
        "semantic_retention": 0.9,
    }
    return {"event": "epoch", "trial_id": trial, "metrics": metrics, "time": number}


def trial(name: str, losses: list[float], status: str, message: str = "") -> list[dict[str, Any]]:
    events = [
        {"event": "trial", "trial_id": name, "params": {"model.dropout": 0.1}, "time": 0},
        {"event": "start", "trial_id": name, "time": 1},
        *(epoch(name, i, loss) for i, loss in enumerate(losses, start=1)),
    ]
    if losses:
        events.append(
            {"event": "checkpoint", "trial_id": name, "path": f"tune/{name}/c", "time": 2}
        )
    if status != "running":
        events.append(
            {"event": "end", "trial_id": name, "status": status, "message": message, "time": 9}
        )
    return events


EVENTS = [
    *trial("trial_0000", [3.0, 2.0], "finished"),
    *trial("trial_0001", [2.5], "stopped early"),
    *trial("trial_0002", [0.1], "diverged", "loss is nan"),
    *trial("trial_0003", [], "failed", "boom"),
    *trial("trial_0004", [0.2], "running"),
]


def write_sweep(
    storage: Path, name: str = "mine", events: list[dict[str, Any]] = EVENTS, created: int = 1
) -> Path:
    directory = storage / name
    directory.mkdir(parents=True)
    facts = {"metric": "val_loss", "mode": "min", "num_trials": 6, "created": created}
    made_with: dict[str, Any] = {"python": "3.11", "versions": {}, "inputs": {}}
    write_manifest(directory, {"name": name, **facts, **made_with})
    log = EventLog(directory)
    for event in events:
        log.write(event)
    log.close()
    return directory


def test_a_history_becomes_trials_with_understandable_endings(tmp_path: Path) -> None:
    record = read_sweep(write_sweep(tmp_path))
    assert [t.described_status for t in record.trials.values()] == [
        "finished",
        "stopped early at epoch 1",
        "diverged: loss is nan",
        "failed: boom",
        "interrupted",
    ]
    assert record.state == "interrupted"
    best = record.best()
    assert best is not None
    assert (best.trial_id, record.value(best)) == ("trial_0000", 2.0)


def test_repeated_epochs_replace_each_other(tmp_path: Path) -> None:
    events = [*EVENTS[:4], epoch("trial_0000", 2, 1.5), epoch("trial_0000", 3, 1.0)]
    answer = trials_answer(write_sweep(tmp_path, events=events))[0]
    assert [row["epoch"] for row in answer["history"]] == [1, 2, 3]
    assert [row["val_loss"] for row in answer["history"]] == [3.0, 1.5, 1.0]


def test_a_trial_asked_anew_starts_with_an_empty_history(tmp_path: Path) -> None:
    """After a kill the searcher may give the same number to another point of the space."""
    again = {
        "event": "trial",
        "trial_id": "trial_0000",
        "params": {"model.dropout": 0.4},
        "time": 9,
    }
    events = [*EVENTS[:6], again, epoch("trial_0000", 1, 2.5)]
    answer = trials_answer(write_sweep(tmp_path, events=events))[0]
    assert answer["params"] == {"model.dropout": 0.4}
    assert [row["val_loss"] for row in answer["history"]] == [2.5]


def test_an_epoch_told_again_replaces_what_followed_it(tmp_path: Path) -> None:
    events = [*EVENTS[:4], epoch("trial_0000", 1, 2.8)]
    answer = trials_answer(write_sweep(tmp_path, events=events))[0]
    assert [(row["epoch"], row["val_loss"]) for row in answer["history"]] == [(1, 2.8)]


def test_one_unreadable_sweep_does_not_hide_the_others(tmp_path: Path) -> None:
    write_sweep(tmp_path, "whole")
    (write_sweep(tmp_path, "broken") / "manifest.json").write_text("{")
    states = {row["sweep"]: row["state"] for row in list_answer(tmp_path)}
    assert states == {"broken": "unreadable", "whole": "interrupted"}


def test_a_damaged_first_line_of_a_trial_does_not_lose_the_trial(tmp_path: Path) -> None:
    start = {**EVENTS[1], "params": EVENTS[0]["params"]}
    whole = write_sweep(tmp_path, "whole", [EVENTS[0], start, *EVENTS[2:]])
    without = write_sweep(tmp_path, "without", [start, *EVENTS[2:]])
    assert trials_answer(without) == trials_answer(whole)


def test_a_sweep_that_is_being_made_is_not_listed(tmp_path: Path) -> None:
    write_sweep(tmp_path).rename(tmp_path / ".mine.aside-1")
    assert list_answer(tmp_path) == []


def test_a_missing_history_is_no_empty_one(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    (directory / EVENTS_FILE).unlink()
    with pytest.raises(UserError, match=r"trials\.jsonl is missing"):
        read_sweep(directory)


def test_a_line_that_is_being_written_is_not_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = write_sweep(tmp_path)
    with (directory / EVENTS_FILE).open("ab") as file:
        file.write(b'{"event": "epo')
    lock = SweepLock(directory)
    lock.acquire()
    read_sweep(directory)
    lock.release()
    assert not caplog.text


def test_who_only_looks_whether_a_sweep_runs_keeps_nobody_from_running_it(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    (directory / LOCK_FILE).touch()
    with (directory / LOCK_FILE).open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        looking = threading.Timer(0.05, lambda: fcntl.flock(file, fcntl.LOCK_UN))
        looking.start()
        lock = SweepLock(directory)
        lock.acquire()
        looking.join()
    assert is_locked(directory)
    with pytest.raises(UserError, match="already running"):
        SweepLock(directory).acquire()
    lock.release()


BAD_EVENTS = [
    {"event": "epoch", "trial_id": "trial_0000", "metrics": {"epoch": "x"}},
    {"event": "epoch", "trial_id": "trial_0000", "metrics": {"epoch": 1, "val_loss": 10**400}},
    {"event": "trial", "trial_id": "trial_0000", "params": 5},
    {"event": "trial", "trial_id": 5, "params": {}},
    {"event": "start", "trial_id": "trial_0000", "params": 5, "time": 1},
    {"event": "end", "trial_id": "trial_0000", "status": ["x"], "time": 1},
    {"event": "checkpoint", "trial_id": "trial_0000", "path": 5},
    {"event": "checkpoint", "trial_id": "trial_0000", "path": "tune/trial_0000/.."},
    {"event": "checkpoint", "trial_id": "trial_0000", "path": "tune/trial_0001/checkpoint_000001"},
    {"event": "checkpoint", "trial_id": "trial_0000", "path": "../outside/checkpoint_000001"},
    {"event": "checkpoint", "trial_id": "trial_0000", "path": "/etc"},
    {"event": "sweep", "state": ["a"]},
    {"event": "something else"},
]


@pytest.mark.parametrize("event", BAD_EVENTS, ids=str)
def test_an_event_of_the_wrong_shape_is_reported_and_skipped(
    event: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = trials_answer(write_sweep(tmp_path, "before"))
    assert trials_answer(write_sweep(tmp_path, "after", [*EVENTS, event])) == before
    assert "an event was skipped" in caplog.text


BAD_MANIFESTS = ["{", "[" * 100_000, '{"format_version": 1}', '{"format_version": 99}', "5"]


@pytest.mark.parametrize("content", BAD_MANIFESTS, ids=lambda text: text[:20])
def test_a_bad_manifest_is_one_clear_error(content: str, tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    (directory / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json|format version"):
        read_sweep(directory)
    assert list_answer(tmp_path)[0]["state"] == "unreadable"


@pytest.mark.parametrize("damage", [b'{"event": "epo', b"\xff\xfe\n", b"3\n", b"{}\n"])
def test_a_damaged_line_is_reported_and_skipped(
    damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = write_sweep(tmp_path)
    before = trials_answer(directory)
    with (directory / EVENTS_FILE).open("ab") as file:
        file.write(damage)
    assert trials_answer(directory) == before
    assert "line" in caplog.text


def test_status_and_list_have_the_promised_keys(tmp_path: Path) -> None:
    write_sweep(tmp_path, "younger", created=2)
    directory = write_sweep(tmp_path, "older", created=1)
    assert [row["sweep"] for row in list_answer(tmp_path)] == ["older", "younger"]
    assert set(list_answer(tmp_path)[0]) == {"sweep", "state", "path"}
    status = status_answer(directory)
    assert status["trials"] == {
        "finished": 1, "stopped early": 1, "diverged": 1, "failed": 1, "interrupted": 1
    }  # fmt: skip
    assert status["best"]["trial_id"] == "trial_0000"
    json.dumps(status, allow_nan=False)


def test_an_unknown_name_lists_the_near_ones(tmp_path: Path) -> None:
    write_sweep(tmp_path, "monday")
    with pytest.raises(UserError, match="did you mean `monday`"):
        find_sweep(tmp_path, "mondya")
    with pytest.raises(UserError, match="there is none yet"):
        find_sweep(tmp_path / "empty", "any")


def test_a_running_sweep_is_locked_and_frees_itself_with_its_process(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    code = (
        "import sys, time; from pathlib import Path; from tuning.history.lock import SweepLock;"
        f"lock = SweepLock(Path({str(directory)!r})); lock.acquire(); print('held', flush=True);"
        "time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert read_sweep(directory).state == "running"
        with pytest.raises(UserError, match=f"already running .pid {holder.pid}"):
            SweepLock(directory).acquire()
    finally:
        holder.kill()
        holder.communicate()
    assert read_sweep(directory).state == "interrupted"
    lock = SweepLock(directory)
    lock.acquire()
    lock.release()


def test_the_table_shows_running_trials_and_the_time_left() -> None:
    record = SweepRecord("mine", "val_loss", "min", 6)
    left = TimeLeft()
    assert left.seconds(record) is None
    for event in EVENTS:
        left.see(event)
        record.apply(event)
    table = trial_table(record, max_rows=2)
    assert [str(cell) for cell in table.columns[0].cells] == ["trial_0003", "trial_0004"]
    seconds = left.seconds(record)
    assert seconds is not None
    assert seconds >= 0
    line = summary_line(record, seconds)
    assert line.startswith("4/6 trials ended; best val_loss 2.0000 (trial_0000); about")


def test_the_time_left_counts_what_running_epochs_have_behind_them() -> None:
    """Eight trials of one epoch of 500 s, four at a time."""
    now = [0.0]
    record, left = SweepRecord("mine", "val_loss", "min", 8), TimeLeft(lambda: now[0])

    def happen(kind: str, number: int, **more: object) -> None:
        event = {"event": kind, "trial_id": f"trial_{number:04d}", "time": now[0], **more}
        left.see(event)
        record.apply(event)

    for number in range(4):
        happen("start", number, params={})
    now[0] = 500.0
    happen("epoch", 0, metrics={"epoch": 1, "val_loss": 1.0})
    assert left.seconds(record) is None, "nobody knows how many epochs a trial needs"
    happen("end", 0, status="finished", message="")
    happen("start", 4, params={})
    assert left.seconds(record) == 500.0, "three are about to end, four are to come"
    now[0] = 750.0
    assert left.seconds(record) == pytest.approx(437.5)


def test_only_a_stop_that_is_older_than_the_sweeps_process_is_forgotten(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    (directory / STOP_FILE).touch()
    with locked(directory):
        assert not (directory / STOP_FILE).exists()
        (directory / STOP_FILE).touch()  # while the sweep is being read
        with pytest.raises(SweepStopped):
            StopRequests(directory, None).check()
