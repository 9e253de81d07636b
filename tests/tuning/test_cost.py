"""What ``validate`` says a sweep will cost, of any LLM of which anything is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from search_spaces.schema import SearchSpace
from tests.conftest import ConfigMaker
from tests.trainables.training.test_startup_time import QWEN_7B
from trainables.config import PretrainConfig
from trainables.inputs.checked_data import read_data
from trainables.llm.location import config_file
from tuning.config.sweep import NoScheduler, SweepConfig, load_sweep
from tuning.cost import describe_sweep, estimate_cost


def sweep(train: PretrainConfig) -> SweepConfig:
    changes = {"train": train, "scheduler": NoScheduler(type="none"), "num_trials": 2}
    return load_sweep(None).model_copy(update=changes)


def large(make_config: ConfigMaker, directory: Path) -> PretrainConfig:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(QWEN_7B))
    (directory / "model.safetensors").touch()
    return make_config(model__llm_model=str(directory))


def test_the_cost_is_that_of_the_shapes(make_config: ConfigMaker, tmp_path: Path) -> None:
    train = large(make_config, tmp_path / "large")
    data = read_data(train)
    cost = estimate_cost(sweep(train), data)
    assert cost.hidden_size == 3584
    assert cost.llm_parameters == pytest.approx(7.6e9, rel=0.01)
    rows = 2 * len(data.train_rows) + len(data.val_rows)  # forward and backward; forward
    per_token = 2 * 7.07e9  # the table of input embeddings is only read
    tokens = (cost.flops or 0) / per_token / rows / (2 * train.training.num_epochs)
    assert 20 < tokens < 60, "tokens of a target text"


def test_a_large_llm_is_also_estimated_for_a_gpu(
    make_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuning.cost._on_gpu", lambda: False)
    train = large(make_config, tmp_path / "large")
    text = "\n".join(describe_sweep(sweep(train), read_data(train)))
    assert "about 7,615.3 M parameters, 28 GiB in fp32 on every host" in text
    assert "cores (measured: " in text
    assert "one H100 (assumed: 30% of its 989 TFLOP/s" in text
    small = make_config()
    text = "\n".join(describe_sweep(sweep(small), read_data(small)))
    assert "H100" not in text


def test_values_are_listed_where_a_step_leaves_out_an_upper_bound(make_config: ConfigMaker) -> None:
    stepped = {
        "model.dropout": {"type": "float", "low": 0, "high": 0.5, "step": 0.2},
        "training.warmup_ratio": {"type": "float", "low": 0, "high": 0.3, "step": 0.1},
        "training.batch_size": {"type": "int", "low": 1, "high": 9, "step": 5},
        "training.weight_decay": {"type": "float", "low": 0, "high": 1, "step": 0.03},
    }
    train = make_config()
    config = sweep(train).model_copy(update={"search_space": SearchSpace.model_validate(stepped)})
    lines = describe_sweep(config, read_data(train))
    assert [line for line in lines if " on a step of " in line] == [
        "search       model.dropout: 0, 0.2, 0.4 (0.5 is not on a step of 0.2)",
        "search       training.batch_size: 1, 6 (9 is not on a step of 5)",
        "search       training.weight_decay: 0, 0.03, 0.06, ..., 0.99 (1 is not on a step of 0.03)",
    ]


def test_of_a_hub_id_that_is_not_cached_what_is_unknown_is_said(make_config: ConfigMaker) -> None:
    train = make_config(model__llm_model="nobody/unheard-of")
    lines = describe_sweep(sweep(train), read_data(train))
    assert "how large it is will be known after its download" in lines[0]
    assert any("unknown FLOP" in line for line in lines)
    assert any(line == "time         unknown before the LLM is here" for line in lines)


def test_a_cached_configuration_is_enough_for_an_estimate(make_config: ConfigMaker) -> None:
    """What the check of the heads has fetched of a hub id: no weights."""
    train = make_config(model__llm_model="somebody/seven-billion")
    repository = Path(train.model.cache_dir) / "models--somebody--seven-billion"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    (snapshot / "config.json").write_text(json.dumps(QWEN_7B))
    assert config_file(train.model) == snapshot / "config.json"
    cost = estimate_cost(sweep(train), read_data(train))
    assert (cost.hidden_size, cost.flops is None) == (3584, False)
