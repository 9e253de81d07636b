"""What a run's own figures say is wrong with it, and what to do about it.

Pure: from the epochs' figures and a few facts to findings, each one line. It reads what is read
once per epoch anyway and decides by the run's own history alone, so that a run which is resumed,
packed beside others or trained by itself is told the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

FindingId = Literal[
    "gate_stuck",
    "gradients_exploding",
    "gradients_vanishing",
    "loss_not_falling",
    "retention_collapsing",
    "slow_initialisation",
]
GATE_STUCK: FindingId = "gate_stuck"
FINDING_IDS: tuple[FindingId, ...] = FindingId.__args__  # type: ignore[attr-defined]

# Below this the resources are a tenth of the semantics in the soft token: too little to matter.
SHUT_ALPHA = 0.1
# The embedded LLM listens from 0.3 on, and the default training ends near 0.7.
OPEN_ALPHA = 0.5
STUCK_ALPHA = 0.01
MAX_GATE_MULTIPLIER = 1000.0
# A mean gradient of this size is that of a leaf nothing flows to; the smallest of a run that
# learns was 1e-3.
NO_GRADIENT = 1e-10
ADAM_EPS = 1e-8
# Between the epochs of runs that learn, the mean norm of the gradient differs by less than 5.
EXPLODING_FACTOR = 20.0
# Of a learning rate's whole schedule; before that a loss may still be waiting for the warm-up.
SPENT_SHARE = 0.1
FLAT_EPOCHS = 3
FLAT_SHARE = 0.01
RISING_SHARE = 0.05
COLLAPSED_RETENTION = 0.3
# Initialisation counts as slow if it took so many times, and so much longer than, expected.
SLOW_FACTOR = 3.0
SLOW_SECONDS = 20.0

Figures = dict[str, Any]  # an epoch's declared metrics


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a run: what, and what to do, in one line."""

    id: FindingId
    text: str


@dataclass(frozen=True)
class Facts:
    """What a diagnosis needs to know of a run beside its figures.

    ``rate_spent`` and ``rate_left`` are sums of the learning rate over the updates made and to
    come; ``untrained`` names the fusion's parameters that no optimiser group holds.
    """

    learning_rate: float
    gate_lr_multiplier: float
    rate_spent: float
    rate_left: float
    trainable: int
    normalize: bool
    untrained: tuple[str, ...] = ()


def diagnose(history: Sequence[Figures], facts: Facts) -> list[Finding]:
    """The findings of the last epoch in ``history``, the gravest first."""
    checks: tuple[Callable[[Sequence[Figures], Facts], Finding | None], ...] = (
        _gate,
        _exploding,
        _vanishing,
        _loss,
        _retention,
    )
    found = (check(history, facts) for check in checks)
    return [finding for finding in found if finding is not None]


def reachable_alpha(alpha: float, rate: float, multiplier: float) -> float:
    """The largest gate that the updates of a summed learning rate ``rate`` can lead to.

    An update of Adam moves a parameter by about its learning rate at most: Kingma and Ba, "Adam",
    2015, section 2.1. The gate's learning rate is ``multiplier`` times the encoder's.
    """
    return alpha + multiplier * rate


def needed_multiplier(rate: float) -> float:
    """The gate_lr_multiplier that lets the gate open over a whole schedule, two digits, up."""
    exact = OPEN_ALPHA / rate
    unit = 10.0 ** (math.floor(math.log10(exact)) - 1)
    return float(f"{math.ceil(exact / unit - 1e-9) * unit:.6g}")


def slow_initialisation(seconds: float, expected: float, remedy: str) -> Finding | None:
    """A finding if a process needed much longer than expected before its first step."""
    if seconds < SLOW_FACTOR * expected or seconds < expected + SLOW_SECONDS:
        return None
    return Finding(
        "slow_initialisation",
        f"initialisation took {seconds:.0f} s, expected were about {expected:.0f} s for this LLM "
        f"on this device; {remedy}",
    )


