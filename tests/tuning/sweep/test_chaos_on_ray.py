"""A deterministic sweep on a real Ray cluster: killed and delayed, it comes out the same."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests import chaos
from tests.benchmarks.test_search import assert_as_simulated
from tests.tuning.sweep.test_launch_on_ray import answer, workplace

__all__ = ["workplace"]
pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

SLEEPY = """
import random, time
from transformers import Qwen2ForCausalLM

class SleepyForCausalLM(Qwen2ForCausalLM):
    def __init__(self, config):
        super().__init__(config)
        self.rng = random.Random(time.time_ns())
        self.model.register_forward_hook(self.sleep)

    def sleep(self, module, args, output):
        if self.rng.random() < 0.1:
            time.sleep(self.rng.expovariate(20.0))
        return output
"""


def make_sleepy(llm: Path) -> None:
    """A model with code of its own that now and then takes a while, never twice alike."""
    (llm / "sleepy.py").write_text(SLEEPY)
    config = json.loads((llm / "config.json").read_text())
    config["architectures"] = ["SleepyForCausalLM"]
    config["auto_map"] = {"AutoModelForCausalLM": "sleepy.SleepyForCausalLM"}
    (llm / "config.json").write_text(json.dumps(config))


def test_neither_kills_nor_delays_change_anything(workplace: Path) -> None:
    """The short form of ``python -m tests.chaos``, which kills every kind of process.

    What the benchmark of searches simulates is what happened. Random trials are held up as well,
    in the sweep that nobody kills, too.
    """
    place = chaos.workplace(workplace / "chaos", trials=12)
    make_sleepy(place / "llm")
    sweep = json.loads((place / "sweep.yaml").read_text())
    sweep["train"]["model"]["trust_remote_code"] = True
    sweep["train"]["training"]["num_epochs"] = 12  # rungs at 1, 3 and 9
    (place / "sweep.yaml").write_text(json.dumps(sweep))
    targets = ("driver", "host", "everything")
    tally = chaos.run(place, kills=3, rng=random.Random(2), targets=targets)
    assert len(tally.kills) >= 3
    assert not tally.faults
    assert_as_simulated(place / "sweeps" / "calm")
    calm = answer(place, "trials", "calm")
    assert len(calm) == 12
    assert {trial["status"] for trial in calm} == {"finished", "stopped early"}
