"""The command ``refit``: a configuration that a sweep has found, trained anew with other seeds.

The value that made a trial win is the luckiest of many, and so better than what it is worth. The
mean of trainings with other seeds is not: no choice was made by them. Beside it stands a baseline,
one training whose gate is held at 0, which the resource figures do not pass.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainables.config import PretrainConfig, as_begun
from trainables.errors import TrialEndedError, UserError
from trainables.files import exists, write_text
from trainables.training.checkpoint_files import (
    best_checkpoint,
    checkpoints,
    newest_whole,
    read_meta,
)
from tuning.history.export import best_of, write_encoder
from tuning.history.record import SweepRecord, TrialRecord
from tuning.history.refitted import RESULT_FILE, described
from tuning.history.sweeps import read_sweep
from tuning.one_training import train
from tuning.sweep.directory import check_inputs
from tuning.terminal import duration

CONFIG_FILE = "training.yaml"  # JSON, which is YAML
GATE_CLOSED = "gate_closed"


@dataclass(frozen=True)
class Refitted:
    """One training of one seed: where its weights lie, and the figures of their epoch."""

    seed: int
    checkpoint: Path
    metrics: dict[str, Any]


def refit(
    directory: Path, out: Path, *, seeds: int, num_epochs: int | None, trial_id: str | None
) -> None:
    """Train ``seeds`` times, export the best of them to ``out``/best, tell mean and error.

    The seeds follow the one that the sweep trained with. The same call goes on where it was
    interrupted. Raises UserError for what cannot be used, before anything is written.
    """
    record = read_sweep(directory)
    trial, checkpoint = best_of(directory, record, trial_id)
    check_inputs(directory)
    config = PretrainConfig.model_validate(as_begun(read_meta(checkpoint)["config"]))
    if num_epochs is not None:
        training = config.training.model_copy(update={"num_epochs": num_epochs})
        config = config.model_copy(update={"training": training})
    _begin(out, config)
    first = config.training.seed + 1
    print(f"{trial.trial_id} of {record.name}, {config.training.num_epochs} epochs, {seeds} seeds")
    names = {f"seed_{first + k}": {"seed": first + k} for k in range(seeds)}
    if config.model.architecture == "gated_fusion":
        names[GATE_CLOSED] = {"seed": first, "gate_lr_multiplier": 0}
    found: dict[str, Refitted] = {}
    ended: dict[str, str] = {}
    start, trained = time.perf_counter(), 0
    for number, (name, changed) in enumerate(names.items()):
        left = ""
        if trained:
            each = (time.perf_counter() - start) / trained
            left = f", {duration(each * (len(names) - number))} left"
        print(f"{name}: {number + 1} of {len(names)} trainings{left}", flush=True)
        try:
            trained += _train(out / CONFIG_FILE, out / name, changed)
            found[name] = _refitted(record, out / name, changed["seed"])
        except TrialEndedError as error:  # which is an answer, too
            ended[name] = f"{error.status}: {error}"
            print(f"{name} ended, {ended[name]}")
    closed = found.pop(GATE_CLOSED, None)
    if not found:
        raise TrialEndedError(f"no seed came to its end; the first: {next(iter(ended.values()))}")
    best = _best(record, list(found.values()))
    result = {
        **_result(record, trial, list(found.values())),
        "num_epochs": config.training.num_epochs,
        "gate_closed": closed and closed.metrics[record.metric],
        "ended": ended,
    }
    _export(directory, trial, best, out, f"{described(result)}; standard error of the mean")
    write_text(out / RESULT_FILE, json.dumps(result, indent=2) + "\n")
    before = record.value(trial)
    print("\n" + described(result) + (f"; in the sweep {before:.4f}" if before is not None else ""))
    for one in found.values():
        value, epoch = one.metrics[record.metric], int(one.metrics["epoch"])
        print(f"      seed {one.seed}: {value:.4f} at epoch {epoch}")
    print(f"Exported: {out / 'best'}")


def _begin(out: Path, config: PretrainConfig) -> None:
    """Keep the configuration; a directory of another one is refused."""
    text = json.dumps(config.model_dump(mode="json"), indent=2) + "\n"
    path = out / CONFIG_FILE
    if exists(path, "--out"):
        if path.read_text(encoding="utf-8") != text:
            raise UserError(
                f"{out}: holds a refit of another trial or of other epochs; give another --out"
            )
    elif exists(out, "--out"):
        raise UserError(f"--out {out}: exists already and holds no refit; give another directory")
    else:
        try:
            out.mkdir(parents=True)
            write_text(path, text)
        except OSError as error:
            raise UserError(f"--out {out}: cannot be written: {error}") from None


def _train(path: Path, place: Path, changed: Mapping[str, int]) -> bool:
    """Whether there was anything left to train."""
    begun = bool(checkpoints(place))
    if begun:
        meta = read_meta(newest_whole(place))
        if meta["epoch"] == meta["config"]["training"]["num_epochs"]:
            print("      trained already")
            return False
    overrides = [f"training.{key}={value}" for key, value in changed.items()]
    overrides.append(f"logging.output_dir={json.dumps(str(place))}")
    train(path, overrides, begun, log_wandb=False)
    return True


def _refitted(record: SweepRecord, place: Path, seed: int) -> Refitted:
    by_best = record.metric_at == "best" and record.metric == "val_loss"
    checkpoint = (best_checkpoint(place) if by_best else None) or newest_whole(place)
    return Refitted(seed, checkpoint, read_meta(checkpoint)["metrics"])


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and its standard error, s / sqrt(n); one value alone has none."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    return mean, statistics.stdev(values) / len(values) ** 0.5


def _best(record: SweepRecord, found: Sequence[Refitted]) -> Refitted:
    sign = 1 if record.mode == "min" else -1
    return min(found, key=lambda one: sign * float(one.metrics[record.metric]))


def _result(record: SweepRecord, trial: TrialRecord, found: Sequence[Refitted]) -> dict[str, Any]:
    mean, error = mean_and_error([float(one.metrics[record.metric]) for one in found])
    return {
        "sweep": record.name,
        "trial": trial.trial_id,
        "metric": record.metric,
        "in_the_sweep": record.value(trial),
        "mean": mean,
        "standard_error": error,
        "seeds": {str(one.seed): one.metrics[record.metric] for one in found},
    }


def _export(directory: Path, trial: TrialRecord, best: Refitted, out: Path, told: str) -> None:
    epoch = int(best.metrics["epoch"])
    refitted = replace(trial, reports={epoch: best.metrics}, best_epoch=None, findings={})
    heading = f"""# Resource encoder, refitted

{told}.
The weights are those of seed {best.seed}, epoch {epoch}: the best of them, so that the mean is what
to expect.
"""
    write_encoder(directory, refitted, best.checkpoint, out / "best", heading, replace=True)