def _gate(history: Sequence[Figures], facts: Facts) -> Finding | None:
    alpha, gradient = history[-1]["gate_alpha"], history[-1]["gate_grad_norm"]
    multiplier = facts.gate_lr_multiplier
    reach = reachable_alpha(alpha, facts.rate_left, multiplier)
    needed = needed_multiplier(facts.rate_spent + facts.rate_left)
    shut = alpha < STUCK_ALPHA and multiplier * facts.rate_spent >= OPEN_ALPHA
    where = f"the gate is at α = {alpha:.2g}"
    if facts.untrained:
        names = ", ".join(facts.untrained)
        text = (
            f"{where}: the optimiser does not have {names}; let them require gradients and give "
            "the optimiser all of get_trainable_parameters()"
        )
    elif gradient < NO_GRADIENT and alpha < SHUT_ALPHA:
        text = (
            f"{where}: no gradient arrives at it (mean size {gradient:.1e}); the attention's "
            "output is zero or cut off from the loss: look at the fusion's weights and for detach "
            "or no_grad, or train without this checkpoint"
        )
    elif reach < SHUT_ALPHA and needed > multiplier:
        text = (
            f"{where} and can reach {reach:.2g} at most, because its learning rate is too small "
            f"for these epochs; {_faster(needed, facts)}"
        )
    elif shut or reach < SHUT_ALPHA:
        text = (
            f"{where}, though its learning rate would have allowed "
            f"{multiplier * facts.rate_spent:.2g}: the gradient does not keep a direction, the "
            "LLM gains nothing from the resources; check that the figures decide the target "
            "texts, or take another model.llm_model"
        )
    else:
        return None
    return Finding(GATE_STUCK, text)


def _faster(needed: float, facts: Facts) -> str:
    if needed <= MAX_GATE_MULTIPLIER:
        return (
            f"training.gate_lr_multiplier of {needed:g} would do (it is "
            f"{facts.gate_lr_multiplier:g}), or a higher training.learning_rate"
        )
    rate = facts.learning_rate * needed / MAX_GATE_MULTIPLIER
    return (
        f"no training.gate_lr_multiplier would do, raise training.learning_rate (now "
        f"{facts.learning_rate:g}) to {rate:.1g} at least, or training.num_epochs"
    )


def _exploding(history: Sequence[Figures], facts: Facts) -> Finding | None:
    norm = history[-1]["grad_norm"]
    least = min(row["grad_norm"] for row in history)
    if norm <= EXPLODING_FACTOR * least:
        return None
    return Finding(
        "gradients_exploding",
        f"the gradient's mean norm has grown from {least:.2g} to {norm:.2g}; lower "
        f"training.learning_rate (now {facts.learning_rate:g}) or training.gate_lr_multiplier "
        f"(now {facts.gate_lr_multiplier:g})",
    )


def _vanishing(history: Sequence[Figures], facts: Facts) -> Finding | None:
    """Elements of the size of AdamW's epsilon, or less, move their parameters hardly at all."""
    norm = history[-1]["grad_norm"]
    if norm >= ADAM_EPS * math.sqrt(facts.trainable):
        return None
    return Finding(
        "gradients_vanishing",
        f"the gradient's mean norm is {norm:.1e}, too small for AdamW to see; the loss hardly "
        "depends on the soft token: check the LLM's weights, or set training.precision to fp32",
    )


def _loss(history: Sequence[Figures], facts: Facts) -> Finding | None:
    losses = [row["train_loss"] for row in history]
    spent = facts.rate_spent >= SPENT_SHARE * (facts.rate_spent + facts.rate_left)
    if len(losses) < FLAT_EPOCHS or not spent:
        return None
    first, last = losses[0], losses[-1]
    change = f"train_loss was {first:.4f} in epoch 1 and is {last:.4f} in epoch {len(losses)}"
    rate = f"training.learning_rate (now {facts.learning_rate:g})"
    if last > first * (1 + RISING_SHARE):
        return Finding("loss_not_falling", f"{change}; lower {rate}")
    if min(losses) > first * (1 - FLAT_SHARE):
        return Finding("loss_not_falling", f"{change}; raise {rate}, and see whether α moves")
    return None


def _retention(history: Sequence[Figures], facts: Facts) -> Finding | None:
    retention = history[-1]["semantic_retention"]
    if retention >= COLLAPSED_RETENTION:
        return None
    remedy = (
        f"lower training.learning_rate (now {facts.learning_rate:g}) or "
        f"training.gate_lr_multiplier (now {facts.gate_lr_multiplier:g})"
        if facts.normalize
        else "set model.normalize to true"
    )
    return Finding(
        "retention_collapsing",
        f"semantic_retention is {retention:.2f}: the soft token no longer says which tool it is; "
        f"{remedy}",
    )
