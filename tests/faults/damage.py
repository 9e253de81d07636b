"""What can happen to a file, what is then asked of the sweep, and what may be the answer."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.specimen import NAME
from trainables.errors import UserError
from trainables.training.checkpoint_files import read_meta
from tuning.cli import main
from tuning.history.sweeps import read_sweep
from tuning.sweep.directory import check_inputs, locked, read_config
from tuning.sweep.resuming import take_up
from tuning.sweep.running import open_sweep

CHECKPOINT_FILES = (
    "encoder.json encoder.safetensors meta.json optimizer.safetensors random.safetensors".split()
)
# The best trial's newest, and the newest of the one that goes on; the others are spare.
IN_USE = ["tune/trial_0000/checkpoint_000003", "tune/trial_0002/checkpoint_000002"]
SPARE = [f"tune/trial_000{i}/checkpoint_00000{n}" for i, n in ((0, 2), (1, 1), (2, 1))]
# What is read, and what is not, because it is made from it and can be made again, or is spare.
SOURCES = [
    *"sweep.yaml manifest.json trials.jsonl inputs/tools.json inputs/profiling.csv".split(),
    *(f"{checkpoint}/{name}" for checkpoint in IN_USE for name in CHECKPOINT_FILES),
]
OTHERS = [
    *(f"{checkpoint}/{name}" for checkpoint in SPARE for name in CHECKPOINT_FILES),
    *"study.journal lock logs/ray.log".split(),
    *(
        f"best/{n}"
        for n in "README.md encoder.json encoder.safetensors training_config.json".split()
    ),
    *(f"tune/trial_000{i}/result.json" for i in range(3)),
]
READING = ["status", "trials", "best", "list", "export"]


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_by_directory(path: Path) -> None:
    """Nobody, root neither, can read or write it as a file."""
    path.unlink()
    path.mkdir()


FAULTS: dict[str, Callable[[Path], None]] = {
    "truncated": truncate,
    "bit-flipped": flip,
    "missing": Path.unlink,
    "unreadable": replace_by_directory,
}


@dataclass
class Answers:
    """What each command said: exit status, standard output, and every line to the user."""

    status: dict[str, int] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    starts: list[tuple[int, dict[str, Any], int]] | None = None  # number, parameters, epoch


def ask(directory: Path, commands: list[str] = READING) -> Answers:
    """Every reading command, then what ``resume`` does before Ray; nothing may be raised."""
    answers = Answers()
    storage = ["--storage", str(directory.parent)]
    for command in commands:
        arguments = {
            "list": [command, "--json"],
            "export": [command, NAME, "--out", str(directory.parent.parent / "exported")],
        }.get(command, [command, NAME, "--json"])
        out, err = io.StringIO(), io.StringIO()
        with heard(answers.said), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            answers.status[command] = main([*arguments, *storage])
        answers.out[command] = out.getvalue()
        errors = [s for s in err.getvalue().splitlines() if not s.startswith("WARNING: ")]
        assert answers.status[command] in (0, 2), err.getvalue()
        assert len(errors) == (answers.status[command] == 2), err.getvalue()
        answers.said += errors
        shutil.rmtree(directory.parent.parent / "exported", ignore_errors=True)
    with heard(answers.said):
        try:
            answers.starts = resume(directory)
        except UserError as error:
            answers.said.append(f"error: {error}")
    return answers


def resume(directory: Path) -> list[tuple[int, dict[str, Any], int]]:
    """As ``tuning.sweep.resume``, up to Ray: what goes on, and after which epoch."""
    with locked(directory):
        config = read_config(directory)
        check_inputs(directory)
        sweep = open_sweep(directory, config, read_sweep(directory), print)
        starts = take_up(sweep, retry_failed=False)
        sweep.history.close()
    return [
        (s.number, s.params, read_meta(s.checkpoint)["epoch"] if s.checkpoint else 0)
        for s in starts
    ]


@contextlib.contextmanager
def heard(lines: list[str]) -> Iterator[None]:
    """Warnings, as the terminal would show them."""
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(f"WARNING: {record.getMessage()}")  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def assert_survived(name: str, fault: str, answers: Answers, sound: Answers) -> None:
    """A damaged file is named, and nothing is lost but what only it held."""
    if name == "lock" and fault == "unreadable":
        assert answers.starts is None, "nobody can be kept from running it, too"
        return
    if name in SOURCES:
        assert any(Path(name).name in line for line in answers.said), answers.said
    else:
        assert answers.said == sound.said
    if name == "trials.jsonl":
        _assert_history(fault, answers, sound)
        return
    assert answers.out["trials"] == sound.out["trials"]
    assert answers.status["status"] == answers.status["list"] == answers.status["export"] == 0
    if name == "sweep.yaml" and fault == "unreadable":
        assert answers.starts is None, "it cannot be put back"
    elif name.startswith("inputs/"):
        assert answers.starts is None, "it must not go on with other data"
    elif name.startswith("tune/trial_0002/checkpoint_000002/"):
        assert answers.starts == [(*sound_start(sound)[:2], 1)], "one epoch is trained again"
    else:
        assert answers.starts == sound.starts


def sound_start(sound: Answers) -> tuple[int, dict[str, Any], int]:
    assert sound.starts is not None
    (start,) = sound.starts
    return start


def _assert_history(fault: str, answers: Answers, sound: Answers) -> None:
    if fault in ("missing", "unreadable"):
        assert answers.starts is None, "it must not begin anew"
        assert answers.status["trials"] == 2
        return
    before, after = (json.loads(a.out["trials"]) for a in (sound, answers))
    if fault == "bit-flipped":  # one line is gone
        assert sum(trial in after for trial in before) >= len(before) - 1
    for trial, whole in zip(after, before, strict=False):  # all after the damage is gone
        assert trial["params"] == whole["params"]
        if fault != "bit-flipped":
            assert trial["history"] == whole["history"][: len(trial["history"])]
