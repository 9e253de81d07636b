"""Deterministic sweeps on a real Ray cluster: killed, or delayed, they come out the same."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests import chaos
from tests.tuning.sweep.test_launch_on_ray import answer, run, workplace

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


def test_a_sweep_outlives_the_kill_of_driver_host_or_everything(workplace: Path) -> None:
    """The short form of ``python -m tests.chaos``, which kills every kind of process."""
    place = chaos.workplace(workplace / "chaos")
    targets = ("driver", "host", "everything")
    tally = chaos.run(place, kills=3, rng=random.Random(2), targets=targets)
    assert len(tally.kills) >= 3
    assert not tally.faults


def test_delays_in_random_trials_change_nothing(workplace: Path) -> None:
    make_sleepy(workplace / "llm")
    sweep = {**chaos.SWEEP, "num_trials": 12, "scheduler": {"type": "asha"}}
    (workplace / "sweep.yaml").write_text(json.dumps(sweep))
    found = []
    for name in ("first", "second"):
        run(
            workplace, "launch", "--config", "sweep.yaml", "--name", name, "--num_epochs", "9",
            "--set", "train.model.trust_remote_code=true",
        )  # fmt: skip
        trials = answer(workplace, "trials", name)
        found.append([(t["trial_id"], t["params"], t["status"], t["history"]) for t in trials])
    assert len(found[0]) == 12
    assert {status for *_, status, _ in found[0]} == {"finished", "stopped early"}
    assert found[0] == found[1]
