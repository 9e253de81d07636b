"""What the monitors show: plain lines, gauges' names, and a W&B run read back from disk."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.tuning.history.test_sweeps import EVENTS, write_sweep
from trainables.metrics import METRICS
from trainables.training.reports import EpochReport
from tuning.history.event_log import EventLog
from tuning.history.record import SweepRecord
from tuning.history.sweeps import read_sweep
from tuning.monitors.table import TableMonitor
from tuning.monitors.wandb import ARCHITECTURE, WandbMonitor
from tuning.sweep.history_writer import SweepCallback
from tuning.terminal import PROJECT, duration, say_on_stdout
from tuning.tune_edge import to_result


def play(monitor: Any, events: list[dict[str, Any]], reports: dict[int, EpochReport]) -> None:
    record = SweepRecord("mine", "val_loss", "min", 6)
    for i, event in enumerate(events):
        record.apply(event)
        monitor.on_event(record, event, reports.get(i))
    monitor.close()


def test_without_a_terminal_there_is_a_line_per_epoch_and_ending() -> None:
    out = io.StringIO()
    record = SweepRecord("mine", "val_loss", "min", 6)
    play(TableMonitor(record, 3, Console(file=out, width=140)), EVENTS, {})
    lines = out.getvalue().splitlines()
    assert lines[0] == "trial_0000 started: dropout 0.1"
    assert lines[1].startswith("trial_0000 epoch 1/3: train_loss 4.0000, val_loss 3.0000, α 0.1")
    assert lines[3].startswith("trial_0000 finished. 1/6 trials ended; best val_loss 2.0000")
    assert any(line.startswith("trial_0001 stopped early at epoch 1.") for line in lines)
    assert any(line.startswith("trial_0002 diverged: loss is nan.") for line in lines)
    assert "\x1b" not in out.getvalue()


def test_on_a_terminal_there_is_one_live_table() -> None:
    out = io.StringIO()
    record = SweepRecord("mine", "val_loss", "min", 6)
    console = Console(file=out, force_terminal=True, width=140)
    play(TableMonitor(record, 3, console), EVENTS, {})
    last = out.getvalue().rpartition("trial ")[2]
    for word in ("α", "retention", "trial_0004", "stopped early at epoch 1", "4/6 trials ended"):
        assert word in last


def test_what_is_said_stands_above_the_live_table(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    record = SweepRecord("mine", "val_loss", "min", 6)
    say = say_on_stdout()
    monitor = TableMonitor(record, 3, Console(file=out, force_terminal=True, width=140))
    say("a host was lost: α")
    monitor.close()
    say("afterwards")
    before, _, after = out.getvalue().partition("a host was lost: α\n")
    assert "trials ended" in after, "the table is drawn again below it"
    assert before
    assert capsys.readouterr().out == "afterwards\n"


def test_durations_read_well() -> None:
    assert [duration(s) for s in (5, 65, 3700)] == ["0 min 05 s", "1 min 05 s", "1 h 01 min"]


def wandb_records(path: Path) -> Iterator[bytes]:
    """The records of an offline run's file: LevelDB's log format after a 7-byte header."""
    content, position, record = path.read_bytes(), 7, b""
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # full, or the last part
            yield record
            record = b""


def offline_rows(directory: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Config and history of the one offline run below ``directory``."""
    (run,) = offline_runs(directory)
    return run


def offline_runs(directory: Path) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    return [read_run(path) for path in sorted(directory.rglob("run-*.wandb"))]


