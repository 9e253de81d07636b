"""``compare SWEEP_A SWEEP_B``: what two sweeps found, how fast, and by which parameters. No Ray."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.config import as_begun
from trainables.errors import UserError
from trainables.files import check_writable, exists, new_directory
from trainables.statuses import GOOD
from trainables.yaml_config import read_yaml
from tuning.comparison.plots import BestSoFar, draw_sweeps
from tuning.history.event_log import read_events
from tuning.history.manifest import read_manifest
from tuning.history.record import Event, EventKind, SweepRecord, SweepState, TrialRecord
from tuning.history.sweeps import CONFIG_FILE, read_sweep
from tuning.terminal import duration, shown_number

PICTURE_FILE = "compare.png"
NOT_COMPARED = ("warm_start", "storage")


@dataclass(frozen=True)
class ReportedValue:
    """A value of the metric in an epoch's report of a trial that ended well."""

    seconds: float  # of training since the sweep's first trial started, pauses left out
    trials: int  # that had been started by then
    value: float


@dataclass(frozen=True)
class Sweep:
    """A sweep as its history tells it."""

    record: SweepRecord
    best: TrialRecord
    reports: tuple[ReportedValue, ...]
    seconds: float
    config: dict[str, Any]
    inputs: dict[str, str]

    @property
    def sign(self) -> int:
        return 1 if self.record.mode == "min" else -1

    def best_so_far(self) -> list[ReportedValue]:
        """The reports that were better than all before them."""
        found: list[ReportedValue] = []
        for report in self.reports:
            if not found or self.sign * report.value < self.sign * found[-1].value:
                found.append(report)
        return found

    def reached(self, target: float) -> ReportedValue | None:
        """The first report that is as good as ``target``."""
        good = (r for r in self.reports if self.sign * r.value <= self.sign * target)
        return next(good, None)


def read_comparable(directories: Sequence[Path]) -> list[Sweep]:
    """The sweeps of these directories; they must have found something by the same metric."""
    sweeps = [open_sweep(directory) for directory in directories]
    first, second = (s.record for s in sweeps)
    if (first.metric, first.mode) != (second.metric, second.mode):
        raise UserError(
            f"`{first.name}` has the metric {first.metric} ({first.mode}), `{second.name}` "
            f"{second.metric} ({second.mode}); only sweeps of the same metric can be compared"
        )
    return sweeps


def open_sweep(directory: Path) -> Sweep:
    record = read_sweep(directory)
    if record.state == SweepState.RUNNING:
        raise UserError(f"sweep `{record.name}` is still running; wait for it, or `stop` it")
    best = record.best()
    if best is None:
        raise UserError(f"sweep `{record.name}` has no trial that ended well; nothing to compare")
    good = {t.trial_id for t in record.trials.values() if t.status in GOOD}
    reports, seconds = _timeline(read_events(directory, warn=False), record.metric, good)
    inputs = read_manifest(directory).get("inputs", {})
    return Sweep(record, best, tuple(reports), seconds, _config(directory), inputs)


def _config(directory: Path) -> dict[str, Any]:
    """By dotted keys, those that are newer than the sweep included; empty where it has no file."""
    path = directory / CONFIG_FILE
    whole = read_yaml(path) if path.is_file() else {}
    train = whole.get("train")
    return _flat({**whole, "train": as_begun(train)} if isinstance(train, dict) else whole)


def _timeline(
    events: Iterable[Event], metric: str, good: set[str]
) -> tuple[list[ReportedValue], float]:
    """Reports in the order of time; while nothing ran, between two starts of it, no time passes."""
    clock, last = 0.0, None
    started: set[str] = set()
    reports: list[ReportedValue] = []
    for event in events:
        time = event.get("time")
        if not isinstance(time, int | float):
            continue
        goes_on = event["event"] == EventKind.SWEEP and event.get("state") == SweepState.RUNNING
        if last is not None and started and not goes_on:
            clock += max(0.0, time - last)
        last = time
        if event["event"] == EventKind.START:
            started.add(event["trial_id"])
        if event["event"] == EventKind.EPOCH and event["trial_id"] in good:
            value = event["metrics"].get(metric)
            if value is not None:
                reports.append(ReportedValue(clock, len(started), float(value)))
    return reports, clock


def compare_sweeps(sweeps: Sequence[Sweep]) -> dict[str, Any]:
    """Best, time and trials to the loss that both have reached, parameters, differences."""
    target = _target(sweeps)
    return {
        "metric": sweeps[0].record.metric,
        "target": target,
        "sweeps": [_describe(sweep, target) for sweep in sweeps],
        "params": side_by_side([s.best.params for s in sweeps]),
        "differences": different([s.config | s.inputs for s in sweeps]),
    }


