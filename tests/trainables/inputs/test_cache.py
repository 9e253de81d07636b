"""Shared inputs on disk: what comes back is what went in, or nothing."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ConfigMaker
from trainables.inputs.cache import ARRAYS, load_prepared, prepared_path, save_prepared
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.frozen import FrozenLLM, select_dtype
from trainables.llm.precision import llm_precision


def test_what_was_saved_comes_back(inputs: SharedInputs, tmp_path: Path) -> None:
    save_prepared(inputs, tmp_path / "cache" / "x.safetensors")
    found = load_prepared(tmp_path / "cache" / "x.safetensors")
    assert found is not None
    for field in fields(SharedInputs):
        a, b = getattr(inputs, field.name), getattr(found, field.name)
        same = np.array_equal(a, b) and a.dtype == b.dtype if field.name in ARRAYS else a == b
        assert same, field.name


@pytest.mark.parametrize("damage", ["none there", "truncated", "other content"])
def test_what_is_not_whole_is_prepared_again(
    damage: str, inputs: SharedInputs, tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    if damage != "none there":
        save_prepared(inputs, path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"{}" * 50)
    assert load_prepared(path) is None


def test_everything_that_goes_in_has_a_path_of_its_own(
    make_config: ConfigMaker, tmp_path: Path
) -> None:
    base = make_config()
    other_tools = tmp_path / "tools.json"
    other_tools.write_text(Path(base.data.tool_registry).read_text() + "\n")
    configs = [
        base,
        make_config(training__precision="bf16"),
        make_config(data__validation_fraction=0.2),
        make_config(data__split_seed=3),
        make_config(data__split="rows"),
        make_config(data__tool_registry=str(other_tools)),
    ]
    paths = {prepared_path(config, on_gpu=False) for config in configs}
    assert len(paths) == len(configs)
    same = make_config(training__learning_rate=0.5, training__seed=9, model__dropout=0.5)
    assert prepared_path(same, on_gpu=False) == prepared_path(base, on_gpu=False)


def test_the_precision_is_the_one_the_llm_gets(llm: FrozenLLM) -> None:
    for wanted in ("auto", "bf16", "fp32"):
        name = llm_precision(wanted, on_gpu=False)
        assert str(select_dtype(wanted, llm.device)).endswith({"bf16": "16", "fp32": "32"}[name])
