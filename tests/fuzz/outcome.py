"""One input given to the command line, and what became of it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from unittest.mock import patch

from tests.conftest import write_data
from tests.fuzz.inputs import as_yaml, sweep_base
from tests.fuzz.llm_directories import KEPT, LLM
from tests.fuzz.pieces import Case
from tests.fuzz.without_training import make_and_check
from trainables.config import PretrainConfig
from trainables.data.faults import MOST_SHOWN
from trainables.errors import UserError
from trainables.inputs.probing import try_out
from tuning.cli import main
from tuning.terminal import PROJECT

# Seconds; nothing that is only checked takes so long, on however busy a machine.
TOO_LONG = 10
TOO_LONG_TO_WAIT = 900
# Of a process of its own, which asks the network as well.
TOO_LONG_APART = 120


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
        arguments, files = case.arguments, case.files
        for name, content in files.items():
            path = self._directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        before = self._listing()
        start = computed()
        try:
            if case.environment is None:
                status, err = run(arguments, trained=case.trained)
            else:
                status, err = run_in(case.environment, arguments, self._directory)
            tally.slowest = max(tally.slowest, computed() - start)
            self._judge(status, err, before)
        except BaseException as error:
            what = f"{arguments} {dict(case.environment or {})}"
            tally.wrong.append(f"{what}: {''.join(traceback.format_exception(error))[-3000:]}")
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
        found = self._directory.rglob("*")
        return {path for path in found if KEPT not in path.relative_to(self._directory).parts}

    def _restore(self, files: Mapping[str, bytes]) -> None:
        for made in ("sweeps", "made", "out", KEPT, LLM):
            shutil.rmtree(self._directory / made, ignore_errors=True)
        for name in files:
            (self._directory / name).unlink(missing_ok=True)
            if name in self._good:
                (self._directory / name).write_bytes(self._good[name])


def computed() -> float:
    """Seconds, those of the processes that were waited for among them."""
    return sum(os.times()[:4])


def count_of(faults: list[str]) -> int:
    """How many there are by what is told of them."""
    more = re.fullmatch(r"  and (\d+) more", faults[-1])
    return len(faults) - 1 + int(more[1]) if more else len(faults)


def run(arguments: list[str], *, trained: bool = False) -> tuple[int, str]:
    """``validate``, then ``launch`` up to the training: exit status and standard error.

    ``trained``: then ``train``, and what a launch probes beside Ray must take the LLM as well.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        patch("trainables.inputs.probing.Probing", ProbedHere),
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
    if status == 0 and trained:
        _train(arguments)
    return status, err.getvalue()


def _train(arguments: list[str]) -> None:
    """What was accepted trains; raises AssertionError with what was said instead."""
    sets = [text.replace("--set=train.", "--set=") for text in arguments if "--set=" in text]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), limited(TOO_LONG):
        data = "data={tool_registry: tools.json, profiling_data: profiling.csv}"
        sizes = ["--batch_size=16", "--num_epochs=1", "--output_dir=out"]
        status = main(["train", *sizes, f"--set={data}", *sets])
    # With random weights a loss may be beyond all numbers after a step; that is said, too.
    assert status == 0 or "diverged" in err.getvalue(), f"validated, not trained: {err.getvalue()}"
    shutil.rmtree("out", ignore_errors=True)


class ProbedHere:
    """The probe without a process of its own, which would load torch again each time."""

    def __init__(self, config: PretrainConfig, *, whole: bool) -> None:
        self._config = config

    def wait(self) -> None:
        """The LLM itself, then the copy that is probed beside Ray, which must take it as well."""
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            try_out(self._config, whole=True)
            try:
                try_out(self._config, whole=False)
            except UserError as error:
                raise AssertionError(f"the LLM is taken, its copy is not: {error}") from error

    def close(self) -> None:
        """There is no process to end."""


def run_in(
    environment: Mapping[str, str | None], arguments: list[str], directory: Path
) -> tuple[int, str]:
    """``launch`` up to the training in a process of its own, which has found its Ray by then."""
    given = {**os.environ, **environment, "PYTHONPATH": str(PROJECT)}
    with tempfile.TemporaryDirectory() as home:
        if "HOME" not in environment:
            given["HOME"] = home  # whatever libraries put there is no concern of ours
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.in_environment", "launch", *arguments],
            env={name: value for name, value in given.items() if value is not None},
            cwd=directory,
            capture_output=True,
            timeout=TOO_LONG_APART,
            check=False,
        )
    return done.returncode, done.stderr.decode(errors="replace")


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
