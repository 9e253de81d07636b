"""A cluster that others have started, as docs/clusters.md has it: a fleet takes what joins it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tuning.execution.test_packed_on_ray import LAUNCH, events
from tests.tuning.sweep.test_launch_on_ray import (
    RAY,
    RUN_TUNE,
    answer,
    processes_of,
    run,
    start,
    start_node,
    stop_ray,
    workplace,
)

__all__ = ["workplace"]
pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
WAIT_SECONDS = 240


@pytest.fixture
def cluster(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its address. The token is made first, the mode is set on every machine."""
    monkeypatch.setenv("HOME", str(workplace / "home"))
    made = [str(RAY), "get-auth-token", "--generate"]
    subprocess.run(made, check=True, capture_output=True, timeout=60)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with socket.create_server(("", 0)) as server:
        port = str(server.getsockname()[1])
    start_node(1, "--head", "--port", port)
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    yield f"127.0.0.1:{port}"
    stop_ray()


def refusal(workplace: Path, **changed: str) -> str:
    """The line that a launch ends with, with these variables; empty ones are not set."""
    values = {k: v for k, v in {**os.environ, **changed}.items() if v or k not in changed}
    command = [sys.executable, str(RUN_TUNE), *LAUNCH, "refused"]
    done = subprocess.run(
        command, cwd=workplace, env=values, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert not (workplace / "sweeps").exists()
    (line,) = done.stderr.splitlines()
    return line


def test_a_machine_that_joins_the_cluster_gets_a_host(workplace: Path, cluster: str) -> None:
    told = f"error: `RAY_ADDRESS` is `{cluster}`, which "
    asked = f"{told}asks for a token: `export RAY_AUTH_MODE=token`"
    assert refusal(workplace, RAY_AUTH_MODE="").startswith(asked)
    wrong = f"{told}does not take the token of RAY_AUTH_TOKEN"
    assert refusal(workplace, RAY_AUTH_TOKEN="another").startswith(wrong)
    forever = ("--num_trials", "4", "--num_epochs", "100000", "--set", "execution.hosts=2")
    process = start(workplace, *LAUNCH, "grows", *forever)
    process.wait_for_line("1 of the hosts now, the others when the cluster grows")
    process.wait_for_line(r"epoch 2/")
    assert len(processes_of("RayTrainWorker")) == 1
    start_node(1, "--address", cluster)
    end = time.monotonic() + WAIT_SECONDS
    while len(processes_of("RayTrainWorker")) < 2:
        assert time.monotonic() < end, "no second host"
        time.sleep(0.5)
    before = len(events(workplace, "grows", "epoch"))
    while len(events(workplace, "grows", "epoch")) < before + 40:
        assert time.monotonic() < end, "nothing trains on the two"
        time.sleep(0.5)
    assert len(processes_of("RayTrainWorker")) == 2
    run(workplace, "stop", "grows")
    out, err = process.finish(timeout=60)
    assert "stopped by `stop`" in out, out + err
    told = [(e["trial_id"], e["metrics"]["epoch"]) for e in events(workplace, "grows", "epoch")]
    assert len(told) == len(set(told)), "no epoch is told twice"
    for trial in answer(workplace, "trials", "grows"):
        epochs = [row["epoch"] for row in trial["history"]]
        assert epochs == list(range(1, len(epochs) + 1))
