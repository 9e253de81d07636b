"""A comparison of both architectures as a page of Markdown. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from trainables.config import PretrainConfig
from tuning.comparison.experiment import Plan, Results
from tuning.comparison.figures import FIGURES, Figure, Figures, Reached, Spread, is_clear
from tuning.comparison.jobs import ARCHITECTURES, EARLIER, GATED
from tuning.comparison.promises import Promise

PICTURE_FILE = "compare.png"


def page(plan: Plan, results: Results, figures: Figures, checks: Sequence[Promise]) -> list[str]:
    """The lines of ``compare.md`` but for the machine's."""
    return [
        "## What was measured",
        "",
        *_table(figures),
        "",
        f"Mean ± standard deviation over {plan.seeds} seeds. A difference is clear if it is larger "
        "than two standard errors; retention is measured against each one's own semantic stream.",
        "",
        *_outcomes(figures),
        *_tuning(results, figures),
        f"![α and loss by epoch]({PICTURE_FILE})",
        "",
        "## What was promised",
        "",
        "| figure | promised | measured | holds |",
        "|---|---|---|---|",
        *(f"| {c.figure} | {c.promised} | {c.measured} | {_yes(c.holds)} |" for c in checks),
        "",
        *(f"- {c.figure}: {c.why}" for c in checks),
    ]


def describe_plan(plan: Plan, data: str) -> list[str]:
    """What was trained, in sentences."""
    config = plan.config
    training = config.training
    return [
        f"Frozen LLM {_llm_name(config)}; {data}. {training.num_epochs} epochs in batches of "
        f"{training.batch_size}, {training.scheduler} schedule; {plan.seeds} seeds of each "
        f"architecture, the learning rate of each tuned with {plan.trials} "
        f"{'values' if plan.trials > 1 else 'value'} on another seed. "
        f"{plan.workers} processes at a time, threads of each: {plan.threads}."
    ]


def _llm_name(config: PretrainConfig) -> str:
    path = Path(config.model.llm_model)
    return path.name if path.is_absolute() else config.model.llm_model


def _table(figures: Figures) -> Iterator[str]:
    yield f"| figure | {EARLIER} | {GATED} | difference |"
    yield "|---|---|---|---|"
    for figure in FIGURES:
        cells = [_cell(figures.spreads[figure.key][a], figure.digits) for a in ARCHITECTURES]
        yield f"| {figure.label} | {' | '.join(cells)} | {_difference(figures, figure)} |"
    cells = [_reached(figures.reached[a]) for a in ARCHITECTURES]
    yield f"| epochs to the other's final loss | {' | '.join(cells)} | |"
    alpha = _cell(figures.alpha[-1].spread, 3) if figures.alpha else "-"
    yield f"| α, mean of the last band | no gate | {alpha} | |"


def _cell(spread: Spread | None, digits: int) -> str:
    return f"{spread.mean:.{digits}f} ± {spread.sd:.{digits}f}" if spread else "-"


def _difference(figures: Figures, figure: Figure) -> str:
    pair = figures.pair(figure.key)
    if pair is None:
        return "-"
    earlier, gated = (spread.mean for spread in pair)
    more = f"{gated - earlier:+.2f}" if figure.is_share else f"{gated / earlier - 1:+.1%}"
    return f"{more}, {'clear' if is_clear(*pair) else 'noise'}"


def _reached(reached: Reached | None) -> str:
    if reached is None:
        return "-"
    spread, seeds = reached.spread, len(reached.epochs)
    if spread is None:
        return f"never ({seeds} seeds)"
    count = f", {len(spread.values)} of {seeds} seeds" if len(spread.values) < seeds else ""
    return f"{_cell(spread, 1)}{count}"


def _outcomes(figures: Figures) -> list[str]:
    """Only of trainings that did not all come to their end."""
    lines = [
        f"{a}: {', '.join(f'{count} {outcome}' for outcome, count in ended.items())}."
        for a, ended in figures.ended.items()
        if len(ended) > 1
    ]
    return [*lines, ""] if lines else []


def _tuning(results: Results, figures: Figures) -> Iterator[str]:
    yield "Tuning, learning rate and final loss:"
    yield ""
    for architecture in ARCHITECTURES:
        tried = sorted(results.tuning[architecture], key=lambda t: t.config.training.learning_rate)
        cells = [
            f"{t.config.training.learning_rate:g}: "
            + (f"{t.final_loss:.4f}" if t.final_loss is not None else t.outcome)
            for t in tried
        ]
        chosen = figures.rates[architecture]
        edge = len(tried) > 1 and chosen in (
            tried[0].config.training.learning_rate,
            tried[-1].config.training.learning_rate,
        )
        note = "; the best stands at the end of what was tried" if edge else ""
        yield f"- {architecture}: {', '.join(cells)}; chosen {chosen:g}{note}"
    yield ""


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"
