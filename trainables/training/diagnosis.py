"""What a run's own figures say is wrong with it, and what to do about it.

Pure: from the epochs' figures and a few facts to findings, each one line. It reads what is read
once per epoch anyway and decides by the run's own history alone, so that a run which is resumed,
packed beside others or trained by itself is told the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from trainables.metrics import Metrics

FindingId = Literal[
    "gate_stuck",
    "gradients_exploding",
    "gradients_vanishing",
    "loss_not_falling",
    "overfitting",
    "retention_collapsing",
    "slow_initialisation",
]
GATE_STUCK: FindingId = "gate_stuck"
FINDING_IDS: tuple[FindingId, ...] = get_args(FindingId)

# Below this the resources are a tenth of the semantics in the soft token: too little to matter.
# Without model.normalize α is no such ratio, and only a gate that has not moved counts as shut.
SHUT_ALPHA = 0.1
# The embedded LLM listens from 0.3 on, and the default training ends near 0.7.
OPEN_ALPHA = 0.5
STUCK_ALPHA = 0.01
MAX_GATE_MULTIPLIER = 1000.0
# In trainings that go well the gate's mean gradient stays above 1e-2.
NO_GRADIENT = 1e-10
ADAM_EPS = 1e-8
# Between the epochs of runs that learn, the mean norm of the gradient differs by less than 5,
# and it stays below 10.
EXPLODING_FACTOR = 20.0
EXPLODED_NORM = 100.0
# Of a learning rate's whole schedule; before that a loss may still be waiting for the warm-up.
SPENT_SHARE = 0.1
FLAT_EPOCHS = 3
FLAT_SHARE = 0.01
RISING_SHARE = 0.05
# Held-out losses of trainings that do not overfit differ by less from epoch to epoch.
OVERFITTING_EPOCHS = 3
OVERFITTING_SHARE = 0.02
COLLAPSED_RETENTION = 0.3
# Initialisation counts as slow if it took so many times, and so much longer than, expected.
SLOW_FACTOR = 3.0
SLOW_SECONDS = 20.0


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a run: what, and what to do, in one line."""

    id: FindingId
    text: str


@dataclass(frozen=True)
class Facts:
    """What a diagnosis needs to know of a run beside its figures.

    ``rate_spent`` and ``rate_left`` are sums of the learning rate over the updates made and to
    come, ``trainable`` is the number of trained weights; ``untrained`` names the fusion's
    parameters that no optimiser group holds, and ``gated`` tells whether it has a gate at all;
    ``soft_tokens`` is S.
    """

    learning_rate: float
    gate_lr_multiplier: float
    rate_spent: float
    rate_left: float
    trainable: int
    normalize: bool
    gated: bool = True
    untrained: tuple[str, ...] = ()
    soft_tokens: int = 1

    @property
    def collapsed_retention(self) -> float:
        """The tool's embedding is in each of the S soft tokens; what is added differs in them.

        So the sum of all still has what one soft token has with √S times their retention.
        """
        return COLLAPSED_RETENTION / math.sqrt(self.soft_tokens)

    @property
    def shut_alpha(self) -> float:
        return SHUT_ALPHA if self.normalize else STUCK_ALPHA

    @property
    def slower(self) -> str:
        """How to make the steps smaller."""
        gate = f" or training.gate_lr_multiplier (now {self.gate_lr_multiplier:g})"
        return f"lower training.learning_rate (now {self.learning_rate:g})" + gate * self.gated


