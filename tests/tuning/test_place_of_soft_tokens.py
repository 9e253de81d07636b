"""``model.prompt`` and ``model.num_soft_tokens``, from the configuration to ``generate``."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from tests.conftest import ConfigMaker, byte_tokenizer, write_llm
from trainables.config import (
    SOFT_TOKENS,
    ModelConfig,
    PretrainConfig,
    PromptConfig,
    TrainingConfig,
)
from trainables.errors import CheckpointError
from trainables.models.encoder import Encoder
from trainables.training.checkpoint_files import read_meta
from tuning.cli import main

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}{{ '<answer>' }}"
LAST = re.compile(r"^Epoch 3/3 .* Val Loss: (\S+)", re.MULTILINE)
FIGURES = {
    "input_size": "small", "cpu_core": 4, "cpu_mem_gb": 16,
    "gpu_sm": 50, "gpu_mem_gb": 8, "latency_ms": 120,
}  # fmt: skip


def ids(text: str) -> list[int]:
    return list(byte_tokenizer()(text, add_special_tokens=False)["input_ids"])


@pytest.fixture
def chat_llm(tmp_path: Path) -> Path:
    directory = write_llm(tmp_path / "chat_llm")
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    return directory


@pytest.fixture
def command(make_config: ConfigMaker, chat_llm: Path, tmp_path: Path) -> list[str]:
    """``train`` with both keys at ``auto``."""
    config = make_config(model__llm_model=str(chat_llm), training__scheduler="constant")
    content = config.model_dump()
    del content["model"]["prompt"], content["model"]["num_soft_tokens"]
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(content))
    return ["train", "--config", str(path), "--set", "training.warmup_ratio=0"]


def test_auto_is_resolved_once_and_written_down(
    command: list[str], chat_llm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A template that says something else by now is not asked again."""
    assert main(command) == 0
    whole = capsys.readouterr().out
    before, after = ids("<user>Describe this configuration: "), ids("</><answer>")
    around = f"between {len(before)} and {len(after)} tokens of `model.prompt`"
    place = f"after {SOFT_TOKENS} soft tokens, {around}"
    assert place in whole
    last = tmp_path / "out" / "checkpoint_000003"
    model = read_meta(last)["config"]["model"]
    assert model["prompt"] == {"before": before, "after": after}
    assert model["num_soft_tokens"] == SOFT_TOKENS == 16
    shutil.rmtree(last)
    (chat_llm / "chat_template.jinja").write_text(TEMPLATE.replace("answer", "another day"))
    assert main([*command, "--resume"]) == 0
    resumed = capsys.readouterr().out
    assert "stays" not in resumed, "nobody has asked for anything else"
    assert place in resumed
    assert LAST.findall(resumed) == LAST.findall(whole) != []
    assert read_meta(last)["config"]["model"] == model


