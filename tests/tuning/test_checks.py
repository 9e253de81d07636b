"""What is asked of a network, and when: never while a file is read, and only what D needs."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from trainables.config import ModelConfig
from trainables.errors import LLMError
from tuning import checks
from tuning.checks import settle_llm
from tuning.config.space import HEADS
from tuning.config.sweep import SweepConfig, load_sweep


@pytest.fixture
def of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepConfig:
    """A sweep on a model of the hub of which nothing is here, read while nothing can be asked."""

    def refuse(*arguments: Any) -> None:
        raise AssertionError("a network was asked")

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        model = ["train.model.llm_model=some/model", f"train.model.cache_dir={tmp_path / 'hub'}"]
        return load_sweep(None, model)


def test_reading_a_sweep_asks_no_network(of_the_hub: SweepConfig) -> None:
    assert of_the_hub.search_space.root[HEADS].choices == "auto"  # type: ignore[union-attr]


def test_the_hub_is_asked_before_a_sweep_starts(
    of_the_hub: SweepConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(config: ModelConfig) -> int:
        """As the hub's client leaves it in the cache."""
        asked.append(config.llm_model)
        cached = tmp_path / "hub" / "models--some--model"
        (cached / "refs").mkdir(parents=True)
        (cached / "refs" / "main").write_text("abc")
        (cached / "snapshots" / "abc").mkdir(parents=True)
        (cached / "snapshots" / "abc" / "config.json").write_text(json.dumps({"hidden_size": 48}))
        return 48

    monkeypatch.setattr(checks, "check_available", lambda config: None)
    monkeypatch.setattr(checks, "llm_hidden_size", fetch)
    settled = settle_llm(of_the_hub)
    assert settled.search_space.root[HEADS].choices == [1, 2, 4]  # type: ignore[union-attr]
    assert settle_llm(settled) == settled
    assert asked == ["some/model"], "once"


def test_a_hub_out_of_reach_is_told_before_anything_starts(
    of_the_hub: SweepConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(LLMError, match=r"`model\.llm_model` is `some/model`: no directory"):
        settle_llm(of_the_hub)
