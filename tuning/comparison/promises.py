"""What was promised of the gated architecture, held against what was measured. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from tuning.comparison.figures import Alpha, Figures, Spread, is_clear
from tuning.comparison.jobs import EARLIER, GATED, Trained

SAME = 0.1  # two means nearer than this share of the first one are called equal
FIRST_LOSS, EARLIER_LOSS, GATED_LOSS = 2.5, 2.0, 1.5
EARLIER_RETENTION, GATED_RETENTION = 0.60, 0.80
EARLIER_START, GATED_START = 5.0, 20.0
NEAR = 0.1  # of a promised retention


@dataclass(frozen=True)
class Promise:
    """One promise: what was said, what was seen, whether it holds, and what the figures tell."""

    figure: str
    promised: str
    measured: str
    holds: bool
    why: str


def check_promises(figures: Figures, seeds: Mapping[str, Sequence[Trained]]) -> list[Promise]:
    """Every promise for which there are figures."""
    found = [
        *_start(figures, seeds),
        *_equal(figures, "steps_per_s", "steps per second"),
        *_equal(figures, "steps_per_cpu_s", "steps per CPU second"),
        *_equal(figures, "peak_memory_mib", "peak memory, MiB"),
        *_loss(figures),
        *_retention(figures, seeds),
    ]
    return found + [_alpha(alpha, seeds[GATED][0]) for alpha in figures.alpha]


def _start(figures: Figures, seeds: Mapping[str, Sequence[Trained]]) -> Iterator[Promise]:
    cold, cached = figures.pair("cold_s"), figures.pair("cached_s")
    if cold is None or cached is None:
        return
    earlier, gated = cold
    stages = {a: _mean_stages(seeds[a]) for a in (EARLIER, GATED)}
    own = {a: stages[a]["semantic stream"] for a in (EARLIER, GATED)}
    promised = GATED_START / EARLIER_START
    ratio = gated.mean / earlier.mean
    yield Promise(
        "initialisation without cache",
        f"{EARLIER_START:g} s -> {GATED_START:g} s ({promised:g} x)",
        f"{earlier.mean:.2f} s -> {gated.mean:.2f} s ({ratio:.2f} x)",
        abs(ratio / promised - 1) <= SAME,
        f"The LLM's pass over the tools' prompts takes {own[GATED]:.3f} s where the rows of its "
        f"input layer take {own[EARLIER]:.3f} s; the other {gated.mean - own[GATED]:.2f} s and "
        f"{earlier.mean - own[EARLIER]:.2f} s are spent on what both need: "
        f"{_listed({k: v for k, v in stages[GATED].items() if k != 'semantic stream'})}.",
    )
    with_cache = cached[1].mean
    fastest = min(earlier.mean, gated.mean)
    yield Promise(
        "initialisation with the cache",
        "below both",
        f"{with_cache:.2f} s",
        with_cache < fastest,
        f"{with_cache / fastest:.0%} of the shorter start without it; "
        f"of it {_listed(_mean_stages(seeds[GATED], cached=True))}.",
    )


def _equal(figures: Figures, key: str, name: str) -> Iterator[Promise]:
    pair = figures.pair(key)
    if pair is None:
        return
    earlier, gated = pair
    share = gated.mean / earlier.mean - 1
    more = figures.parameters[GATED] / figures.parameters[EARLIER]
    yield Promise(
        name,
        "equal",
        f"{earlier.mean:.4g} -> {gated.mean:.4g}",
        abs(share) <= SAME,
        f"{share:+.1%}, {_clear(pair)}; the gated one has {more:.2f} times the trainable "
        f"parameters ({figures.parameters[GATED]:,} against {figures.parameters[EARLIER]:,}).",
    )


def _loss(figures: Figures) -> Iterator[Promise]:
    pair, first = figures.pair("val_loss"), figures.pair("first_loss")
    if pair is None or first is None:
        return
    earlier, gated = pair
    promised, share = 1 - GATED_LOSS / EARLIER_LOSS, 1 - gated.mean / earlier.mean
    left = (earlier.mean / first[0].mean, gated.mean / first[1].mean)
    yield Promise(
        "final loss",
        f"{FIRST_LOSS:g}, then {EARLIER_LOSS:.1f} -> {GATED_LOSS:.1f} ({promised:.0%} lower)",
        f"{first[0].mean:.2f} and {first[1].mean:.2f}, then {earlier.mean:.3f} -> "
        f"{gated.mean:.3f} ({share:.0%} lower)",
        is_clear(*pair) and share >= promised,
        f"Of its first loss each has {left[0]:.0%} and {left[1]:.0%} left, where "
        f"{EARLIER_LOSS / FIRST_LOSS:.0%} and {GATED_LOSS / FIRST_LOSS:.0%} were promised; between "
        f"the final losses is {_clear(pair)}, between the first ones {_clear(first)}.",
    )


def _retention(figures: Figures, seeds: Mapping[str, Sequence[Trained]]) -> Iterator[Promise]:
    pair = figures.pair("semantic_retention")
    if pair is None:
        return
    earlier, gated = pair
    weak = fmean([t.semantic_rms for t in seeds[EARLIER] if t.semantic_rms is not None])
    strong = fmean([t.resource_rms for t in seeds[EARLIER] if t.resource_rms is not None])
    yield Promise(
        "semantic retention, earlier",
        f"{EARLIER_RETENTION:.2f}",
        _spread(earlier),
        abs(earlier.mean - EARLIER_RETENTION) <= NEAR,
        f"Its resource token ends {strong / weak:.1f} times as strong as its semantic one (root "
        f"mean squares {strong:.3f} and {weak:.3f}), and no gate weighs them.",
    )
    config = seeds[GATED][0].config.model
    alpha = figures.alpha[-1].spread.mean if figures.alpha else 0.0
    reason = f"α ends near {alpha:.2f}"
    if config.normalize:
        expected = 1 / math.sqrt(1 + alpha**2)
        reason += f", at which two streams of equal strength would keep {expected:.2f}"
    yield Promise(
        "semantic retention, gated",
        f"{GATED_RETENTION:.2f}",
        _spread(gated),
        abs(gated.mean - GATED_RETENTION) <= NEAR,
        f"{reason}; from the earlier one's it is {_clear(pair)}.",
    )


def _alpha(alpha: Alpha, trained: Trained) -> Promise:
    low, high = alpha.band.promised
    mean, training = alpha.spread.mean, trained.config.training
    holds = low <= mean <= high
    place = "inside" if holds else "above" if mean > high else "below"
    epochs = f"{alpha.epochs[0]}-{alpha.epochs[-1]} of {training.num_epochs}"
    return Promise(
        f"α, epochs {alpha.band.label} of 100 (here {epochs})",
        f"{low:g}-{high:g}",
        _spread(alpha.spread),
        holds,
        f"{place.capitalize()}. Up to here the gate's learning rate, at its peak "
        f"{training.gate_multiplier:g} x {training.learning_rate:g}, adds up to "
        f"{alpha.reach:.2f}: about as far as AdamW can carry α; {mean / alpha.reach:.0%} of it "
        "is where α stands on average.",
    )


def _clear(pair: tuple[Spread, Spread]) -> str:
    return "a clear difference" if is_clear(*pair) else "no more than noise"


def _spread(spread: Spread) -> str:
    return f"{spread.mean:.2f} ± {spread.sd:.2f}"


def _mean_stages(trained: Sequence[Trained], cached: bool = False) -> dict[str, float]:
    timed = [stages for t in trained if (stages := t.cached if cached else t.cold)]
    return {stage: fmean(stages[stage] for stages in timed) for stage in timed[0]}


def _listed(stages: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in stages.items())
