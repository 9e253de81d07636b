"""One input given to the command line, and what became of it."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from unittest.mock import patch

import optuna

from tests.conftest import write_data
from tests.fuzz.inputs import as_yaml, sweep_base
from tests.fuzz.pieces import Case
from trainables.data.faults import MOST_SHOWN
from trainables.inputs.checked_data import read_data
from tuning.cli import main
from tuning.config.space import searched_values, with_params
from tuning.config.sweep import ResolvedSweep, dump_sweep
from tuning.history.record import SweepRecord
from tuning.search.suggestions import Suggestions
from tuning.sweep.directory import check_inputs, create_directory, read_config

optuna.logging.set_verbosity(optuna.logging.ERROR)
# Seconds; nothing that is only checked takes so long, on however busy a machine.
TOO_LONG = 10
TOO_LONG_TO_WAIT = 900
DRAWS = 2


@dataclass
class Tally:
    """What became of the inputs of one kind; ``wrong`` says what neither worked nor was refused."""

    accepted: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0  # seconds of computing
    messages: set[str] = field(default_factory=set)

    @property
    def tried(self) -> int:
        return self.accepted + self.refused + len(self.wrong)


class TooLongError(BaseException):
    """A hang; not to be caught by the code that hangs."""


class Workbench:
    """A directory with good files, in which one case after the other is tried."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        write_data(directory)
        (directory / "good.yaml").write_bytes(as_yaml(sweep_base()))
        self._good = {p.name: p.read_bytes() for p in directory.iterdir()}

    def attempt(self, case: Case, tally: Tally) -> None:
        """Launch with ``case``, all but the training; raises AssertionError if that goes wrong."""
        arguments, files = case
        for name, content in files.items():
            path = self._directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        before = self._listing()
        start = time.process_time()
        try:
            status, err = run(arguments)
            tally.slowest = max(tally.slowest, time.process_time() - start)
            self._judge(status, err, before)
        except BaseException as error:
            tally.wrong.append(f"{arguments}: {''.join(traceback.format_exception(error))[-3000:]}")
            raise
        finally:
            self._restore(files)
        if status == 0:
            tally.accepted += 1
        else:
            tally.refused += 1
            tally.messages.add(err)

    def _judge(self, status: int, err: str, before: set[Path]) -> None:
        assert status in (0, 2), f"exit status {status}"
        errors = [line for line in err.splitlines() if not line.startswith("WARNING: ")]
        if status == 2:
            first, *faults = errors
            assert first.startswith("error: "), err
            assert not faults or first.endswith(f" {count_of(faults)} faults:"), err
            assert all(fault.startswith("  ") for fault in faults), err
            assert len(faults) <= MOST_SHOWN + 1, err
        else:
            assert not errors, err
        assert self._listing() == before, "something was left behind"

    def _listing(self) -> set[Path]:
        return set(self._directory.rglob("*"))

    def _restore(self, files: dict[str, bytes]) -> None:
        shutil.rmtree(self._directory / "sweeps", ignore_errors=True)
        for name in files:
            (self._directory / name).unlink(missing_ok=True)
            if name in self._good:
                (self._directory / name).write_bytes(self._good[name])


def count_of(faults: list[str]) -> int:
    """How many there are by what is told of them."""
    more = re.fullmatch(r"  and (\d+) more", faults[-1])
    return len(faults) - 1 + int(more[1]) if more else len(faults)


def run(arguments: list[str]) -> tuple[int, str]:
    """``validate``, then ``launch`` up to the training: exit status and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        patch("tuning.sweep.launch.launch", make_and_check),
        patch("tuning.commands.launch._summary", lambda directory: 0),
        limited(TOO_LONG),
    ):
        command = "launch" if "--warm_start_from" in arguments else "validate"
        storage = [] if command == "validate" else ["--storage", "sweeps"]
        status = main([command, *arguments, *storage])
        if status == 0 and command == "validate":
            again = main(["launch", "--name", "made", *arguments, "--storage", "made"])
            assert again == 0, f"validated, but not launched: {err.getvalue()}"
    return status, err.getvalue()


def make_and_check(sweep: ResolvedSweep, say: Callable[[str], None]) -> None:
    """Instead of training: the directory is whole, and the space gives trials that can be built."""
    create_directory(sweep)
    try:
        config = read_config(sweep.directory)
        check_inputs(sweep.directory)
        assert not read_data(config.train).leaked or config.train.data.split == "rows"
        assert dump_sweep(read_config(sweep.directory)) == dump_sweep(config)
        record = SweepRecord(sweep.name, config.metric, config.mode, config.num_trials)
        fixed = searched_values(config.train, config.search_space)
        points = Suggestions(
            config.search_space, config.search, record, None, config.warm_start, fixed
        )
        for number in range(min(DRAWS + len(config.warm_start), 9)):
            with_params(config.train, points.draw(number).params, f"trial {number}")
    finally:
        shutil.rmtree(sweep.directory)
        with contextlib.suppress(OSError):
            sweep.directory.parent.rmdir()


@contextlib.contextmanager
def limited(computing: float, waiting: float = TOO_LONG_TO_WAIT) -> Iterator[None]:
    """Raises TooLongError inside the block after so many seconds of its own, or of the clock."""

    def on_alarm(number: int, frame: FrameType | None) -> None:
        raise TooLongError(f"longer than {computing} s of computing or {waiting} s")

    timers = {signal.SIGPROF: signal.ITIMER_PROF, signal.SIGALRM: signal.ITIMER_REAL}
    before = {number: signal.signal(number, on_alarm) for number in timers}
    try:
        for timer, seconds in zip(timers.values(), (computing, waiting), strict=True):
            signal.setitimer(timer, seconds)
        yield
    finally:
        for number, timer in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])