def diagnose(history: Sequence[Metrics], facts: Facts) -> list[Finding]:
    """The findings of the last epoch in ``history``, the gravest first."""
    checks: tuple[Callable[[Sequence[Metrics], Facts], Finding | None], ...] = (
        _gate,
        _exploding,
        _vanishing,
        _loss,
        _overfitting,
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


def _gate(history: Sequence[Metrics], facts: Facts) -> Finding | None:
    if not facts.gated:
        return None
    alpha, gradient = history[-1]["gate_alpha"], history[-1]["gate_grad_norm"]
    reason = (
        _not_in_the_optimiser(facts)
        or _no_gradient(alpha, gradient, facts)
        or _too_slow(alpha, facts)
        or _no_direction(alpha, facts)
    )
    return Finding(GATE_STUCK, f"the gate is at α = {alpha:.2g}{reason}") if reason else None


def _not_in_the_optimiser(facts: Facts) -> str:
    if not facts.untrained:
        return ""
    names = ", ".join(facts.untrained)
    return (
        f": the optimiser does not have {names}; let them require gradients and give the "
        "optimiser all of get_trainable_parameters()"
    )


def _no_gradient(alpha: float, gradient: float, facts: Facts) -> str:
    if gradient >= NO_GRADIENT or alpha >= facts.shut_alpha:
        return ""
    return (
        f": no gradient arrives at it (mean size {gradient:.1e}); the attention's output is zero "
        "or cut off from the loss: look at the fusion's weights, for detach and for no_grad"
    )


def _too_slow(alpha: float, facts: Facts) -> str:
    """A gate that cannot open in the updates left, and with a larger multiplier could have."""
    multiplier = facts.gate_lr_multiplier
    reach = reachable_alpha(alpha, facts.rate_left, multiplier)
    needed = needed_multiplier(facts.rate_spent + facts.rate_left)
    if reach >= facts.shut_alpha or needed <= multiplier:
        return ""
    return (
        f" and can reach {reach:.2g} at most, because its learning rate is too small for these "
        f"epochs; {_faster(needed, facts)}"
    )


def _no_direction(alpha: float, facts: Facts) -> str:
    """A gate that has had the updates to open, or never will."""
    possible = facts.gate_lr_multiplier * facts.rate_spent
    reach = reachable_alpha(alpha, facts.rate_left, facts.gate_lr_multiplier)
    if reach >= facts.shut_alpha and (alpha >= STUCK_ALPHA or possible < OPEN_ALPHA):
        return ""
    return (
        f", though its learning rate would have allowed {possible:.2g}: the gradient keeps no "
        "direction, the LLM gains nothing from the resources; check that the figures decide the "
        "target texts, or take another model.llm_model"
    )


def _faster(needed: float, facts: Facts) -> str:
    if needed <= MAX_GATE_MULTIPLIER:
        return (
            f"training.gate_lr_multiplier of {needed:g} would do (it is "
            f"{facts.gate_lr_multiplier:g}), or a higher training.learning_rate"
        )
    rate = facts.learning_rate * needed / MAX_GATE_MULTIPLIER
    return (
        f"no training.gate_lr_multiplier would do, raise training.learning_rate (now "
        f"{facts.learning_rate:g}) to {rate:.2g} at least, or training.num_epochs"
    )


def _exploding(history: Sequence[Metrics], facts: Facts) -> Finding | None:
    norm = history[-1]["grad_norm"]
    least = min(row["grad_norm"] for row in history)
    if norm <= EXPLODING_FACTOR * least and norm <= EXPLODED_NORM:
        return None
    grown = f"has grown from {least:.2g} to" if norm > least else "is"
    return Finding(
        "gradients_exploding", f"the gradient's mean norm {grown} {norm:.2g}; {facts.slower}"
    )


def _vanishing(history: Sequence[Metrics], facts: Facts) -> Finding | None:
    """Elements of the size of AdamW's epsilon, or less, move their parameters hardly at all."""
    norm = history[-1]["grad_norm"]
    if norm >= ADAM_EPS * math.sqrt(facts.trainable):
        return None
    return Finding(
        "gradients_vanishing",
        f"the gradient's mean norm is {norm:.1e}, too small for AdamW to see; the loss hardly "
        "depends on the soft token: check the LLM's weights, or set training.precision to fp32",
    )


def _loss(history: Sequence[Metrics], facts: Facts) -> Finding | None:
    losses = [row["train_loss"] for row in history]
    spent = facts.rate_spent >= SPENT_SHARE * (facts.rate_spent + facts.rate_left)
    if len(losses) < FLAT_EPOCHS or not spent:
        return None
    first, last = losses[0], losses[-1]
    change = f"train_loss was {first:.4f} in epoch 1 and is {last:.4f} in epoch {len(losses)}"
    if last > first * (1 + RISING_SHARE):
        return Finding("loss_not_falling", f"{change}; {facts.slower}")
    if min(losses) > first * (1 - FLAT_SHARE):
        remedy = f"raise training.learning_rate (now {facts.learning_rate:g})"
        return Finding("loss_not_falling", f"{change}; {remedy}")
    return None


def _overfitting(history: Sequence[Metrics], facts: Facts) -> Finding | None:
    best = min(history, key=lambda row: row["val_loss"])
    last = history[-1]
    risen = last["val_loss"] >= best["val_loss"] * (1 + OVERFITTING_SHARE)
    fallen = last["train_loss"] <= best["train_loss"] * (1 - OVERFITTING_SHARE)
    if last["epoch"] - best["epoch"] < OVERFITTING_EPOCHS or not (risen and fallen):
        return None
    return Finding(
        "overfitting",
        f"val_loss was lowest in epoch {best['epoch']} ({best['val_loss']:.4f}) and is "
        f"{last['val_loss']:.4f} in epoch {last['epoch']}, while train_loss fell on: it learns the "
        "training rows by heart; end it there with training.patience, or give it more rows, a "
        f"higher model.dropout or a lower training.learning_rate (now {facts.learning_rate:g})",
    )


def _retention(history: Sequence[Metrics], facts: Facts) -> Finding | None:
    retention = history[-1]["semantic_retention"]
    if retention >= facts.collapsed_retention:
        return None
    who = "soft token no longer says" if facts.soft_tokens == 1 else "soft tokens no longer say"
    remedy = facts.slower if facts.normalize else "set model.normalize to true"
    return Finding(
        "retention_collapsing",
        f"semantic_retention is {retention:.2f}: the {who} which tool it is; {remedy}",
    )
