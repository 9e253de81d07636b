"""A new sweep that begins with what another one has found, on another LLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from tests.conftest import byte_tokenizer
from tests.tuning.history.test_sweeps import epoch, write_sweep
from trainables.errors import UserError
from tuning.config.sweep import ResolvedSweep, load_sweep
from tuning.search.warm_start import warm_started

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


def test_what_is_carried_lies_in_the_new_range(tmp_path: Path) -> None:
    """Values beside a bound or a step are brought onto it; conditions hold for what they become."""
    small = small_sweep(tmp_path, [{"model.dropout": 0.30000000000000004, HEADS: 5}])
    space = (
        "search_space={model.dropout: {type: float, low: 0, high: 0.5, step: 0.1}, "
        f"{HEADS}: {{type: int, low: 2, high: 5, step: 2, when: {{model.dropout: 0.3}}}}}}"
    )
    sweep = ResolvedSweep("next", load_sweep(None, [space]))
    assert warm_started(sweep, small).config.warm_start == [
        {"model.dropout": pytest.approx(0.3), HEADS: 4}
    ]


def test_what_is_no_number_cannot_be_carried(tmp_path: Path) -> None:
    small = small_sweep(tmp_path, [{"training.learning_rate": [1], HEADS: 2}])
    with pytest.raises(UserError, match=r"`training.learning_rate` was \[1\], of which no number"):
        warm_started(ResolvedSweep("next", load_sweep(None)), small)
