"""How a person calls our programs from where they stand, and where the answers go."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from trainables.errors import UserError

Say = Callable[[str], None]  # tells the person who has started it one line
DEFAULT_STORAGE = "sweeps"
PROJECT = Path(__file__).parents[1]
RUN_TUNE = PROJECT / "run_tune.py"


def shown_path(path: Path) -> str:
    """Relative to the working directory where it lies below it."""
    path, here = path.absolute(), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def program(name: str) -> str:
    """``name`` if the shell finds the one of this environment by it, else its path."""
    own = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    return name if found and Path(found) == own else shown_path(own)


def run_tune(*arguments: str) -> str:
    """The command line ``python run_tune.py ...`` as it works from here."""
    return shlex.join([program("python"), shown_path(RUN_TUNE), *arguments])


def run_tune_on(sweep: Path, command: str) -> str:
    """The command line for a sweep's directory."""
    storage = shown_path(sweep.parent)
    where = [] if storage == DEFAULT_STORAGE else ["--storage", storage]
    return run_tune(command, sweep.name, *where)


def prepare_terminal() -> None:
    """A place to stand on and to write to, whatever this process was started with."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # terminals without a Greek alpha
    try:
        Path.cwd()
    except OSError as error:
        raise UserError(
            f"the working directory is gone ({error.strerror}); change to one that exists"
        ) from None


def output_is_broken() -> bool:
    """Whether standard output takes no more; then nothing is written to it from here on."""
    try:
        print(flush=True)  # flushing is not enough: there may be no buffer
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


_live: list[Console] = []  # that of the table that is on the terminal now, if one is


@contextlib.contextmanager
def live_on(console: Console) -> Iterator[None]:
    """In this block a table is drawn again and again: what is said stands above it."""
    _live.append(console)
    try:
        yield
    finally:
        _live.remove(console)


def say_on_stdout() -> Say:
    """Bound to this moment's stdout: while Ray runs, what others print goes to a file.

    Where it cannot be written, a full disk perhaps, nobody hears it, and the sweep goes on.
    """
    stream = sys.stdout

    def say(line: str) -> None:
        with contextlib.suppress(OSError):
            if _live:
                _live[-1].print(line, soft_wrap=True)
            else:
                print(line, file=stream, flush=True)

    return say


PLAIN_WIDTH = 140  # a row of the table with three parameters


def make_console() -> Console:
    """Standard output; where it is no terminal, wide enough for a row of the table."""
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    return Console(file=sys.stdout, highlight=False, markup=False, width=width)


def short_params(params: Mapping[str, Any]) -> str:
    """``learning_rate 0.00123, dropout 0.2``, keys without their section."""
    return ", ".join(f"{k.rpartition('.')[2]} {_shown(v)}" for k, v in params.items())


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def shown_number(value: Any, digits: int = 4) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "-"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
