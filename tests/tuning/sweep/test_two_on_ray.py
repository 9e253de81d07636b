"""Two sweeps on one Ray cluster, side by side, each as if it were alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tuning.sweep.test_launch_on_ray import (
    answer,
    run,
    start,
    start_node,
    stop_ray,
    workplace,
)

__all__ = ["workplace"]
pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
LAUNCH = ("launch", "--config", "sweep.yaml", "--set", "execution.hosts=1", "--name")


@pytest.fixture
def cluster(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cluster of three cores that others have started."""
    start_node(3, "--head", "--port", "0")
    yield
    stop_ray()


def results(workplace: Path, name: str) -> list[tuple[str, Any, Any]]:
    trials = answer(workplace, "trials", name)
    return [(t["status"], t["params"], t["history"]) for t in trials]


@pytest.mark.usefixtures("cluster")
def test_two_sweeps_share_a_cluster_and_a_third_of_one_name_is_refused(workplace: Path) -> None:
    both = [start(workplace, *LAUNCH, "one"), start(workplace, *LAUNCH, "two")]
    for process in both:
        out, err = process.finish(timeout=400)
        assert process.returncode == 0, out + err
    again = start(workplace, *LAUNCH, "one")
    assert "the name `one` is already used" in again.finish(timeout=60)[1]
    assert again.returncode == 2
    one, two = (results(workplace, name) for name in ("one", "two"))
    assert [status for status, _, _ in one] == ["finished"] * 3
    assert one == two, "the same file and seed, whoever was beside it"
    (workplace / "sweeps" / "one").rename(workplace / "moved")
    run(workplace, "resume", "moved", "--num_trials", "4")
    assert results(workplace, "moved")[:3] == one
    kept = list((workplace / "moved" / "tune").glob("trial_*/checkpoint_*"))
    assert len(kept) <= 2 * 4
