"""A sweep on a file system that is read-only, or full; both need root and are mounted for it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.damage import ask
from tests.faults.specimen import NAME, make_lanes
from trainables.packing.protocol import Assignment
from trainables.training.checkpoint_files import read_meta
from tuning.history.event_log import EventLog
from tuning.sweep.directory import read_config


@contextlib.contextmanager
def mounted(target: Path, *options: str) -> Iterator[None]:
    target.mkdir(exist_ok=True)
    subprocess.run(["mount", *options, str(target)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(target)], check=True)


def try_read_only(directory: Path) -> None:
    storage = directory.parent
    with mounted(storage, "--bind", str(storage)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(storage)], check=True)
        answers = ask(directory)
    assert set(answers.status.values()) == {0}
    assert answers.starts is None
    print(f"read-only: {' | '.join(answers.said).replace(str(storage), '.')}")


def try_full(specimen: Path, place: Path) -> None:
    """Reading goes on; an event and a checkpoint wait, say so, and are whole when there is room."""
    storage = place / "full"
    with mounted(storage, "-t", "tmpfs", "-o", "size=4m", "tmpfs"):
        directory = Path(shutil.copytree(specimen, storage / NAME))
        lanes = make_lanes(config := read_config(directory))
        folder = directory / "tune" / "trial_0003"
        folder.mkdir()
        fill(storage / "filler")
        assert set(ask(directory).status.values()) == {0}
        fill(storage / "filler_too")  # what was spare has gone
        said: list[str] = []
        log = EventLog(directory, said.append)
        event = {"event": "sweep", "state": "running", "message": "x" * 9000}
        waiting = [threading.Thread(target=log.write, args=(event,))]
        lanes.assign("trial_0003", Assignment(config.train, str(folder)))
        reports: list[tuple[str, dict[str, object]]] = []
        waiting.append(threading.Thread(target=lambda: reports.extend(train_an_epoch(lanes))))
        for thread in waiting:
            thread.start()
        time.sleep(3)
        assert all(thread.is_alive() for thread in waiting), "they wait"
        assert not [p for p in folder.iterdir() if not p.name.startswith(".")]
        (storage / "filler").unlink()  # there is room again
        for thread in waiting:
            thread.join(30)
        log.close()
        ((_, report),) = reports
        assert read_meta(Path(str(report.checkpoint)))["epoch"] == 1
        assert (directory / "trials.jsonl").read_text().count("x" * 9000) == 1
        assert not list(storage.rglob(".checkpoint_*")), "nothing half-written"
    print(f"full: {' | '.join(said)}; a checkpoint that waited is whole".replace(str(storage), "."))


def train_an_epoch(lanes: object) -> list[tuple[str, dict[str, object]]]:
    found: list[tuple[str, dict[str, object]]] = []
    while not found:
        found += lanes.work()  # type: ignore[attr-defined]
    return found


def fill(path: Path) -> None:
    """To the last byte."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)
        os.fsync(file.fileno())
