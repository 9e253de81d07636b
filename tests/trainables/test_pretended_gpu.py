"""The whole GPU branch on a GPU that is not there: figures as on the CPU, and nobody waits."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

# The norm of the gradients is added up in another order there.
ROUNDING = 1e-6
LEFT_OUT = {"trainables/migration/checkpoint.py"}  # old checkpoints are raised where they lie

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def told() -> Any:
    """What a process with such a GPU has come to."""
    command = [sys.executable, "-m", "tests.trainables.on_a_pretended_gpu"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_a_packed_host_gives_the_figures_of_the_cpu(told: Any) -> None:
    assert told["selected"] == "cuda"
    assert told["gpu"]["losses"].keys() == told["cpu"]["losses"].keys()
    for key, losses in told["cpu"]["losses"].items():
        assert told["gpu"]["losses"][key] == pytest.approx(losses, rel=ROUNDING)
        # Before any update; not the same bits on every CPU, whose kernels may add by the batch.
        assert told["gpu"]["losses"][key][0] == pytest.approx(losses[0], rel=4 * 2**-23)
    for key, epochs in told["cpu"]["figures"].items():
        for found, figures in zip(told["gpu"]["figures"][key], epochs, strict=True):
            assert found[:2] == pytest.approx(figures[:2], rel=1e-5)


def test_texts_are_decoded(told: Any) -> None:
    (*_, decoded), (*_, wanted) = (told[device]["figures"]["two"][-1] for device in ("gpu", "cpu"))
    assert decoded == wanted
    assert wanted is not None


def test_a_run_goes_on_from_its_checkpoint(told: Any) -> None:
    for key, losses in told["gpu"]["losses"].items():
        later = told["going_on"][key]
        assert later == pytest.approx(losses[-len(later) :], rel=ROUNDING)
        assert 0 < len(later) < len(losses)


def test_a_worker_of_its_own_gives_the_figures_of_a_lane(told: Any) -> None:
    assert told["alone"] == pytest.approx(told["cpu"]["losses"]["two"], rel=1e-4)
    assert told["nccl"] == "nccl"


def test_a_lane_takes_the_bytes_that_it_takes_on_a_cpu(told: Any) -> None:
    assert told["lane"] == pytest.approx(told["cpu"]["lane"])
    assert told["plan"] == "in one pass: a lane needs 8 MiB, 16384 MiB are free"
    assert told["startup"]["load"] > 0


def test_a_joint_step_waits_for_nothing(told: Any) -> None:
    waits = told["waits"]
    assert waits["lanes"] == 3
    assert waits["reads"] == waits["blocking_copies"] == {}
    assert sum(waits["copies"].values()) == 1, "one, from pinned memory, for all lanes"


def test_a_diverged_run_changes_nothing_and_disturbs_nobody(told: Any) -> None:
    assert told["diverged"]["ended"] == 0, "nobody can see it without waiting"
    assert told["diverged"]["unchanged"]
    assert "loss is nan at step 2" in told["diverged"]["said"]
    assert told["diverged"]["other"] == 2


def test_every_condition_that_asks_for_the_device_is_asked(told: Any) -> None:
    assert told["conditions"] > 20
    assert {place.split(":")[0] for place in told["missing"]} == LEFT_OUT
    assert len(told["missing"]) <= 0.05 * told["conditions"]
