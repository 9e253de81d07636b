"""Whatever fails, the line that a person reads is the error itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.train import ControllerError, WorkerGroupError

from trainables.errors import OutOfMemoryError as TrialOutOfMemory
from trainables.errors import TrialEndedError, UserError
from tuning.execution import failures
from tuning.execution.failures import KILLED, last_line, reason_of
from tuning.sweep.history_writer import _reason

DIED = """The actor died unexpectedly before finishing this task.
\tclass_name: RayTrainWorker
\tactor_id: ec82982b440b03cf1de6997a01000000
\tpid: 15630
\tnamespace: 472d92b4
\tip: 192.0.2.2
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR \
Worker exit detail: {}"""
NO_WORD = (
    "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes "
    "include: (1) the process was killed by the OOM killer due to high memory usage, (2) ..."
)
OOM = """1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: \
192.0.2.2, ID: 39d8) was 4.01GB used / 4.20GB limit (0.95)
OOM kill reason: Memory usage exceeded threshold
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io ..."""
ERR = """:actor_name:RayTrainWorker
*** SIGSEGV received at time=1795673940 on cpu 0 ***
PC: @     0x7f068a174219  (unknown)  (unknown)
Fatal Python error: Segmentation fault

Stack (most recent call first):
  File "/lib/python3.11/site-packages/torch/nn/functional.py", line 519 in linear
  File "/lib/python3.11/site-packages/torch/nn/modules/module.py", line 8 in forward
"""


def task(cause: Exception) -> RayTaskError:
    return RayTaskError("f", f"Traceback (most recent call last):\n{cause}", cause, pid=1, ip="x")


def died(detail: str = NO_WORD) -> RayActorError:
    return RayActorError(None, DIED.format(detail))


FIRE = ValueError("the device is\n  on fire")
SAID = "ValueError: the device is on fire"


class HealthCheck(Exception):  # noqa: N818 - as Ray Train's private one
    def __init__(self, failure: Exception) -> None:
        super().__init__("a worker is not healthy")
        self.health_check_failure = failure


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(failures, "_logs", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FIRE, SAID),
        (task(FIRE), SAID),
        (task(FIRE).as_instanceof_cause(), SAID),
        (WorkerGroupError("[Rank 0]:\nTraceback ...", {1: task(FIRE), 2: KeyError("b")}), SAID),
        (task(WorkerGroupError("...", {0: FIRE})).as_instanceof_cause(), SAID),
        (ControllerError(FIRE), SAID),
        (WorkerGroupError("...", {0: HealthCheck(task(FIRE))}), SAID),
        (MemoryError(), "MemoryError"),
        (UserError("`a.b` is 3"), "`a.b` is 3"),
        (task(TrialEndedError("OSError: no disk")), "OSError: no disk"),
        (TrialOutOfMemory("a step needs 3 GiB", 4), "a step needs 3 GiB"),
        (RayError("Original exception details:\n  File\nOddError: it is"), "OddError: it is"),
        (
            OutOfMemoryError(OOM),
            "Ray ended its process, because memory was short: Memory on the node (IP: 192.0.2.2, "
            "ID: 39d8) was 4.01GB used / 4.20GB limit (0.95)",
        ),
        (
            WorkerGroupError("...", {0: HealthCheck(died())}),
            f"its process (pid 15630 on 192.0.2.2) {KILLED}",
        ),
        (
            died("Worker exits with an exit code 1. The process receives a SIGTERM."),
            "its process (pid 15630 on 192.0.2.2) ended: Worker exits with an exit code 1. The "
            "process receives a SIGTERM.",
        ),
        (RayActorError(None, "The actor died.\nits node was drained"), "its node was drained"),
    ],
)  # fmt: skip
def test_the_reason_is_the_error_itself(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


def test_a_long_message_is_told_by_its_first_and_last_line() -> None:
    text = "\n".join(["Error(s) in loading:", *("x" * 40,) * 20, "size mismatch"])
    assert reason_of(RuntimeError(text)) == "RuntimeError: Error(s) in loading: ... size mismatch"


def test_the_signal_that_ended_a_process_is_named(logs: Path) -> None:
    (logs / "worker-0ab-01000000-115630.err").write_text("*** SIGABRT received")  # another's
    (logs / "worker-0ab-01000000-15630.err").write_text(ERR)
    assert reason_of(died()) == (
        "its process (pid 15630 on 192.0.2.2) was killed by SIGSEGV in linear (functional.py, "
        "line 519)"
    )


def test_of_a_traceback_the_last_line_counts() -> None:
    assert last_line("\x1b[36mray::f()\x1b[39m\n  File\nValueError: no\n\n") == "ValueError: no"
    assert last_line("\n") == ""


class TuneTrial:
    """As much of Ray Tune's trial as tells of its failures, written as Tune does."""

    def __init__(self, directory: Path) -> None:
        self.error_file = str(directory / "error.txt")
        self.pickled_error_file: str | None = str(directory / "error.pkl")

    def fail(self, error: Any) -> None:
        if isinstance(error, RayError):
            Path(str(self.pickled_error_file)).write_bytes(cloudpickle.dumps(error))
        with Path(self.error_file).open("a", encoding="utf-8") as file:
            file.write(f"Failure # 1 (occurred at noon)\n{error}\n")


def test_a_trials_reason_is_read_where_tune_has_written_it(tmp_path: Path) -> None:
    trial: Any = TuneTrial(tmp_path)
    assert _reason(trial) == "the trial's process died"
    trial.fail(task(FIRE))
    assert _reason(trial) == SAID
    trial.fail(died())  # the next attempt
    assert _reason(trial) == f"its process (pid 15630 on 192.0.2.2) {KILLED}"
    trial.fail(RuntimeError("of Tune\nitself"))  # which it does not pickle
    assert _reason(trial) == "itself"
    trial.pickled_error_file = None
    assert _reason(trial) == "itself"