def _target(sweeps: Sequence[Sweep]) -> float:
    """What the worse of both has reached at its best."""
    sign = sweeps[0].sign
    return sign * max(sign * sweep.best_so_far()[-1].value for sweep in sweeps)


def _describe(sweep: Sweep, target: float) -> dict[str, Any]:
    record, reached = sweep.record, sweep.reached(target)
    return {
        "sweep": record.name,
        "state": record.state,
        "trials": record.counts(),
        "epochs": sum(t.epoch for t in record.trials.values()),
        "seconds": sweep.seconds,
        "best": {
            "trial_id": sweep.best.trial_id,
            "value": record.value(sweep.best),
            "metrics": record.figures(sweep.best),
        },
        "seconds_to_target": reached.seconds if reached else None,
        "trials_to_target": reached.trials if reached else None,
    }


def side_by_side(mappings: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """The values of every key, in order; None where a mapping has none."""
    keys = dict.fromkeys(key for mapping in mappings for key in mapping)
    return {key: [mapping.get(key) for mapping in mappings] for key in keys}


def different(mappings: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """The keys whose values are not the same everywhere."""
    return {k: v for k, v in side_by_side(mappings).items() if any(x != v[0] for x in v)}


def _flat(mapping: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys, without what does not decide anything."""
    found: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        elif key not in NOT_COMPARED:
            found[f"{prefix}{key}"] = value
    return found


def curves(sweeps: Sequence[Sweep]) -> list[BestSoFar]:
    """The best so far of each, drawn on to the sweep's end."""
    found = []
    for sweep in sweeps:
        steps = sweep.best_so_far()
        minutes = (*(r.seconds / 60 for r in steps), sweep.seconds / 60)
        values = (*(r.value for r in steps), steps[-1].value)
        found.append(BestSoFar(sweep.record.name, minutes, values))
    return found


def write_comparison(sweeps: Sequence[Sweep], answer: dict[str, Any], out: Path) -> str:
    """Page, numbers and picture in a directory that must be new; returns the page."""
    if exists(out, "--out"):
        raise UserError(f"--out {out}: exists already; give a directory that does not")
    check_writable(out, "--out")
    title = " and ".join(sweep.record.name for sweep in sweeps)
    text = "\n".join([f"# {title}", "", *sweeps_page(answer), "", f"![]({PICTURE_FILE})"]) + "\n"

    def fill(aside: Path) -> None:
        (aside / "compare.md").write_text(text, encoding="utf-8")
        (aside / "compare.json").write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
        draw_sweeps(curves(sweeps), answer["metric"], answer["target"], aside / PICTURE_FILE)

    new_directory(out, fill)
    return text


FIGURES = ("val_loss", "train_loss", "semantic_retention", "gate_alpha", "field_accuracy", "epoch")


def sweeps_page(answer: dict[str, Any]) -> list[str]:
    """The answer as Markdown."""
    sweeps = answer["sweeps"]
    names = " | ".join(s["sweep"] for s in sweeps)
    rows: dict[str, list[str]] = {
        f"best {answer['metric']}": [shown_number(s["best"]["value"]) for s in sweeps],
        "best trial": [s["best"]["trial_id"] for s in sweeps],
        f"time to {shown_number(answer['target'])}": [
            _time(s["seconds_to_target"]) for s in sweeps
        ],
        "trials to it": [str(s["trials_to_target"] or "-") for s in sweeps],
        "time in all": [_time(s["seconds"]) for s in sweeps],
        "trials": [", ".join(f"{n} {status}" for status, n in s["trials"].items()) for s in sweeps],
        "epochs": [str(s["epochs"]) for s in sweeps],
    }
    of_best = {
        key: [shown_number(s["best"]["metrics"].get(key)) for s in sweeps]
        for key in FIGURES
        if any(key in s["best"]["metrics"] for s in sweeps)
    }
    return [
        f"| | {names} |",
        "|---|---|---|",
        *_rows(rows),
        "",
        f"| of the best trial | {names} |",
        "|---|---|---|",
        *_rows(of_best),
        *_rows({f"`{key}`": [_shown(v) for v in pair] for key, pair in answer["params"].items()}),
        "",
        *_differences(answer["differences"], names),
    ]


def _differences(differences: dict[str, list[Any]], names: str) -> list[str]:
    if not differences:
        return ["Configuration and data of both are the same."]
    rows = _rows({f"`{key}`": [_shown(v) for v in pair] for key, pair in differences.items()})
    return [f"| what else differs | {names} |", "|---|---|---|", *rows]


def _rows(rows: dict[str, list[str]]) -> list[str]:
    return [f"| {label} | {' | '.join(cells)} |" for label, cells in rows.items()]


def _time(seconds: float | None) -> str:
    return duration(seconds) if seconds is not None else "-"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)
