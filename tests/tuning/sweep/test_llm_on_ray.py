"""An LLM whose weights are bad is refused by the first host, before any trial begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainables.llm.broken_llms import BROKEN
from tests.tuning.sweep.test_launch_on_ray import start, workplace

__all__ = ["workplace"]
pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


def test_the_first_host_refuses_bad_weights_before_any_trial_begins(workplace: Path) -> None:
    """A copy with random weights, probed beside Ray's start, cannot know of them."""
    BROKEN["a NaN"].break_it(workplace / "llm")
    process = start(workplace, "launch", "--config", "sweep.yaml", "--name", "bad")
    out, err = process.finish(timeout=200)
    assert process.returncode == 2, out + err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert BROKEN["a NaN"].said in err
    assert "[4/4]" not in out
    assert not (workplace / "sweeps" / "bad").exists()
    assert not (workplace / "hub").exists(), "nothing is kept of it"
