"""A full disk is waited for: events, checkpoints and copies are whole when there is room again."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

import trainables.training.checkpoint
from tests.conftest import ConfigMaker
from tests.tuning.history.test_sweeps import EVENTS, write_sweep
from trainables.files import keep_if_possible, system_errors, wait_for_room
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.frozen import FrozenLLM
from trainables.packing.lanes import Lanes
from trainables.packing.memory import Footprint
from trainables.packing.protocol import Assignment
from trainables.training.batches import DeviceInputs
from trainables.training.checkpoint_files import copy_checkpoint, read_meta
from tuning.commands.answers import status_answer
from tuning.config.sweep import load_sweep
from tuning.history.disk import free_bytes, used_bytes
from tuning.history.event_log import EventLog, read_events
from tuning.history.record import SweepRecord
from tuning.sweep.disk_watch import RoomCallback
from tuning.sweep.running import open_sweep
from tuning.sweep.stopping import StopRequests, SweepStopped

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def failing(times: int, write: Callable[..., Any]) -> Callable[..., Any]:
    """``write``, but the disk is full so many times before."""
    left = [times]

    def attempt(*arguments: Any, **options: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise FULL
        return write(*arguments, **options)

    return attempt


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits, which take no time here."""
    found: list[float] = []
    monkeypatch.setattr(wait_for_room, "__defaults__", (found.append,))
    return found


class FullFile:
    """Takes half of a line, then none, then everything."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._takes = [8, 0]

    def write(self, line: bytes) -> int:
        return self._file.write(line[: self._takes.pop(0)] if self._takes else line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_an_event_waits_and_leaves_no_half_of_itself(tmp_path: Path) -> None:
    directory, said, naps = write_sweep(tmp_path), [], []
    log = EventLog(directory, said.append, naps.append)
    log._file = FullFile(log._file)  # type: ignore[assignment]
    log.write({"event": "sweep", "state": "running", "time": 1})
    log.close()
    events = list(read_events(directory))
    assert len(events) == len(EVENTS) + 1
    assert events[-1]["state"] == "running"
    assert len(naps) == 2
    assert ["no room left" in said[0], "there is room again" in said[1]] == [True, True]


def test_who_waits_for_room_can_be_stopped(tmp_path: Path) -> None:
    requests = StopRequests(tmp_path, None)
    with requests.listening(), requests.only_between_events():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SweepStopped, match="SIGTERM"):
            wait_for_room(failing(9, str), tmp_path, lambda line: None, requests.wait)


def test_a_stop_asked_for_by_file_stays_asked_for(tmp_path: Path) -> None:
    requests = StopRequests(tmp_path, None)
    (tmp_path / "stop").touch()
    for _ in range(2):
        with pytest.raises(SweepStopped, match="stopped by `stop`"):
            requests.wait(0)


@pytest.fixture
def lanes(llm: FrozenLLM, inputs: SharedInputs) -> Lanes:
    on_device = DeviceInputs(inputs, llm.device)
    return Lanes(llm, on_device, Footprint(llm, on_device), together=False, budget=2.0**40)


def epochs(lanes: Lanes, key: str, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < count:
        for _, report in lanes.work():
            found.append(report)
            lanes.go_on(key)
    return found


def test_a_lane_waits_with_its_checkpoint_and_loses_nothing(
    make_config: ConfigMaker,
    lanes: Lanes,
    tmp_path: Path,
    naps: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = [tmp_path / name for name in ("calm", "full")]
    found = []
    for folder in folders:
        folder.mkdir()
        lanes.assign(folder.name, Assignment(make_config(training__num_epochs=2), str(folder)))
        if folder.name == "full":
            full = failing(3, trainables.training.checkpoint.write_checkpoint)
            monkeypatch.setattr("trainables.training.checkpoint.write_checkpoint", full)
        found.append(epochs(lanes, folder.name, 2))
        assert [read_meta(folder / f"checkpoint_00000{n}")["epoch"] for n in (1, 2)] == [1, 2]
        assert not list(folder.glob(".*")), "nothing half-written"
    assert len(naps) == 3
    calm, full = ([report.series["loss"] for report in reports] for reports in found)
    assert calm == full


def test_a_host_that_is_to_save_lives_on_without_room(
    make_config: ConfigMaker, lanes: Lanes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes.assign("x", Assignment(make_config(), str(tmp_path)))
    list(lanes.work())
    full = failing(1, trainables.training.checkpoint.write_checkpoint)
    monkeypatch.setattr("trainables.training.checkpoint.write_checkpoint", full)
    lanes.save()
    assert not list(tmp_path.glob("checkpoint_*"))
    assert epochs(lanes, "x", 1)[0].status == "running"


def test_a_copy_waits_and_is_whole(
    tmp_path: Path, naps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    for name in ("one", "two"):
        (tmp_path / "a" / name).write_text(name)
    full = failing(1, shutil.copy2)
    monkeypatch.setattr("os.link", failing(9, os.link))
    monkeypatch.setattr("shutil.copy2", full)
    copy_checkpoint(tmp_path / "a", tmp_path / "b")
    assert [p.read_text() for p in sorted((tmp_path / "b").iterdir())] == ["one", "two"]
    assert len(naps) == 1


def test_what_safetensors_could_not_write_is_a_system_error() -> None:
    with pytest.raises(OSError, match="No space left") as caught, system_errors(Path("x")):
        raise SafetensorError("Error: I/O error: No space left on device (os error 28)")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(SafetensorError), system_errors(Path("x")):
        raise SafetensorError("invalid header")


def test_a_cache_without_room_is_no_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keep_if_possible(tmp_path / "sub" / "file", failing(1, str))
    assert "not kept for the next time: No space left" in caplog.text
    assert not list((tmp_path / "sub").iterdir())


def test_the_user_is_told_once_and_told_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, said = write_sweep(tmp_path), []
    record = SweepRecord("mine", "val_loss", "min", 6)
    for event in EVENTS:
        record.apply(event)
    checkpoint = directory / str(next(iter(record.trials.values())).checkpoint)
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_bytes(b"x" * 1000)
    sweep = open_sweep(directory, load_sweep(None), record, said.append)
    room = RoomCallback(sweep)
    for free in (999, 500, 1000):
        monkeypatch.setattr("tuning.sweep.disk_watch.free_bytes", lambda path, n=free: n)
        room._checked = 0.0
        room.on_step_begin(0, [])
    sweep.history.close()
    assert len(said) == 2
    assert said[0].startswith("no room left for a checkpoint")
    assert said[1].startswith("there is room again")


def test_status_says_what_is_used_and_what_is_free(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    (directory / "more").write_bytes(b"x" * 5000)
    os.link(directory / "more", directory / "the same")
    files = {p.stat().st_ino: p.stat().st_size for p in directory.rglob("*")}
    answer = json.loads(json.dumps(status_answer(directory)))
    assert answer["disk_bytes"] == used_bytes(directory) == sum(files.values())
    assert 0 <= answer["disk_bytes_free"] <= 2 * free_bytes(directory) + 1
