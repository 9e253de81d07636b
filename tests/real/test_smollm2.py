"""A pretrained LLM, SmolLM2-135M-Instruct, as ``make real`` makes it: ``make test-real``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import write_data
from tests.tuning.sweep.test_launch_on_ray import answer, run, start, stop_ray, workplace
from trainables.config import PretrainConfig, parse_config
from trainables.inputs.find_or_prepare import find_or_prepare
from trainables.llm.frozen import load_llm
from trainables.llm.place.sequences import Rows
from trainables.training.batches import DeviceInputs
from trainables.training.evaluation import evaluate
from trainables.training.run import Run
from trainables.training.step import train_step
from tuning.cli import main

__all__ = ["workplace"]
pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
SMOLLM2 = Path(__file__).parents[2] / "hub" / "SmolLM2-135M-Instruct"
CPU = torch.device("cpu")
STEPS = 12


@pytest.fixture
def config(tmp_path: Path) -> PretrainConfig:
    """Three tools, 16 rows each; every default of a pretrained LLM."""
    write_data(tmp_path / "data")
    mapping = {
        "model": {"llm_model": str(SMOLLM2), "cache_dir": str(tmp_path / "hub")},
        "data": {
            "tool_registry": str(tmp_path / "data" / "tools.json"),
            "profiling_data": str(tmp_path / "data" / "profiling.csv"),
        },
        "training": {"batch_size": 8, "num_epochs": 3, "precision": "fp32"},
    }
    return parse_config(mapping, source="test", base=tmp_path)


def test_an_encoder_can_be_trained_against_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "llm", "--set", f"model.llm_model={SMOLLM2}"]) == 0
    assert "hidden size 576" in capsys.readouterr().out


def test_its_chat_template_stands_around_the_soft_tokens(config: PretrainConfig) -> None:
    llm = load_llm(config, CPU)
    prompt = find_or_prepare(config, on_gpu=False, llm=llm)[0].prompt
    before, after = (llm.tokenizer.decode(list(ids)) for ids in (prompt.before, prompt.after))
    assert before.endswith("<|im_start|>user\nDescribe this configuration: ")
    assert after == "<|im_end|>\n<|im_start|>assistant\n"


def test_it_learns_within_a_few_steps_and_the_gate_opens(config: PretrainConfig) -> None:
    llm = load_llm(config, CPU)
    inputs = DeviceInputs(find_or_prepare(config, on_gpu=False, llm=llm)[0], CPU)
    run = Run(config, inputs)
    before, _ = evaluate(run, llm)
    for _ in range(STEPS):
        run.begin_epoch()
        assert not train_step([run], llm)
    after, _ = evaluate(run, llm)
    assert before > 5
    assert after < 0.7 * before
    assert run.encoder.get_gate_value() > 0.2


def test_a_long_prompt_is_read_once_and_changes_no_loss(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = load_llm(config, CPU)
    prompt = find_or_prepare(config, on_gpu=False, llm=llm)[0].prompt
    generator = torch.Generator().manual_seed(0)
    soft = torch.randn(2, 4, llm.hidden_size, generator=generator).requires_grad_()
    rows = Rows(soft, torch.randint(100, 1000, (2, 9), generator=generator), torch.tensor([9, 5]))

    def losses_and_gradient() -> tuple[torch.Tensor, torch.Tensor]:
        losses = llm.joint_losses([rows], prompt)
        return losses.detach(), torch.autograd.grad(losses.sum(), [soft])[0]

    assert llm.around(prompt).prefix is not None
    remembered = losses_and_gradient()
    monkeypatch.setattr(llm, "_same_losses", lambda *surroundings: False)
    llm.around(type(prompt)())  # forget
    assert llm.around(prompt).prefix is None
    for one, other in zip(remembered, losses_and_gradient(), strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()


def test_a_killed_sweep_comes_out_bit_for_bit(workplace: Path) -> None:
    sweep = json.loads((workplace / "sweep.yaml").read_text())
    sweep["train"]["model"] = {"llm_model": str(SMOLLM2)}
    sweep["train"]["training"] |= {"num_epochs": 2, "field_accuracy_samples": 0, "batch_size": 16}
    sweep["num_trials"] = 2
    (workplace / "sweep.yaml").write_text(json.dumps(sweep))
    launch = ("launch", "--config", "sweep.yaml", "--set", "max_concurrent=1", "--name")
    run(workplace, *launch, "calm")
    process = start(workplace, *launch, "cut")
    process.wait_for_line(r"trial_0001 epoch 1/")
    process.kill()
    process.wait()
    stop_ray()
    assert answer(workplace, "status", "cut")["state"] == "interrupted"
    run(workplace, "resume", "cut")
    calm, cut = (answer(workplace, "trials", name) for name in ("calm", "cut"))
    assert [t["status"] for t in cut] == ["finished"] * 2
    for key in ("params", "history"):
        assert [t[key] for t in cut] == [t[key] for t in calm]
