"""What a sweep changes of its process is put back: variables, log handlers, warnings, signals."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tuning.execution.cluster import ENVIRONMENT, ray_cluster
from tuning.execution.finding_ray import FoundRay
from tuning.execution.process_state import (
    CHATTY,
    SIGNALS,
    environment,
    logged_to,
    signal_handlers_kept,
)


def state() -> dict[str, Any]:
    """All of this process that a sweep might change."""
    return {
        "environment": dict(os.environ),
        "handlers": [list(logging.getLogger(name).handlers) for name in CHATTY],
        "propagate": [logging.getLogger(name).propagate for name in CHATTY],
        "filters": list(warnings.filters),
        "shown by": warnings.showwarning,
        "signals": [signal.getsignal(number) for number in SIGNALS],
    }


def test_variables_are_there_inside_the_block_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "before")
    monkeypatch.setenv("REMOVED", "before")
    before = dict(os.environ)
    with contextlib.suppress(KeyError), environment({"KEPT": "inside", "ADDED": "inside"}):
        assert (os.environ["KEPT"], os.environ["ADDED"]) == ("inside", "inside")
        os.environ["BY_RAY"] = "inside"
        del os.environ["REMOVED"]
        raise KeyError
    assert dict(os.environ) == before


def test_what_is_logged_inside_the_block_goes_to_the_file(tmp_path: Path) -> None:
    log, own = logging.getLogger("ray"), logging.NullHandler()
    log.addHandler(own)
    before = state()
    with logged_to(tmp_path / "logs" / "ray.log"):
        log.warning("from Ray")
        warnings.warn("from Python", stacklevel=1)
        log.handlers.clear()  # as `ray.init` does
    assert state() == before
    assert own in log.handlers
    log.removeHandler(own)
    text = (tmp_path / "logs" / "ray.log").read_text()
    assert "from Ray" in text
    assert "from Python" in text


def test_a_program_that_logs_its_warnings_goes_on_with_that(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        logging.captureWarnings(True)
        before = state()
        with logged_to(tmp_path / "ray.log"):
            pass
        assert state() == before
        logging.captureWarnings(False)


def test_signal_handlers_are_put_back_where_they_may_be() -> None:
    before = state()
    with signal_handlers_kept():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert state() == before
    problems: list[BaseException] = []

    def elsewhere() -> None:
        try:
            with signal_handlers_kept():
                pass
        except BaseException as error:  # noqa: BLE001 - told to the test
            problems.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert not problems


@pytest.mark.parametrize("starts", [True, False])
def test_a_cluster_leaves_the_process_as_it_was(
    starts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, str]] = []

    def init(**options: Any) -> SimpleNamespace:
        seen.append({name: os.environ[name] for name in ENVIRONMENT})
        os.environ["RAY_AUTH_MODE"] = "token"
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        logging.getLogger("ray").handlers.clear()
        if not starts:
            raise OSError("no port is free")
        return SimpleNamespace(dashboard_url="")

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    chosen = {"TUNE_DISABLE_SIGINT_HANDLER": "0"}  # by the user: it counts
    monkeypatch.setenv(*chosen.popitem())
    before = state()
    for _ in range(2):
        log = tmp_path / "logs" / "ray.log"
        with contextlib.suppress(Exception), ray_cluster(FoundRay("local"), log) as cluster:
            assert cluster.slots == 2
        assert state() == before
    assert seen == [ENVIRONMENT | {"TUNE_DISABLE_SIGINT_HANDLER": "0"}] * 2
