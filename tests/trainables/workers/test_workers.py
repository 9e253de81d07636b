"""The Ray Train worker's loop, here without a cluster: what it computes, reports and leaves out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.train

from tests.conftest import ConfigMaker
from trainables.errors import DivergedError
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.frozen import FrozenLLM
from trainables.training.checkpoint_files import read_meta
from trainables.training.pretraining import Pretraining
from trainables.training.reports import from_plain
from trainables.workers import dedicated
from trainables.workers.dedicated import WorkerSettings, train_worker


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch, inputs: SharedInputs, tmp_path: Path) -> list[Any]:
    """A context of one worker; reports and the epochs of their checkpoints are collected."""
    collected: list[Any] = []

    def report(metrics: dict[str, Any], checkpoint: Any = None) -> None:
        meta = read_meta(Path(checkpoint.path)) if checkpoint else None
        collected.append((from_plain(json.loads(json.dumps(metrics))), meta))

    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)
    monkeypatch.setattr(ray.train, "report", report)
    monkeypatch.setattr(dedicated, "get_inputs", lambda reference: inputs)
    return collected


def settings(make_config: ConfigMaker, **values: Any) -> dict[str, Any]:
    return {"settings": WorkerSettings(make_config(**values), inputs=None)}


def test_a_host_asks_ray_which_gpu_is_its_own() -> None:
    """In a process that has imported only what a host has; outside of a run Ray refuses to say."""
    program = """
import torch
from trainables.workers.environment import own_device
torch.cuda.is_available = lambda: True
own_device()
"""
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "`get_device` cannot be used outside of a Ray Train" in asked.stderr


def test_no_trial_encodes_descriptions_or_tokenises(
    make_config: ConfigMaker, reports: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"descriptions": 0, "tokenizer": 0}

    def count(name: str) -> Any:
        def counted(*arguments: Any, **options: Any) -> None:
            counts[name] += 1

        return counted

    monkeypatch.setattr(FrozenLLM, "last_token_states", count("descriptions"))
    monkeypatch.setattr(FrozenLLM, "tokenizer", property(count("tokenizer")))
    train_worker(settings(make_config))
    assert len(reports) == 3
    assert counts == {"descriptions": 0, "tokenizer": 0}


def test_every_epoch_is_reported_with_its_checkpoint(
    make_config: ConfigMaker, reports: list[Any]
) -> None:
    train_worker(settings(make_config))
    assert [told.status for told, _ in reports] == ["running", "running", "finished"]
    assert [meta["epoch"] for _, meta in reports] == [1, 2, 3]
    assert [len(meta["history"]) for _, meta in reports] == [1, 2, 3]


def test_a_diverging_run_says_so_in_its_last_report(
    make_config: ConfigMaker, reports: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Pretraining._evaluated

    def diverge_in_epoch_two(self: Pretraining) -> dict[str, Any]:
        if self.run.epoch == 1:
            raise DivergedError("loss is nan at step 7", 7)
        return whole(self)

    monkeypatch.setattr(Pretraining, "_evaluated", diverge_in_epoch_two)
    train_worker(settings(make_config))
    ending, meta = reports[-1]
    assert (ending.status, ending.message) == ("diverged", "loss is nan at step 7")
    assert (ending.epoch, ending.last, meta) == (1, True, None)
