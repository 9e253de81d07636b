"""From the histories of a comparison to its figures: means, spreads, bands, epochs. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median, stdev
from typing import Any

from tuning.comparison.jobs import ARCHITECTURES, EARLIER, FINISHED, GATED, Trained

CLEAR = 2.0  # standard errors between two means that are called different


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds, with the extremes and each seed's value."""

    mean: float
    sd: float
    low: float
    high: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None where no seed has a value."""
        if not values:
            return None
        sd = stdev(values) if len(values) > 1 else 0.0
        return cls(fmean(values), sd, min(values), max(values), tuple(values))


@dataclass(frozen=True)
class Figure:
    """One row of the table; ``of`` gives a training's value, None where it has none."""

    key: str
    label: str
    digits: int
    of: Callable[[Trained], float | None]
    is_share: bool = False  # then differences are told as such, and not in percent


def _steps_per_s(trained: Trained) -> float:
    """Of the median epoch: one in which the machine did something else does not count."""
    return median(h["steps_per_s"] for h in trained.history)


def _seconds(stages: Mapping[str, float]) -> float | None:
    return sum(stages.values()) if stages else None


FIGURES = (
    Figure("cold_s", "initialisation without cache, s", 2, lambda t: _seconds(t.cold)),
    Figure("cached_s", "initialisation with the cache, s", 2, lambda t: _seconds(t.cached)),
    Figure("steps_per_s", "steps per second, median epoch", 1, _steps_per_s),
    Figure(
        "steps_per_cpu_s",
        "steps per CPU second, evaluation included",
        1,
        lambda t: t.history[-1]["step"] / t.cpu_seconds,
    ),
    Figure("peak_memory_mib", "peak memory, MiB", 0, lambda t: t.history[-1]["peak_memory_mib"]),
    Figure("first_loss", "first loss (step 1)", 3, lambda t: t.first_loss),
    Figure("train_loss", "final loss, training", 4, lambda t: t.history[-1]["train_loss"]),
    Figure("val_loss", "final loss, held out", 4, lambda t: t.final_loss),
    Figure(
        "semantic_retention",
        "semantic retention",
        3,
        lambda t: t.history[-1]["semantic_retention"],
        True,
    ),
    Figure(
        "field_accuracy", "field accuracy", 3, lambda t: t.history[-1].get("field_accuracy"), True
    ),
)


@dataclass(frozen=True)
class Reached:
    """When the seeds of one architecture reached the mean final loss of the other."""

    target: float
    epochs: tuple[int | None, ...]  # by seed; None: never

    @property
    def spread(self) -> Spread | None:
        return Spread.of([epoch for epoch in self.epochs if epoch is not None])


@dataclass(frozen=True)
class Band:
    """A part of the schedule, in percent of its epochs, and the alpha that was promised there."""

    label: str
    begin: int
    end: int
    promised: tuple[float, float]

    def epochs(self, num_epochs: int) -> list[int]:
        """The epochs, 1-based, that end in this part; none in a short schedule."""
        inside = range(1, num_epochs + 1)
        return [e for e in inside if self.begin * num_epochs < 100 * e <= self.end * num_epochs]


BANDS = (
    Band("1-10", 0, 10, (0.0, 0.1)),
    Band("10-30", 10, 30, (0.1, 0.3)),
    Band("30-60", 30, 60, (0.3, 0.7)),
    Band("60+", 60, 100, (0.7, 1.0)),
)


@dataclass(frozen=True)
class Alpha:
    """The gate in one band: its mean over the band's epochs by seed, and how far it could go."""

    band: Band
    epochs: tuple[int, ...]
    spread: Spread
    reach: float  # the gate's learning rates added up from the first step to the band's end


@dataclass(frozen=True)
class Figures:
    """Everything the report says, as numbers."""

    rates: dict[str, float]
    spreads: dict[str, dict[str, Spread | None]]  # by key, then by architecture
    reached: dict[str, Reached | None]
    alpha: tuple[Alpha, ...]
    ended: dict[str, dict[str, int]]  # how many trainings of each architecture ended how
    parameters: dict[str, int]

    def pair(self, key: str) -> tuple[Spread, Spread] | None:
        """The earlier architecture's spread and the gated one's, where both have one."""
        earlier, gated = self.spreads[key][EARLIER], self.spreads[key][GATED]
        return (earlier, gated) if earlier and gated else None


def compute_figures(seeds: Mapping[str, Sequence[Trained]]) -> Figures:
    """The figures of all seeds; those that did not come to their end only count as such."""
    whole = {a: [t for t in seeds[a] if t.outcome == FINISHED] for a in ARCHITECTURES}
    return Figures(
        {a: seeds[a][0].config.training.learning_rate for a in ARCHITECTURES},
        {f.key: {a: _spread(f, whole[a]) for a in ARCHITECTURES} for f in FIGURES},
        {
            EARLIER: reached(whole[EARLIER], whole[GATED]),
            GATED: reached(whole[GATED], whole[EARLIER]),
        },
        alphas(whole[GATED]),
        {a: _count([t.outcome for t in seeds[a]]) for a in ARCHITECTURES},
        {a: seeds[a][0].trainable_parameters for a in ARCHITECTURES},
    )


def reached(trained: Sequence[Trained], others: Sequence[Trained]) -> Reached | None:
    """The first epoch of each training with a val_loss no higher than the others' final mean."""
    final = Spread.of([loss for t in others if (loss := t.final_loss) is not None])
    if final is None:
        return None
    below = [[h["epoch"] for h in t.history if h["val_loss"] <= final.mean] for t in trained]
    return Reached(final.mean, tuple(int(epochs[0]) if epochs else None for epochs in below))


def alphas(gated: Sequence[Trained]) -> tuple[Alpha, ...]:
    """The gate by band, for bands that have an epoch."""
    found = []
    for band in BANDS:
        epochs = band.epochs(gated[0].config.training.num_epochs) if gated else []
        parts = [[h["gate_alpha"] for h in t.history if h["epoch"] in epochs] for t in gated]
        spread = Spread.of([fmean(part) for part in parts if part])
        if spread is not None:
            found.append(Alpha(band, tuple(epochs), spread, _reach(gated[0], epochs[-1])))
    return tuple(found)


def _reach(trained: Trained, epoch: int) -> float:
    rates = sum(h["rate_sum"] for h in trained.history if h["epoch"] <= epoch)
    return trained.config.training.gate_multiplier * rates


def is_clear(a: Spread, b: Spread) -> bool:
    """Whether two means lie further apart than their spreads explain."""
    error = math.sqrt(a.sd**2 / len(a.values) + b.sd**2 / len(b.values))
    return abs(a.mean - b.mean) > CLEAR * error


def as_json(figures: Figures) -> dict[str, Any]:
    return asdict(figures)


def _spread(figure: Figure, trained: Sequence[Trained]) -> Spread | None:
    values = [figure.of(t) for t in trained]
    return Spread.of([value for value in values if value is not None])


def _count(outcomes: Sequence[str]) -> dict[str, int]:
    return {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))}
