"""Findings: none where training goes well, the right one where it does not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ConfigMaker
from trainables.config import TrainingConfig
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.frozen import FrozenLLM
from trainables.training.checkpoint import load_checkpoint, save_checkpoint
from trainables.training.diagnosis import (
    OPEN_ALPHA,
    Facts,
    Finding,
    diagnose,
    needed_multiplier,
    reachable_alpha,
    slow_initialisation,
)
from trainables.training.optimisation import learning_rate_at, learning_rate_sum, make_optimizer
from trainables.training.pretraining import Pretraining

GOLDEN = Path(__file__).parents[2] / "assets" / "golden_histories.json"
STEPS = 2880  # of the default training


def facts_at(training: TrainingConfig, step: int) -> Facts:
    return Facts(
        learning_rate=training.learning_rate,
        gate_lr_multiplier=training.gate_multiplier,
        rate_spent=learning_rate_sum(0, step, STEPS, training),
        rate_left=learning_rate_sum(step, STEPS, STEPS, training),
        trainable=300_000,
        normalize=True,
    )


@pytest.mark.parametrize("name", ["default", "fast", "slow gate"])
def test_a_training_that_goes_well_has_no_finding(name: str) -> None:
    golden = json.loads(GOLDEN.read_text())[name]
    training = TrainingConfig(**golden["training"])
    history = [{**epoch, "val_loss": epoch["train_loss"]} for epoch in golden["history"]]
    for epochs in range(1, len(history) + 1):
        facts = facts_at(training, int(history[epochs - 1]["step"]))
        assert diagnose(history[:epochs], facts) == []


def row(**figures: float) -> dict[str, Any]:
    healthy = {
        "epoch": 1,
        "train_loss": 1.0,
        "val_loss": 1.0,
        "gate_alpha": 0.3,
        "gate_grad_norm": 0.1,
        "grad_norm": 0.5,
        "semantic_retention": 0.9,
    }
    return {**healthy, **figures}


FACTS = Facts(1e-3, 10.0, rate_spent=0.5, rate_left=0.5, trainable=10_000, normalize=True)


@pytest.mark.parametrize(
    ("history", "changed", "finding", "said"),
    [
        ([row()], {"untrained": ("fusion.gate_alpha",)}, "gate_stuck", "does not have fusion.gate"),
        ([row(gate_alpha=0.0, gate_grad_norm=0.0)], {}, "gate_stuck", "no gradient arrives"),
        ([row(gate_alpha=0.001)], {"gate_lr_multiplier": 0.0}, "gate_stuck", "of 0.5 would do"),
        ([row(gate_alpha=0.001)], {"rate_spent": 1.0}, "gate_stuck", "keeps no direction"),
        ([row(), row(grad_norm=50.0)], {}, "gradients_exploding", "from 0.5 to 50"),
        ([row(grad_norm=700.0)], {}, "gradients_exploding", "mean norm is 7e+02; lower"),
        ([row(grad_norm=1e-7)], {}, "gradients_vanishing", "1.0e-07, too small for AdamW"),
        ([row()] * 3, {}, "loss_not_falling", "raise training.learning_rate"),
        ([row(), row(), row(train_loss=2.0)], {}, "loss_not_falling", "lower training.learning"),
        ([row(semantic_retention=0.2)], {}, "retention_collapsing", "lower training.learning_rate"),
        ([row(semantic_retention=0.2)], {"normalize": False}, "retention_collapsing", "normalize"),
    ],
)
def test_every_finding_names_what_is_wrong_and_what_to_do(
    history: list[dict[str, Any]], changed: dict[str, Any], finding: str, said: str
) -> None:
    found = diagnose(history, Facts(**{**vars(FACTS), **changed}))
    assert [f.id for f in found] == [finding]
    assert said in found[0].text
    assert "\n" not in found[0].text


def losses(*pairs: tuple[float, float]) -> list[dict[str, Any]]:
    """Epochs with these losses, in training and on held-out rows."""
    return [row(epoch=i, train_loss=t, val_loss=v) for i, (t, v) in enumerate(pairs, start=1)]


def test_overfitting_is_told_with_the_epoch_to_end_at() -> None:
    begin = [(3.0, 3.0), (2.0, 1.7)]
    history = losses(*begin, (1.6, 1.72), (1.3, 1.71), (1.0, 1.75))
    assert [f.id for f in diagnose(history, FACTS)] == ["overfitting"]
    assert "lowest in epoch 2 (1.7000) and is 1.7500 in epoch 5" in diagnose(history, FACTS)[0].text
    assert diagnose(history[:-1], FACTS) == []  # not for long enough
    flat = losses(*begin, (1.6, 1.72), (1.3, 1.71), (1.0, 1.72))
    assert diagnose(flat, FACTS) == []  # hardly risen
    both = losses(*begin, (2.1, 1.8), (2.1, 1.9), (2.1, 1.9))
    assert diagnose(both, FACTS) == []  # the training rows do not get better, either


def test_an_encoder_without_a_gate_has_none_that_is_stuck() -> None:
    ungated = Facts(**{**vars(FACTS), "gated": False})
    assert diagnose([row(gate_alpha=0.0, gate_grad_norm=0.0)], ungated) == []
    (found,) = diagnose([row(semantic_retention=0.2)], ungated)
    assert "gate" not in found.text


@pytest.mark.parametrize(("soft_tokens", "least"), [(1, 0.3), (4, 0.15), (16, 0.075)])
def test_of_several_soft_tokens_each_may_keep_less_of_the_tool(
    soft_tokens: int, least: float
) -> None:
    facts = Facts(**{**vars(FACTS), "soft_tokens": soft_tokens})
    assert diagnose([row(semantic_retention=least + 0.001)], facts) == []
    (found,) = diagnose([row(semantic_retention=least - 0.001)], facts)
    assert found.id == "retention_collapsing"
    assert ("soft tokens no longer say" in found.text) == (soft_tokens > 1)


def test_a_loss_may_wait_for_a_long_warm_up() -> None:
    waiting = Facts(**{**vars(FACTS), "rate_spent": 0.05, "rate_left": 0.95})
    assert diagnose([row()] * 3, waiting) == []
    assert diagnose([row(), row(train_loss=0.9), row(train_loss=0.95)], FACTS) == []


def test_the_named_multiplier_lets_the_gate_open_and_a_smaller_one_does_not() -> None:
    training = TrainingConfig(learning_rate=1e-5, gate_lr_multiplier=1.0)
    rate = learning_rate_sum(0, STEPS, STEPS, training)
    needed = needed_multiplier(rate)
    assert reachable_alpha(0.0, rate, needed) >= OPEN_ALPHA
    assert reachable_alpha(0.0, rate, 0.9 * needed) < OPEN_ALPHA
    (found,) = diagnose([row(gate_alpha=1e-3)], facts_at(training, 96))
    assert f"gate_lr_multiplier of {needed:g} would do" in found.text


def test_where_no_multiplier_is_enough_the_learning_rate_is_named() -> None:
    training = TrainingConfig(learning_rate=1e-8, gate_lr_multiplier=1.0)
    (found,) = diagnose([row(gate_alpha=1e-6)], facts_at(training, 96))
    assert "raise training.learning_rate (now 1e-08) to 3.5e-07 at least" in found.text


@pytest.mark.parametrize("scheduler", ["cosine", "linear", "constant"])
def test_a_sampled_sum_of_learning_rates_is_near_the_sum(scheduler: str) -> None:
    training = TrainingConfig.model_validate({"scheduler": scheduler})
    exact = sum(learning_rate_at(step, 9000, training) for step in range(100, 9000))
    assert learning_rate_sum(100, 9000, 9000, training) == pytest.approx(exact, rel=2e-3)


def test_an_initialisation_is_slow_by_factor_and_by_seconds() -> None:
    assert slow_initialisation(25.0, 10.0, "wait") is None
    assert slow_initialisation(15.0, 1.0, "wait") is None
    found = slow_initialisation(100.0, 10.0, "look at the disk")
    assert found is not None
    assert "took 100 s, expected were about 10 s" in found.text
    assert found.text.endswith("look at the disk")


Sabotage = Callable[[Pretraining], None]


def cut_off(pretraining: Pretraining) -> None:
    """An attention whose output is zero has no gradient to leave zero by."""
    torch.nn.init.zeros_(pretraining.run.encoder.fusion.cross_attention.out_proj.weight)


def deaf(pretraining: Pretraining) -> None:
    """An LLM whose logits are all alike, whatever it hears."""
    torch.nn.init.constant_(pretraining.llm.model.model.norm.weight, 1e-9)


def without_norms(pretraining: Pretraining) -> None:
    """An LLM that nothing keeps in bounds: the larger its input, the steeper it is."""
    for module in list(pretraining.llm.model.modules()):
        for name in [name for name, _ in module.named_children() if "norm" in name]:
            setattr(module, name, torch.nn.Identity())


def unharmed(pretraining: Pretraining) -> None:
    pass


@pytest.mark.parametrize(
    ("values", "sabotage", "finding", "said"),
    [
        ({"learning_rate": 1e-4}, unharmed, "gate_stuck", "gate_lr_multiplier of"),
        ({}, cut_off, "gate_stuck", "no gradient arrives"),
        ({}, unharmed, "loss_not_falling", "raise training.learning_rate"),
        ({}, deaf, "gradients_vanishing", "the loss hardly depends on the soft token"),
        (
            {"learning_rate": 1.0, "num_epochs": 3},
            without_norms,
            "gradients_exploding",
            "the gradient's mean norm is",
        ),
        ({"learning_rate": 0.1}, unharmed, "retention_collapsing", "no longer says which tool"),
    ],
)
def test_every_finding_is_made_in_a_real_training(
    values: dict[str, Any],
    sabotage: Sabotage,
    finding: str,
    said: str,
    make_config: ConfigMaker,
    llm: FrozenLLM,
    inputs: SharedInputs,
) -> None:
    settings = {f"training__{k}": v for k, v in {"num_epochs": 12, **values}.items()}
    pretraining = Pretraining(make_config(**settings), inputs, llm)
    sabotage(pretraining)
    texts = [f.text for f in findings(pretraining, 4) if f.id == finding]
    assert any(said in text for text in texts)


def findings(pretraining: Pretraining, epochs: int) -> list[Finding]:
    """Those of the first epochs of a training."""
    reports = itertools.islice(pretraining.reports(), epochs)
    return [finding for report in reports for finding in report.findings]


def test_a_gate_that_the_optimiser_does_not_have_is_named(
    make_config: ConfigMaker,
    llm: FrozenLLM,
    inputs: SharedInputs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without_gate(*arguments: Any) -> torch.optim.AdamW:
        optimizer = make_optimizer(*arguments)
        optimizer.param_groups.pop()
        return optimizer

    monkeypatch.setattr("trainables.training.run.make_optimizer", without_gate)
    (found,) = findings(Pretraining(make_config(training__num_epochs=12), inputs, llm), 1)
    assert found.id == "gate_stuck"
    assert "the optimiser does not have fusion.gate_alpha;" in found.text


def test_a_stuck_gate_ends_the_training_where_that_is_wanted(
    make_config: ConfigMaker, llm: FrozenLLM, inputs: SharedInputs
) -> None:
    def trained(**training: Any) -> list[dict[str, Any]]:
        settings = {f"training__{key}": value for key, value in training.items()}
        config = make_config(training__learning_rate=1e-5, **settings)
        return list(Pretraining(config, inputs, llm).reports())

    (only,) = trained(stop_stuck_gates=True)
    assert (only.status, only.last) == ("stopped early", True)
    assert only.message == only.findings[0].text
    went_on = trained(stop_stuck_gates=False)
    assert [r.status for r in went_on] == ["running", "running", "finished"]
    assert went_on[0].series["loss"] == only.series["loss"]
    (finished,) = trained(stop_stuck_gates=True, num_epochs=1)
    assert finished.status == "finished", "its last epoch is its end"


def test_a_resumed_training_finds_what_it_would_have_found(
    make_config: ConfigMaker, llm: FrozenLLM, inputs: SharedInputs, tmp_path: Path
) -> None:
    config = make_config(training__num_epochs=7)
    straight = [r.findings for r in Pretraining(config, inputs, llm).reports()]
    assert any(straight[4:])
    first = Pretraining(config, inputs, llm)
    before = [r.findings for r in itertools.islice(first.reports(), 4)]
    second = Pretraining(config, inputs, llm)
    path = save_checkpoint(tmp_path, first.run, first.history)
    second.history = load_checkpoint(path, second.run)
    assert before + [r.findings for r in second.reports()] == straight
