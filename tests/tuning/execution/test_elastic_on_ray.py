"""A fleet on a cluster that others have started takes the machines that join it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tuning.execution.test_packed_on_ray import LAUNCH, events
from tests.tuning.sweep.test_launch_on_ray import (
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
WAIT_SECONDS = 240  # Ray Train looks for new machines once a minute


@pytest.fixture
def cluster(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(
        "RAY_AUTH_MODE", "disabled"
    )  # a second node would need the first one's token
    start_node(1, "--head", "--port", "0")
    yield
    stop_ray()


@pytest.mark.usefixtures("cluster")
def test_a_machine_that_joins_the_cluster_gets_a_host(workplace: Path) -> None:
    forever = ("--num_trials", "4", "--num_epochs", "100000", "--set", "execution.hosts=2")
    process = start(workplace, *LAUNCH, "grows", *forever)
    process.wait_for_line("1 of the hosts now, the others when the cluster grows")
    process.wait_for_line(r"epoch 2/")
    assert len(processes_of("RayTrainWorker")) == 1
    start_node(1, "--address", "auto")
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
