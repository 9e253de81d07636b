"""An LLM whose weights are bad is refused by the first host, before any trial begins."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.trainables.llm.broken_llms import BROKEN
from tests.tuning.sweep.test_launch_on_ray import Command, start, workplace

__all__ = ["workplace"]
pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


def test_the_first_host_refuses_bad_weights_before_any_trial_begins(workplace: Path) -> None:
    """A copy with random weights, probed beside Ray's start, cannot know of them."""
    shutil.copytree(workplace / "llm", workplace / "cut_off")
    weights = workplace / "cut_off" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    BROKEN["a NaN"].break_it(workplace / "llm")
    launch = ("launch", "--config", "sweep.yaml", "--name")
    cut_off = start(workplace, *launch, "cut", "--set", "train.model.llm_model=cut_off")
    refused(workplace, start(workplace, *launch, "bad"), "bad", BROKEN["a NaN"].said)
    refused(workplace, cut_off, "cut", "no causal LM could be loaded")
    assert not (workplace / "hub").exists(), "nothing is kept of them"


def refused(workplace: Path, process: Command, name: str, said: str) -> None:
    out, err = process.finish(timeout=200)
    assert process.returncode == 2, out + err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert said in err
    assert "[4/4]" not in out
    assert not (workplace / "sweeps" / name).exists()
