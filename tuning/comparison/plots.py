"""Pictures of a comparison: first what they show, as numbers, then drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from tuning.comparison.figures import BANDS
from tuning.comparison.jobs import ARCHITECTURES, FINISHED, GATED, Trained

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#b35806", "#2166ac")
SHADE = 0.2
INCHES = (11.0, 4.2)
DOTS_PER_INCH = 110


@dataclass(frozen=True)
class Curve:
    """A mean by epoch and the standard deviation around it."""

    label: str
    x: tuple[float, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]


@dataclass(frozen=True)
class PromisedBand:
    """A part of the schedule in this training's epochs, and the alpha promised there."""

    label: str
    begin: float
    end: float
    low: float
    high: float


@dataclass(frozen=True)
class ComparisonInfo:
    """What the picture of two architectures shows."""

    alpha: Curve
    losses: tuple[Curve, ...]
    bands: tuple[PromisedBand, ...]


def comparison_info(seeds: Mapping[str, Sequence[Trained]]) -> ComparisonInfo:
    """Of all trainings that came to their end."""
    whole = {a: [t for t in seeds[a] if t.outcome == FINISHED] for a in ARCHITECTURES}
    alpha = curve("mean of the seeds", whole[GATED], "gate_alpha")
    start = Curve(alpha.label, (0.0, *alpha.x), (0.0, *alpha.mean), (0.0, *alpha.sd))
    epochs = whole[GATED][0].config.training.num_epochs
    bands = (
        PromisedBand(b.label, b.begin * epochs / 100, b.end * epochs / 100, *b.promised)
        for b in BANDS
    )
    losses = (curve(a, whole[a], "val_loss") for a in ARCHITECTURES)
    return ComparisonInfo(start, tuple(losses), tuple(bands))


def curve(label: str, trained: Sequence[Trained], key: str) -> Curve:
    """One figure of several trainings by epoch, as far as all of them went."""
    rows = list(zip(*(t.history for t in trained), strict=False))
    values = [[epoch[key] for epoch in row] for row in rows]
    return Curve(
        label,
        tuple(row[0]["epoch"] for row in rows),
        tuple(fmean(v) for v in values),
        tuple(stdev(v) if len(v) > 1 else 0.0 for v in values),
    )


def draw_comparison(info: ComparisonInfo, path: Path) -> None:
    """Alpha with the promised bands, and the loss of both, into a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, layout="constrained")
    left, right = figure.subplots(1, 2)
    for band in info.bands:
        left.fill_between(
            (band.begin, band.end), band.low, band.high, color="0.5", alpha=SHADE, lw=0
        )
        left.axvline(band.end, color="0.8", lw=0.8)
        left.text((band.begin + band.end) / 2, band.high + 0.02, band.label, ha="center", size=8)
    _draw_curve(left, info.alpha, COLOURS[1])
    left.set(xlabel="epoch", ylabel="gate α", title="α, and the bands that were promised")
    for one, colour in zip(info.losses, COLOURS, strict=True):
        _draw_curve(right, one, colour)
    right.set(xlabel="epoch", ylabel="held-out loss, nats per token", title="loss, ± 1 sd")
    right.legend(frameon=False)
    figure.savefig(path, dpi=DOTS_PER_INCH, format="png")


def _draw_curve(axes: Axes, shown: Curve, colour: str) -> None:
    low = [m - s for m, s in zip(shown.mean, shown.sd, strict=True)]
    high = [m + s for m, s in zip(shown.mean, shown.sd, strict=True)]
    axes.fill_between(shown.x, low, high, color=colour, alpha=SHADE, lw=0)
    axes.plot(shown.x, shown.mean, color=colour, marker=".", label=shown.label)
    axes.spines[["top", "right"]].set_visible(False)


@dataclass(frozen=True)
class BestSoFar:
    """The best value of a sweep by the minutes it had trained."""

    label: str
    minutes: tuple[float, ...]
    value: tuple[float, ...]


def draw_sweeps(curves: Sequence[BestSoFar], metric: str, target: float | None, path: Path) -> None:
    """Best-so-far of both sweeps as steps, with the loss that both have reached, into a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(INCHES[0] / 2, INCHES[1]), layout="constrained")
    axes = figure.subplots()
    for one, colour in zip(curves, COLOURS, strict=True):
        axes.step(one.minutes, one.value, where="post", color=colour, label=one.label)
    if target is not None:
        axes.axhline(target, color="0.6", lw=0.8, ls="--", label="reached by both")
    axes.set(xlabel="minutes", ylabel=f"best {metric} so far", title="best so far")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=DOTS_PER_INCH, format="png")
