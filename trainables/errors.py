"""The errors a user can cause, each with a message that says what to do."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence

from trainables.names import difference, nearest
from trainables.statuses import Status

MAX_MESSAGE = 1500  # some libraries put whole files into their messages


class UserError(Exception):
    """Wrong input or environment: shown as ``error: ...``, exit status 2.

    As text it is one line. ``lines`` is what a terminal shows: with ``faults``, the message and
    then each of them on a line of its own.
    """

    def __init__(self, message: str, faults: Sequence[str] = ()) -> None:
        self.lines = (one_line(message), *(f"  {one_line(fault)}" for fault in faults))
        super().__init__(one_line(f"{message} {'; '.join(faults)}" if faults else message))


class ConfigError(UserError):
    """A configuration file, key or value that cannot be used."""


class DataError(UserError):
    """A tool registry or profiling table that cannot be used."""


class LLMError(UserError):
    """A language model that cannot be found or loaded."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged or of another format."""


class TrialEndedError(Exception):
    """A trial that cannot go on. ``status`` is the word a person sees.

    Raised by the training step before the update that would have spoiled the weights.
    """

    status = Status.FAILED

    def __init__(self, message: str, step: int = -1) -> None:
        super().__init__(message)
        self.message = message
        self.step = step

    def __reduce__(self) -> tuple[type, tuple[str, int]]:
        return type(self), (self.message, self.step)


class DivergedError(TrialEndedError):
    """Loss or gradient stopped being finite."""

    status = Status.DIVERGED


class OutOfMemoryError(TrialEndedError):
    """The device had no memory left for this trial."""

    status = Status.OUT_OF_MEMORY


class GateStuckError(TrialEndedError):
    """The gate cannot open, and ``training.stop_stuck_gates`` ends such trainings."""

    status = Status.STOPPED_EARLY


def one_line(message: str) -> str:
    """Line breaks become blanks, what cannot be seen is escaped, and a long middle left out."""
    line = " ".join(message.splitlines())
    if len(line) > MAX_MESSAGE:
        line = f"{line[: MAX_MESSAGE // 2]} ... {line[-MAX_MESSAGE // 2 :]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def how_it_ended(status: int) -> str:
    """``was killed by SIGKILL`` or ``ended with status 1``, of a process's exit status."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` (did you mean `x`?)`` for the nearest of ``known``, or an empty string.

    Where the two look alike it says in which characters they differ.
    """
    near = nearest(name, known)
    if near is None:
        return ""
    found = difference(name, near)
    return f" (did you mean `{near}`?{f' {found}' if found else ''})"
