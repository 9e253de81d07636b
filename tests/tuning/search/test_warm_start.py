"""A new sweep that begins with what another one has found, on another LLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from search_spaces.schema import Choice, FloatRange, IntRange, Range
from tests.conftest import byte_tokenizer
from tests.tuning.history.test_sweeps import epoch, write_sweep
from trainables.errors import UserError
from tuning.config.sweep import ResolvedSweep, load_sweep
from tuning.search.warm_start import nearest, warm_started

HEADS = "model.num_attention_heads"
LARGER_SIZE = 96  # 16 heads, of which the small LLM's best had as many, do not divide it well


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLM of another D, with heads and layers of its own."""
    directory = tmp_path_factory.mktemp("larger")
    config = Qwen2Config(
        vocab_size=300, hidden_size=LARGER_SIZE, intermediate_size=192, num_hidden_layers=3,
        num_attention_heads=6, num_key_value_heads=3, tie_word_embeddings=True, eos_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    return directory


def small_sweep(storage: Path, params: list[dict[str, Any]], status: str = "finished") -> Path:
    events: list[dict[str, Any]] = []
    for number, values in enumerate(params):
        name = f"trial_{number:04d}"
        events += [
            {"event": "trial", "trial_id": name, "params": values, "time": 0},
            {"event": "start", "trial_id": name, "time": 1},
            epoch(name, 1, 1.0 + number),
            {"event": "end", "trial_id": name, "status": status, "time": 9},
        ]
    return write_sweep(storage, "small", events)


def point(rate: float, dropout: float, heads: int) -> dict[str, Any]:
    return {"training.learning_rate": rate, "model.dropout": dropout, HEADS: heads}


def test_learning_rate_and_dropout_are_carried_and_heads_fit_the_other_llm(
    larger: Path, tmp_path: Path
) -> None:
    small = small_sweep(tmp_path, [point(2e-3, 0.05, 16), point(1e-3, 0.3, 2)])
    sweep = ResolvedSweep("large", load_sweep(None, [f"train.model.llm_model={larger}"]))
    warm = warm_started(sweep, small).config
    assert warm.warm_start == [point(2e-3, 0.05, 8), point(1e-3, 0.3, 2)]
    assert all(LARGER_SIZE % params[HEADS] == 0 for params in warm.warm_start)


def test_points_that_become_the_same_are_tried_once(larger: Path, tmp_path: Path) -> None:
    small = small_sweep(tmp_path, [point(2e-3, 0.05, 16), point(2e-3, 0.05, 8)])
    sweep = ResolvedSweep("large", load_sweep(None, [f"train.model.llm_model={larger}"]))
    assert len(warm_started(sweep, small).config.warm_start) == 1


def test_a_sweep_without_a_good_trial_has_nothing_to_give(tmp_path: Path) -> None:
    small = small_sweep(tmp_path, [point(2e-3, 0.05, 16)], status="failed")
    with pytest.raises(UserError, match="no trial of `small` has ended well"):
        warm_started(ResolvedSweep("next", load_sweep(None)), small)


@pytest.mark.parametrize(
    ("spec", "value", "expected"),
    [
        (FloatRange(type="float", low=1e-4, high=1e-2, log=True), 0.5, 1e-2),
        (FloatRange(type="float", low=0, high=0.5, step=0.2), 0.5, 0.4),
        (IntRange(type="int", low=8, high=64, step=8), 21, 24),
        (Choice(type="choice", choices=[1, 2, 4, 8]), 16, 8),
        (Choice(type="choice", choices=[True, False]), False, False),
        (Choice(type="choice", choices=["cosine", "linear"]), "constant", "cosine"),
    ],
)
def test_the_nearest_value_of_a_range(spec: Range, value: Any, expected: Any) -> None:
    assert nearest(spec, value, "key") == expected
