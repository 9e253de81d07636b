"""YAML of the older format: what goes, what stays as it was written, what is refused."""

from __future__ import annotations

import pytest

from trainables.errors import ConfigError
from trainables.migration.config import migrate_config

OLD = """\
# Our encoder, spring.
training:
  batch_size: 8    # fits

model:
  # the LLM
  llm_model: Qwen/Qwen2.5-0.5B
  llm_hidden_dim: 896   # of Qwen2.5-0.5B
  num_tools: 7
  d_resource: 896  # as wide as the LLM
  num_attention_heads: 14
  # it never learns
  freeze_semantic: true

  dropout: 0.2
"""
NEW = """\
# Our encoder, spring.
training:
  batch_size: 8    # fits

model:
  # the LLM
  llm_model: Qwen/Qwen2.5-0.5B
  d_resource: null  # as wide as the LLM
  num_attention_heads: 14
  # it never learns

  dropout: 0.2
"""


def test_retired_keys_go_and_all_else_stays_as_written() -> None:
    text, changes = migrate_config(OLD, "old.yaml")
    assert text == NEW
    lines = [str(change) for change in changes]
    assert lines == [
        "dropped   model.llm_hidden_dim: 896   # of Qwen2.5-0.5B: the hidden size is read from the "
        "LLM",
        "dropped   model.num_tools: 7: the number of tools is read from `data.tool_registry`",
        "dropped   model.freeze_semantic: true: the semantic stream is always frozen",
        "set       model.d_resource: null, was 896: it equalled the hidden size, and null follows "
        "the LLM",
    ]


def test_what_is_in_todays_format_stays_as_it_is() -> None:
    assert migrate_config(NEW, "new.yaml") == (NEW, [])
    assert migrate_config("training: {seed: 3}\n", "new.yaml") == ("training: {seed: 3}\n", [])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model: {num_tools: 7, dropout: 0.1}\n", "model: {dropout: 0.1}\n"),
        ("model: {dropout: 0.1, num_tools: 7, llm_hidden_dim: 8}", "model: {dropout: 0.1}"),
        ("model: {num_tools: 7, llm_hidden_dim: 8} # c\n", "model: {} # c\n"),
        ("model:  # ours\n  num_tools: 7\ndata: {}\n", "model: {}  # ours\ndata: {}\n"),
        ("model:\n  dropout: 0.1\n  num_tools: 7", "model:\n  dropout: 0.1\n"),
        ('model:\n  "num_tools": 7\n  dropout: 0\n', "model:\n  dropout: 0\n"),
        (
            "train:\n  model:\n    num_tools: 7\n    dropout: 0\nnum_trials: 3\n",
            "train:\n  model:\n    dropout: 0\nnum_trials: 3\n",
        ),
        (
            "model: {llm_hidden_dim: 8, d_resource: 16}\n",
            "model: {d_resource: 16}\n",
        ),
        (
            "model:\n  num_tools:\n    7\n  llm_hidden_dim: 8\n  d_resource: 8\n",
            "model:\n  d_resource: null\n",
        ),
    ],
)
def test_ways_to_write_it(old: str, new: str) -> None:
    assert migrate_config(old, "old.yaml")[0] == new


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: &b {num_tools: 7}\nmodel: *b\n", "cannot be taken out of the text"),
        ("a: &b {num_tools: 7}\nmodel:\n  <<: *b\n", "constructor for the tag"),
        ("- a\n", "must be a mapping"),
        ("a: [\n", "not valid YAML"),
    ],
)
def test_what_cannot_be_edited_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        migrate_config(text, "old.yaml")
