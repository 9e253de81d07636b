"""Why a trial, a host or a fleet failed, in one line: the error itself, not what Ray wraps it in.

The mailbox's process must not load Ray Tune, and nor does this module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import ray
from ray.exceptions import RayError, RayTaskError

from trainables.errors import TrialEndedError, UserError, one_line

MOST = 300  # characters of one error; longer ones are told by their first and last line
# Ray Train's errors hold others, by these names: of workers by rank, of a controller, of a look
# whether a worker lives.
INSIDE = ("worker_failures", "controller_failure", "health_check_failure")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
SHORT_OF_MEMORY = re.compile(r"Memory on the node[^\n]*")
DEATH = re.compile(r"Worker exit detail: ([^\n]+)")
WITHOUT_A_WORD = "Worker unexpectedly exits with a connection error"
KILLED = "ended without a word, as by SIGKILL; the system does that when memory is short"
PID, ADDRESS = re.compile(r"^\s*pid: (\d+)$", re.M), re.compile(r"^\s*ip: (\S+)$", re.M)
SIGNAL = re.compile(r"\*\*\* (SIG\w+) received")
PLACE = re.compile(r'most recent call first\):\n\s*File "([^"]+)", line (\d+) in (\S+)')


def reason_of(error: BaseException) -> str:
    """``RuntimeError: what went wrong``, or what became of a process that could not say it."""
    while (inner := _inside(error)) is not None:
        error = inner
    text = COLOURS.sub("", str(error)).strip()
    if isinstance(error, TrialEndedError | UserError):
        return one_line(text)
    if isinstance(error, RayError):
        return _of_ray(text) or type(error).__name__
    return f"{type(error).__name__}: {_shortly(text)}" if text else type(error).__name__


def last_line(text: str) -> str:
    """Of a traceback: the error's own."""
    lines = [line.strip() for line in COLOURS.sub("", text).splitlines() if line.strip()]
    return one_line(lines[-1]) if lines else ""


def _inside(error: BaseException) -> BaseException | None:
    if isinstance(error, RayTaskError):
        return error.cause if isinstance(error.cause, BaseException) else None
    for name in INSIDE:
        held = getattr(error, name, None)
        if isinstance(held, Mapping):
            held = next((held[rank] for rank in sorted(held)), None)
        if isinstance(held, BaseException):
            return held
    return None


def _of_ray(text: str) -> str:
    """Of a process that Ray has lost; everything else is what it says last."""
    if found := SHORT_OF_MEMORY.search(text):
        return f"Ray ended its process, because memory was short: {one_line(found[0])}"
    if found := DEATH.search(text):
        pid, address = PID.search(text), ADDRESS.search(text)
        where = f" (pid {pid[1]} on {address[1]})" if pid and address else ""
        if not found[1].startswith(WITHOUT_A_WORD):
            return f"its process{where} ended: {one_line(found[1])}"
        how = _last_words(int(pid[1])) if pid else ""
        return f"its process{where} {how or KILLED}"
    return last_line(text)


def _logs() -> Path:
    context = ray.get_runtime_context()
    return Path(context.get_temp_dir(), context.get_session_name(), "logs")


def _last_words(pid: int) -> str:
    """What a process of this machine wrote down when a signal ended it, and where it was then."""
    logs = _logs()
    files = sorted(logs.glob(f"worker-*-{pid}.err"), key=lambda path: path.stat().st_mtime)
    text = files[-1].read_text(encoding="utf-8", errors="replace") if files else ""
    signals = SIGNAL.findall(text)
    if not signals:
        return ""
    place = PLACE.search(text)
    where = f" in {place[3]} ({Path(place[1]).name}, line {place[2]})" if place else ""
    return f"was killed by {signals[-1]}{where}"


def _shortly(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    whole = one_line(" ".join(lines))
    return (
        whole if len(whole) <= MOST or len(lines) < 2 else one_line(f"{lines[0]} ... {lines[-1]}")
    )