def read_run(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from wandb.proto import wandb_internal_pb2

    config: dict[str, Any] = {}
    rows = []
    for data in wandb_records(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "run":
            for item in record.run.config.update:
                config[item.key] = json.loads(item.value_json)
            config["_group"] = record.run.run_group
        if record.WhichOneof("record_type") == "summary":
            for item in record.summary.update:
                config[f"summary.{item.key or item.nested_key[0]}"] = json.loads(item.value_json)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({i.key or i.nested_key[0]: json.loads(i.value_json) for i in items})
    return config, rows


def epoch_event(number: int) -> tuple[dict[str, Any], EpochReport]:
    """The event and the report of an epoch of five steps."""
    steps = [5 * number + i for i in range(5)]
    metrics = {"epoch": number, "step": 5 * number, "val_loss": 0.5 / number}
    series = {
        "loss": [1.0 / s for s in steps],
        "gate_alpha": [0.01 * s for s in steps],
        "learning_rate": [1e-3] * 5,
    }
    report = EpochReport(metrics, series)
    return {"event": "epoch", "trial_id": "trial_0000", "metrics": metrics, "time": 1}, report


TRIAL = {"event": "trial", "trial_id": "trial_0000", "params": {"model.dropout": 0.2}, "time": 0}
START = {"event": "start", "trial_id": "trial_0000", "time": 0}
END = {"event": "end", "trial_id": "trial_0000", "status": "finished", "time": 2}


@pytest.mark.timeout(120)
def test_an_offline_run_holds_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    home, key = tmp_path / "home" / "jo", "0123456789abcdef" * 2 + "01234567"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WANDB_API_KEY", key)
    config = {"training": {"batch_size": 16}, "llm_model": str(home / "llm")}
    monitor = WandbMonitor(tmp_path / "runs", "project", "mine", config, 7, 128, print)
    (first, report_1), (second, report_2) = epoch_event(1), epoch_event(2)
    # It pauses after the first epoch: that is one run all the same.
    play(monitor, [TRIAL, START, first, START, second, END], {2: report_1, 4: report_2})
    read, rows = offline_rows(tmp_path / "runs")
    for path in (p for p in (tmp_path / "runs").rglob("*") if p.is_file()):
        assert str(home).encode() not in path.read_bytes(), path
        assert key.encode() not in path.read_bytes(), path
    assert read["architecture"] == ARCHITECTURE == "Deep Semantic + Gated Fusion"
    assert (read["num_tools"], read["hidden_dim"], read["gate_alpha_init"]) == (7, 128, 0.0)
    assert read["model.dropout"] == 0.2
    assert read["_group"] == "mine"
    seen = columns(rows)
    assert seen["_step"] == list(range(1, 11))
    assert len(seen["gate_alpha"]) == len(seen["loss"]) == len(seen["learning_rate"]) == 10
    assert seen["gate_alpha"][0] == pytest.approx(0.05)
    assert seen["val_loss"] == [0.5, 0.25]


@pytest.mark.timeout(120)
def test_the_run_of_a_resumed_trial_has_all_its_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    record = SweepRecord("mine", "val_loss", "min", 6)
    for event in (TRIAL, START, epoch_event(1)[0], epoch_event(2)[0]):
        record.apply(event)
    monitor = WandbMonitor(tmp_path, "project", "mine", {}, 7, 128, print)
    third, report = epoch_event(3)
    for event in (START, third, END):
        record.apply(event)
        monitor.on_event(record, event, report if event is third else None)
    monitor.close()
    seen = columns(offline_rows(tmp_path)[1])
    assert seen["epoch"] == [1, 2, 3]
    assert seen["_step"] == [5, 10, 11, 12, 13, 14, 15]
    assert len(seen["gate_alpha"]) == 5


@pytest.mark.timeout(120)
def test_a_trial_that_takes_over_older_weights_gets_a_run_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    epochs = [epoch_event(number) for number in (1, 2, 3, 2, 3)]
    events = [TRIAL, START, *(event for event, _ in epochs[:3]), START]
    events += [*(event for event, _ in epochs[3:]), END]
    reports = dict(zip((2, 3, 4, 6, 7), (report for _, report in epochs), strict=True))
    play(WandbMonitor(tmp_path, "project", "mine", {}, 7, 128, print), events, reports)
    seen = [columns(rows)["epoch"] for _, rows in offline_runs(tmp_path)]
    assert sorted(seen) == [[1, 2, 3], [1, 2, 3]]


class TuneTrial:
    """As much of Ray Tune's trial as a callback asks for."""

    config = TRIAL

    def __str__(self) -> str:
        return "trial_0000"


@pytest.mark.timeout(120)
def test_a_trial_that_takes_over_weights_ahead_of_its_own_has_no_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    directory = write_sweep(tmp_path, events=[TRIAL])
    callback = SweepCallback(read_sweep(directory), EventLog(directory), directory)
    callback.watch([WandbMonitor(tmp_path / "runs", "project", "mine", {}, 7, 128, print)])
    trial: Any = TuneTrial()
    other = [{**epoch_event(number)[0]["metrics"], "val_loss": 0.1} for number in range(1, 4)]
    callback.on_trial_start(0, [], trial)
    for number, lineage in ((1, []), (4, other), (5, [])):
        report = replace(epoch_event(number)[1], lineage=tuple(lineage))
        result = to_result(report, checkpoint=False)
        callback.on_trial_result(0, [], trial, result)
        plain = all(isinstance(value, int | float | str) for value in result.values())
        assert plain, "Tune would write the report with every snapshot"
    callback.close()
    (told,) = read_sweep(directory).trials.values()
    assert [row["epoch"] for row in told.history] == [1, 2, 3, 4, 5]
    assert [row["val_loss"] for row in told.history] == [0.5, 0.1, 0.1, 0.125, 0.1], "its own first"
    assert columns(offline_rows(tmp_path / "runs")[1])["epoch"] == [1, 2, 3, 4, 5]


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    seen = defaultdict(list)
    for row in rows:
        for key, value in row.items():
            seen[key].append(value)
    return seen


def test_metrics_are_declared_once_with_help() -> None:
    assert len({metric.key for metric in METRICS}) == len(METRICS)
    assert all(metric.help.endswith(".") and "/" not in metric.key for metric in METRICS)


def test_the_mode_looks_for_the_key_of_the_server_that_is_set(tmp_path: Path) -> None:
    """A server of one's own, its key in ~/.netrc as `wandb login` leaves it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password k\n")
        (tmp_path / ".netrc").chmod(0o600)
        code = "from tuning.monitors.wandb_mode import choose_mode; print(choose_mode())"
        found = [
            subprocess.run(
                [sys.executable, "-c", code],
                cwd=PROJECT,
                env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "WANDB_BASE_URL": url},
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for url in (f"http://127.0.0.1:{port}", f"http://localhost:{port}")
        ]
    assert found == ["online", "offline"]
