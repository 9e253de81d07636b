"""Histories of earlier releases are read as they were meant, and marked before they go on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from trainables.errors import UserError
from tuning.history.event_log import EVENTS_FILE
from tuning.history.manifest import FORMAT_VERSION, MANIFEST_FILE, read_manifest
from tuning.history.record import EventKind, SweepRecord
from tuning.history.sweeps import read_sweep
from tuning.sweep.directory import raise_format, read_config

FORMAT_2 = Path(__file__).parents[2] / "assets" / "sweep_format_2"


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FORMAT_2, tmp_path / "sweep_20261126_011325"))


def assert_whole(record: SweepRecord) -> None:
    best = record.best()
    assert best is not None
    assert (best.trial_id, record.value(best)) == ("trial_0013", 0.20455889403820038)
    assert record.counts() == {"finished": 3, "stopped early": 13}
    assert sum(trial.checkpoint_removed for trial in record.trials.values()) == 11
    assert record.state == "finished"


def test_a_history_of_format_2_is_read(earlier: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert_whole(read_sweep(earlier))
    assert read_config(earlier).num_trials == 16
    assert not caplog.text


def test_going_on_raises_the_format_first(earlier: Path) -> None:
    assert read_manifest(earlier)["format_version"] == 2
    raise_format(earlier, print)
    lines = (earlier / EVENTS_FILE).read_text().splitlines()
    created = json.loads(lines[-1])
    assert created["event"] == EventKind.CREATED
    assert created["manifest"]["format_version"] == FORMAT_VERSION
    assert read_manifest(earlier)["format_version"] == FORMAT_VERSION
    assert_whole(read_sweep(earlier))
    raise_format(earlier, print)
    assert (earlier / EVENTS_FILE).read_text().splitlines() == lines, "only once"
    (earlier / MANIFEST_FILE).unlink()
    assert read_manifest(earlier)["format_version"] == FORMAT_VERSION, "from the history"


def test_a_later_format_is_refused(earlier: Path) -> None:
    path = earlier / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "format_version": FORMAT_VERSION + 1}))
    with pytest.raises(UserError, match=r"format version 5; this release reads 2, 3 and 4"):
        read_sweep(earlier)
