"""Configurations: the shipped file is the defaults, and every mistake has one clear answer."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trainables.config import DEFAULT_CONFIG, PretrainConfig, as_begun, load_config, parse_config
from trainables.errors import ConfigError, UserError
from trainables.yaml_config import apply_overrides


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_shipped_file_states_every_default() -> None:
    assert yaml.safe_load(DEFAULT_CONFIG.read_text()) == PretrainConfig().model_dump()


def test_what_a_run_has_written_means_what_it_meant_then() -> None:
    """A new file without the key gets the default; one that a run has left, what it did."""
    assert PretrainConfig().data.split == "distinct_rows"
    before = {"data": {"split_seed": 3}, "model": {}}
    place = {"prompt": None, "num_soft_tokens": 1}
    assert as_begun(before) == {"data": {"split_seed": 3, "split": "rows"}, "model": place}
    assert as_begun({})["data"] == as_begun({"data": None})["data"] == {"split": "rows"}
    written = PretrainConfig().model_dump()
    assert as_begun(written) == written


def test_every_field_is_explained() -> None:
    for section in PretrainConfig.model_fields.values():
        for name, field in section.annotation.model_fields.items():  # type: ignore[union-attr]
            assert field.description, name


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path / "c.yaml", ""))
    assert config.training == PretrainConfig().settled.training


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("llm_hidden_dim: 3584", "read from the LLM"),
        ("num_tools: 7", "read from `data.tool_registry`"),
        ("freeze_semantic: true", "always frozen"),
    ],
)
def test_keys_of_the_older_format_say_they_can_go(key: str, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", f"model:\n  {key}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert reason in str(caught.value)
    assert "Delete the key" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("- 1", "must be a mapping"),
        ("model: {dropout: 0.1, dropout: 0.2}", "`dropout` stands here twice"),
        ("model: {dropuot: 0.1}", "unknown key `model.dropuot` (did you mean `dropout`?)"),
        ("modle: {}", "unknown key `modle` (did you mean `model`?)"),
        ("training: {batch_size: many}", "`training.batch_size` is 'many'"),
        ("training: {batch_size: 0}", "`training.batch_size` is 0, but must be greater than"),
        ("training: {batch_size: 1.5}", "`training.batch_size` is 1.5"),
        ("training: {batch_size: true}", "`batch_size` is true, but must be a number"),
        ("training: {learning_rate: .nan}", "`training.learning_rate` is nan"),
        ("training: {scheduler: cosin}", "'cosine', 'linear' or 'constant'"),
        ("training: 3", "`training` is 3"),
        (
            "model: {architecture: embedding_attention, d_resource: 64}",
            "`d_resource` is 64, but must be null with `architecture: embedding_attention`",
        ),
        ("model: {architecture: gated}", "'gated_fusion' or 'embedding_attention'"),
        ("model: {dropout: 1.0}", "`model.dropout` is 1.0, but must be less than 1"),
    ],
)
def test_a_bad_file_names_file_key_and_value(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_paths_are_found_beside_the_file_then_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for directory in (here, there):
        directory.mkdir()
    write(there / "tools.json", "[]")
    write(here / "table.csv", "")
    monkeypatch.chdir(here)
    text = "data: {tool_registry: tools.json, profiling_data: table.csv}"
    data = load_config(write(there / "c.yaml", text)).data
    assert data.tool_registry == str(there / "tools.json")
    assert data.profiling_data == str(here / "table.csv")


ODD_PATHS = [
    "Ünï code/表.csv",
    "no\u00a0break\u3000blank",
    unicodedata.normalize("NFD", "détecteur"),
    "می\u200cگردد",
    "\U0001f469\u200d\U0001f4bb",
    "\u200fعربي",
    'it\'s "quoted" & 100% [odd] #1',
    "\U0001fae8 newer than this Python",
]


@pytest.mark.parametrize("name", ODD_PATHS)
def test_a_path_may_have_every_character_but_controls(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("[]")
    text = yaml.safe_dump({"data": {"tool_registry": name}}, allow_unicode=True)
    assert load_config(write(tmp_path / "c.yaml", text)).data.tool_registry == str(path)


@pytest.mark.parametrize(("on_disk", "written"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_path_is_found_in_either_unicode_form(on_disk: Any, written: Any, tmp_path: Path) -> None:
    """Copied from a Mac, names are decomposed; typed, they mostly are not."""
    path = tmp_path / unicodedata.normalize(on_disk, "détecteur") / "ガイド.json"
    path.parent.mkdir()
    path = path.with_name(unicodedata.normalize(on_disk, path.name))
    path.write_text("[]")
    name = unicodedata.normalize(written, "détecteur/ガイド.json")
    config = parse_config({"data": {"tool_registry": name}}, source="c", base=tmp_path)
    assert config.data.tool_registry == str(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a\0b", "a path must be printable text, but has the control character U+0000 (NULL) at"),
        ("a\tb", "U+0009 (TAB) at position 2; remove it"),
        ("\x1b[31mred", "U+001B (ESCAPE) at position 1"),
        ("a\nb", "U+000A (LINE FEED) at position 2"),
        ("a\u2028b", "a path must be printable text of one line, but has U+2028 (LINE SEPARATOR)"),
        ("caf\udce9", "U+DCE9 (the byte 0xE9, which is not UTF-8) at position 4"),
        ("\ud800", "U+D800 (half of a surrogate pair)"),
        ("\u00a0\u200b", "a path must be printable text, and not blank"),
        ("", "a path must be printable text, and not blank"),
    ],
)
@pytest.mark.parametrize("key", ["data.tool_registry", "model.llm_model", "logging.output_dir"])
def test_a_path_that_cannot_be_used_names_the_character(key: str, name: str, said: str) -> None:
    section, _, last = key.partition(".")
    with pytest.raises(ConfigError) as caught:
        parse_config({section: {last: name}}, source="c.yaml", base=Path())
    assert f"c.yaml: `{key}`: " in str(caught.value)
    assert said in str(caught.value)


def test_overrides_reach_any_value() -> None:
    base = {"a": {"b": 1}}
    assert apply_overrides(base, ["a.b=2e-3", "a.c=[1, x]", "d.e.f=null"]) == {
        "a": {"b": "2e-3", "c": [1, "x"]},
        "d": {"e": {"f": None}},
    }
    assert base == {"a": {"b": 1}}


@pytest.mark.parametrize("override", ["a", "=1", "a..b=1", "a.b=[", "a.b.c=1"])
def test_a_bad_override_is_named(override: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        apply_overrides({"a": {"b": 1}}, [override])


def test_exponents_without_a_point_are_numbers(tmp_path: Path) -> None:
    config = load_config(write(tmp_path / "c.yaml", "training: {learning_rate: 1e-3}"))
    assert config.training.learning_rate == 0.001


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
KEYS = ["model", "data", "training", "logging", "dropout", "batch_size", "llm_model"]
sections = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), scalars, max_size=3)


@pytest.mark.usefixtures("character_tables")
@given(content=st.dictionaries(st.sampled_from(KEYS), scalars | sections, max_size=4))
def test_any_mapping_works_or_is_refused_with_one_line(content: dict[str, object]) -> None:
    try:
        parse_config(content, source="some.yaml", base=Path())
        answer = "some.yaml"
    except UserError as error:
        answer = str(error)
    assert answer.startswith("some.yaml")
    assert "\n" not in answer
