"""What the reading commands answer, as plain data and as text. No Ray, no torch."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console

from trainables.errors import UserError
from tuning.history.disk import free_bytes, used_bytes
from tuning.history.export import best_of
from tuning.history.record import SweepRecord, SweepState, TrialRecord
from tuning.history.refitted import described, read_refit
from tuning.history.sweeps import list_sweeps, read_sweep
from tuning.monitors.fitting_table import FittingTable, Shown
from tuning.monitors.table import ranked_table
from tuning.terminal import run_tune, run_tune_on, short_params, shown_number, shown_path

_log = logging.getLogger(__name__)
Answer = dict[str, Any] | list[dict[str, Any]]


def list_answer(storage: Path) -> list[dict[str, Any]]:
    return [
        {"sweep": path.name, "state": _state(path), "path": str(path)}
        for path in list_sweeps(storage)
    ]


def _state(directory: Path) -> str:
    """One unreadable sweep must not hide the others."""
    try:
        return read_sweep(directory).state
    except UserError as error:
        _log.warning("%s", error)
        return "unreadable"


def status_answer(directory: Path) -> dict[str, Any]:
    record = read_sweep(directory)
    best = record.best()
    return {
        "sweep": record.name,
        "state": record.state,
        "message": record.message,
        "path": str(directory),
        "num_trials": record.num_trials,
        "trials": record.counts(),
        "hosts_busy": record.busy,
        "disk_bytes": used_bytes(directory),
        "disk_bytes_free": free_bytes(directory),
        "best": _short(record, best) if best else None,
        "refit": read_refit(directory),
    }


def trials_answer(directory: Path) -> list[dict[str, Any]]:
    record = read_sweep(directory)
    return [
        {
            "trial_id": trial.trial_id,
            "status": trial.status,
            "message": trial.message,
            "params": trial.params,
            "value": record.value(trial),
            "epoch": record.epoch_of(trial),
            "metrics": trial.metrics,
            "history": trial.history,
            "findings": [
                {"epoch": epoch, **finding}
                for epoch, found in sorted(trial.findings.items())
                for finding in found
            ],
        }
        for trial in record.trials.values()
    ]


def best_answer(directory: Path) -> dict[str, Any]:
    record = read_sweep(directory)
    best, checkpoint = best_of(directory, record)
    return {
        **_short(record, best),
        "metrics": best.metrics,
        "status": record.trials[best.trial_id].described_status,
        "checkpoint": str(checkpoint),
        "refit": read_refit(directory),
    }


def _short(record: SweepRecord, trial: TrialRecord) -> dict[str, Any]:
    return {
        "trial_id": trial.trial_id,
        "metric": record.metric,
        "value": record.value(trial),
        "epoch": record.epoch_of(trial),
        "params": trial.params,
    }


def show_list(storage: Path, console: Console) -> None:
    answer = list_answer(storage)
    if not answer:
        console.print(f"no sweeps in {storage} yet; start one with `{run_tune('launch')}`")
        return
    columns = {"sweep": Shown(0), "state": Shown(1), "path": Shown(2, least=24, overflow="fold")}
    table = FittingTable(columns)
    for row in answer:
        table.add_row(row["sweep"], row["state"], row["path"])
    console.print(table)


def show_status(directory: Path, console: Console) -> None:
    answer = status_answer(directory)
    message = f" ({answer['message']})" if answer["message"] else ""
    console.print(f"sweep {answer['sweep']}: {answer['state']}{message}")
    counts = ", ".join(f"{n} {status}" for status, n in answer["trials"].items()) or "none yet"
    console.print(f"trials of {answer['num_trials']}: {counts}")
    used, free = answer["disk_bytes"] / 2**20, answer["disk_bytes_free"] / 2**20
    console.print(f"disk: {used:,.1f} MiB used, {free:,.0f} MiB free")
    if answer["best"]:
        best = answer["best"]
        console.print(
            f"best {best['metric']} {shown_number(best['value'])}: {best['trial_id']}, "
            f"epoch {best['epoch']}, {short_params(best['params'])}"
        )
    if answer["refit"]:
        console.print(described(answer["refit"]), soft_wrap=True)
    if answer["state"] == SweepState.INTERRUPTED:
        console.print(f"resume: {run_tune_on(directory, 'resume')}", soft_wrap=True)


def show_trials(directory: Path, console: Console) -> None:
    record = read_sweep(directory)
    console.print(ranked_table(record))
    for trial in record.trials.values():
        if trial.message:
            console.print(f"{trial.trial_id}: {trial.described_status}", soft_wrap=True)
        for finding in trial.found:
            if finding["text"] != trial.message:
                text = f"{trial.trial_id}, {finding['id']}: {finding['text']}"
                console.print(text, soft_wrap=True)


def show_best(directory: Path, console: Console) -> None:
    answer = best_answer(directory)
    console.print(
        f"{answer['trial_id']}: {answer['metric']} {shown_number(answer['value'])} at epoch "
        f"{answer['epoch']}, {answer['status']}",
        soft_wrap=True,
    )
    for key, value in answer["params"].items():
        console.print(f"  {key} = {value}")
    metrics = ", ".join(f"{k} {v:.4g}" for k, v in answer["metrics"].items())
    console.print(f"metrics: {metrics}", soft_wrap=True)
    console.print(f"checkpoint: {answer['checkpoint']}", soft_wrap=True)
    if answer["refit"]:
        console.print(described(answer["refit"]), soft_wrap=True)


def show_summary(record: SweepRecord, directory: Path, console: Console) -> None:
    """The last screen of a sweep: what came out and what to do with it."""
    console.print()
    console.print(ranked_table(record))
    counts = ", ".join(f"{n} {status}" for status, n in record.counts().items())
    message = f": {record.message}" if record.message else ""
    console.print(f"\nSweep {record.name} {record.state}{message}. Trials: {counts}.")
    if record.state != SweepState.FINISHED:
        console.print(
            f"Resume:      {run_tune_on(directory, 'resume')}", soft_wrap=True, highlight=False
        )
    found = Counter(f["id"] for t in record.trials.values() for f in t.found)
    if found:
        numbers = ", ".join(f"{name} in {n}" for name, n in found.items())
        console.print(f"Findings:    {numbers}; `trials` says what to do", highlight=False)
    if record.busy is not None:
        console.print(f"Hosts:       {record.busy:.0%} of their time in training steps")
    best = record.best()
    if best is None:
        return
    accuracy = record.figures(best).get("field_accuracy")
    extra = f", field accuracy {shown_number(accuracy, 3)}" if accuracy is not None else ""
    value, epoch = shown_number(record.value(best)), record.epoch_of(best)
    console.print(
        f"Best:        {best.trial_id} ({best.described_status}), {record.metric} {value} at epoch "
        f"{epoch}{extra}",
        soft_wrap=True,
    )
    for key, value in best.params.items():
        console.print(f"             {key} = {value}")
    lines = {
        "Checkpoint": shown_path(directory / str(record.weights(best))),
        "Exported": shown_path(directory / "best"),
        "Load it": f'Encoder.from_pretrained("{shown_path(directory / "best")}")',
        "Look closer": run_tune_on(directory, "trials"),
    }
    for label, text in lines.items():
        console.print(f"{label + ':':12} {text}", soft_wrap=True, highlight=False)
