"""Registry, table, templates, split: what is read, and what each mistake is answered with."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import TOOLS, ConfigMaker, write_data
from trainables.config import SHIPPED_DATA
from trainables.data.generator import write_default_data
from trainables.data.profiling import load_profiling
from trainables.data.registry import load_registry
from trainables.data.templates import TEMPLATES, describe, format_resources, parse
from trainables.errors import DataError
from trainables.inputs.checked_data import read_data
from trainables.inputs.shared_inputs import SharedInputs
from trainables.inputs.split import split_rows
from trainables.models.features import INPUT_SIZES, RESOURCES

HEADER = "tool,input_size,cpu_core,cpu_mem_gb,gpu_sm,gpu_mem_gb,latency_ms\n"
ROW = "r,small,1,2,20,4,10\n"


def test_the_shipped_data_is_what_its_generator_makes(tmp_path: Path) -> None:
    write_default_data(tmp_path)
    for shipped in SHIPPED_DATA.values():
        assert (tmp_path / shipped.name).read_bytes() == shipped.read_bytes()
    tools = load_registry(tmp_path / "tools.json")
    rows = load_profiling(tmp_path / "profiling.csv", tools)
    assert len(rows) == 1701 == len({(r.tool_index, *r.resources.values()) for r in rows})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "not valid JSON"),
        ("{}", "non-empty list"),
        ("[]", "non-empty list"),
        ("[3]", "entry 1 is 3"),
        ('[{"name": "a", "desc": "b"}]', "entry 1 (`a`) uses the key `desc`; rename it"),
        ('[{"name": "a"}]', "`description` is None"),
        ('[{"name": " ", "description": "b"}]', "`name` is ' '"),
        ('[{"name": "a\\nb", "description": "b"}]', "line breaks"),
        ('[{"name": "a", "descripton": "b"}]', "did you mean `description`"),
        (json.dumps([TOOLS[0], TOOLS[1], TOOLS[0]]), "entries 1 and 3 share the name `grep_logs`"),
    ],
)
def test_a_bad_registry_names_the_entry_and_the_remedy(
    content: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "tools.json"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        load_registry(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        (HEADER, "no rows"),
        (HEADER.replace("gpu_sm", "gpu_smm") + ROW, "did you mean `gpu_sm`"),
        (HEADER.replace(",latency_ms", "") + "r,small,1,2,20,4\n", "`latency_ms` is missing"),
        (HEADER + "s,small,1,2,20,4,10\n", "line 2: tool `s` is not in the registry"),
        (HEADER + "grep_log,small,1,2,20,4,10\n", "did you mean `grep_logs`"),
        (HEADER + ROW + "r,tiny,1,2,20,4,10\n", "line 3: input_size is `tiny`"),
        (HEADER + "r,small,one,2,20,4,10\n", "cpu_core is `one`, but must be a number"),
        (HEADER + "r,small,1,2,20,4,-5\n", "latency_ms is -5, but must be finite and >= 0"),
        (HEADER + "r,small,1,2,200,4,5\n", "gpu_sm is 200, but must be between 0 and 100"),
        (HEADER + "r,small,1,nan,20,4,5\n", "cpu_mem_gb is nan"),
        (HEADER + "r,small,1,2,20,4\n", "line 2 has 6 values"),
    ],
)
def test_a_bad_table_names_line_column_and_value(
    content: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "table.csv"
    path.write_text(content)
    tools = load_registry(write_data(tmp_path / "data") / "tools.json")
    with pytest.raises(DataError) as caught:
        load_profiling(path, tools)
    assert message in str(caught.value)


def test_columns_may_come_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(
        "latency_ms,tool,cpu_core,input_size,gpu_mem_gb,gpu_sm,cpu_mem_gb\n9,r,1,small,4,20,2.5\n"
    )
    tools = load_registry(write_data(tmp_path / "data") / "tools.json")
    row = load_profiling(tmp_path / "table.csv", tools)[0]
    assert row.tool_index == 2
    assert row.resources["latency_ms"] == 9
    assert row.resources["cpu_mem_gb"] == 2.5


figure_sets = st.fixed_dictionaries(
    {
        "input_size": st.sampled_from(INPUT_SIZES),
        **{name: st.floats(0, 1e5).map(lambda x: round(x, 2)) for name in RESOURCES[1:]},
    }
)


@pytest.mark.usefixtures("character_tables")
@given(figures=figure_sets, template=st.integers(0, len(TEMPLATES) - 1))
def test_a_sentence_states_its_figures_and_can_be_read_back(
    figures: dict[str, object], template: int
) -> None:
    said = parse(describe("some-tool", figures, template))
    assert said == {"tool": "some-tool", **format_resources(figures)}


def test_latency_is_written_to_two_digits() -> None:
    figures = dict.fromkeys(RESOURCES[1:], 3.0) | {"input_size": "small", "latency_ms": 12345.6}
    assert format_resources(figures)["latency_ms"] == "12000"
    assert format_resources(figures)["cpu_core"] == "3"


@pytest.mark.usefixtures("character_tables")
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
)
def test_the_split_is_whole_and_stratified(sizes: list[int], fraction: float, seed: int) -> None:
    index = np.repeat(np.arange(len(sizes)), sizes)
    train, val = split_rows(index, fraction, seed)
    assert sorted([*train, *val]) == list(range(len(index)))
    held_out = Counter(index[val].tolist())
    for tool, size in enumerate(sizes):
        count = held_out[tool]
        assert (count == 0) if size == 1 else (1 <= count < size)
        assert count == 0 or abs(count - fraction * size) <= 1


def test_shared_inputs_hold_every_text(inputs: SharedInputs, make_config: ConfigMaker) -> None:
    from transformers import AutoTokenizer

    config = make_config()
    data = read_data(config)
    tokenizer = AutoTokenizer.from_pretrained(config.model.llm_model)
    for row, template in ((0, 0), (17, 2), (47, 3)):
        count = inputs.token_counts[row, template]
        text = tokenizer.decode(inputs.token_ids[row, template, :count])
        tool = data.tools[data.rows[row].tool_index].name
        assert text == describe(tool, data.rows[row].resources, template) + "<end>"
        assert not inputs.token_ids[row, template, count:].any()


def test_a_batch_larger_than_the_data_is_refused(make_config: ConfigMaker) -> None:
    with pytest.raises(DataError, match=r"batch_size` is 99, but must be at most 42"):
        read_data(make_config(training__batch_size=99))