def test_what_was_begun_with_stays_and_is_said(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = ["--set", "model.prompt=null", "--set", "model.num_soft_tokens=2"]
    assert main([*command, *begun]) == 0
    capsys.readouterr()
    shutil.rmtree(tmp_path / "out" / "checkpoint_000003")
    other = ["--set", "model.prompt={before: 'a'}", "--set", "model.num_soft_tokens=3"]
    assert main([*command, *other, "--resume"]) == 0
    resumed = capsys.readouterr().out
    assert "`model.prompt` stays `null`, with which the training began" in resumed
    assert "`model.num_soft_tokens` stays `2`, with which the training began" in resumed


def test_three_lines_from_a_checkpoint_to_a_sentence(
    command: list[str], chat_llm: Path, tmp_path: Path
) -> None:
    assert main([*command, "--num_epochs", "1", "--set", "model.num_soft_tokens=3"]) == 0
    encoder = Encoder.from_pretrained(tmp_path / "out" / "checkpoint_000001")
    llm = AutoModelForCausalLM.from_pretrained(chat_llm)
    embeds = encoder.inputs_embeds(llm, encoder.tool_names[0], FIGURES)
    before, after = (list(part) for part in encoder.prompt)
    assert embeds.shape == (1, len(before) + 3 + len(after), 32)
    table = llm.get_input_embeddings().weight
    assert torch.equal(embeds[0, : len(before)], table[before])
    assert torch.equal(embeds[0, -len(after) :], table[after])
    soft = encoder.encode(encoder.tool_names[0], FIGURES)
    assert torch.equal(embeds[0, len(before) : -len(after)], soft)
    assert llm.generate(inputs_embeds=embeds, max_new_tokens=3, do_sample=False).shape == (1, 3)


def test_a_sequence_that_the_llm_cannot_read_is_refused_with_all_its_parts(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    long = json.dumps({"before": "x" * 40_000})
    assert main([*command, "--set", f"model.prompt={long}"]) == 2
    error = capsys.readouterr().err
    assert "40000 of `model.prompt` and 16 soft tokens, but the LLM reads at most 32768" in error
    assert "shorten the prompt" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("model.num_soft_tokens=0", "must be `auto` or a whole number from 1 to 64"),
        ("model.num_soft_tokens=true", "must be `auto` or a whole number from 1 to 64"),
        ("model.num_soft_tokens=8.0", "must be `auto` or a whole number from 1 to 64"),
        ("training.gate_lr_multiplier=true", "must be `auto` or a number from 0 to 1000"),
        ("training.gate_lr_multiplier=fast", "must be `auto` or a number from 0 to 1000"),
        ("training.gate_lr_multiplier=1001", "must be `auto` or a number from 0 to 1000"),
        ("model.prompt=chat", "model.prompt"),
        ("model.prompt={before: [1.5]}", "model.prompt"),
        ("model.prompt={before: [-1]}", "model.prompt"),
        ("model.prompt={behind: x}", "behind"),
    ],
)
def test_what_is_no_place_is_refused(
    command: list[str], given: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--set", given]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert said in error


def test_the_gate_of_an_llm_that_was_not_made_for_it_learns_faster() -> None:
    def gate(llm: str, wanted: object = "auto") -> float:
        training = TrainingConfig.model_validate({"gate_lr_multiplier": wanted})
        config = PretrainConfig(model=ModelConfig(llm_model=llm), training=training)
        return config.settled.training.gate_multiplier

    assert (gate("embedded"), gate("x"), gate("x", 7)) == (10, 100, 7)


def test_the_embedded_llm_and_the_earlier_encoder_have_one_with_nothing_around_it() -> None:
    embedded = ModelConfig().settled
    assert (embedded.num_soft_tokens, embedded.prompt) == (1, None)
    earlier = ModelConfig(llm_model="x", architecture="embedding_attention").settled
    assert (earlier.num_soft_tokens, earlier.prompt) == (1, "auto")
    given = ModelConfig(num_soft_tokens=4, prompt=PromptConfig(before="a")).settled
    assert (given.num_soft_tokens, given.prompt) == (4, PromptConfig(before="a"))
    with pytest.raises(ValueError, match="must be 1 or auto with `architecture: embedding_att"):
        ModelConfig(num_soft_tokens=2, architecture="embedding_attention")


def test_a_checkpoint_is_not_taken_over_by_a_run_of_another_place(
    command: list[str], make_config: ConfigMaker, tmp_path: Path
) -> None:
    from trainables.inputs.checked_data import read_data
    from trainables.inputs.preparing import prepare_inputs
    from trainables.llm.frozen import load_llm
    from trainables.training.checkpoint import load_checkpoint
    from trainables.training.pretraining import Pretraining

    assert main([*command, "--num_epochs", "1", "--set", "model.num_soft_tokens=1"]) == 0
    config = make_config(training__scheduler="constant", training__warmup_ratio=0)
    llm = load_llm(config)
    run = Pretraining(config, prepare_inputs(llm, read_data(config)), llm).run
    with pytest.raises(CheckpointError, match=r"was trained with `model\.prompt` = "):
        load_checkpoint(tmp_path / "out" / "checkpoint_000001", run)
