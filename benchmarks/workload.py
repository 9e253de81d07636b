"""What every benchmark of a sweep trains: the same rows, the same trials, the same loop.

python -m benchmarks.workload DIRECTORY --steps 60
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import pickle
import random
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from search_spaces.ranges import draw
from search_spaces.schema import SearchSpace
from trainables.config import EMBEDDED, SHIPPED_DATA, PretrainConfig
from trainables.inputs.checked_data import read_data
from trainables.inputs.find_or_prepare import find_or_prepare
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.frozen import FrozenLLM
from trainables.training.batches import Batch, DeviceInputs
from trainables.training.pretraining import Pretraining
from trainables.training.run import Run
from tuning.config.space import with_params
from tuning.config.sweep import DEFAULT_SPACE, load_sweep

BATCH_SIZE = 16
EPOCHS = 4
SEED = 0
SWEEP_FILE = "sweep.yaml"
INPUTS_FILE = "inputs.pickle"
History = list[dict[str, Any]]


@dataclass(frozen=True)
class Workload:
    """The base configuration, the search space and the inputs, read from a directory."""

    directory: Path
    config: PretrainConfig
    space: SearchSpace
    seed: int
    inputs: SharedInputs

    @classmethod
    def open(cls, directory: Path) -> Workload:
        sweep = load_sweep(directory / SWEEP_FILE)
        inputs = pickle.loads((directory / INPUTS_FILE).read_bytes())
        return cls(directory, sweep.train, sweep.search_space, sweep.search.seed, inputs)

    def trials(self, count: int) -> list[dict[str, Any]]:
        """The parameters of the first trials, as a sweep with a random search draws them."""
        import optuna  # seconds that a worker process need not spend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=self.seed))
        return [draw(self.space, study.ask()) for _ in range(count)]

    def configs(self, count: int) -> list[PretrainConfig]:
        """The whole configuration of each of the first trials."""
        return [with_params(self.config, params, "trial") for params in self.trials(count)]


def prepare(directory: Path, steps: int) -> Workload:
    """Write data, sweep file and inputs such that a trial has ``steps`` optimiser steps.

    The inputs also lie in the cache afterwards, where the project's own sweep finds them.
    """
    if steps < EPOCHS or steps % EPOCHS:
        raise SystemExit(f"--steps is {steps}, but must be a multiple of {EPOCHS}")
    directory.mkdir(parents=True, exist_ok=True)
    rows = BATCH_SIZE * steps // EPOCHS
    write_data(directory, rows)
    (directory / SWEEP_FILE).write_text(
        yaml.safe_dump(_sweep(directory), sort_keys=False), encoding="utf-8"
    )
    config = load_sweep(directory / SWEEP_FILE).train
    data = read_data(config)
    assert len(data.train_rows) == rows, f"{len(data.train_rows)} training rows, not {rows}"
    inputs, _ = find_or_prepare(config, torch.cuda.is_available())
    (directory / INPUTS_FILE).write_bytes(pickle.dumps(inputs))
    return Workload.open(directory)


def _sweep(directory: Path) -> dict[str, Any]:
    training = {"batch_size": BATCH_SIZE, "num_epochs": EPOCHS, "field_accuracy_samples": 0}
    return {
        "train": {
            "model": {"llm_model": EMBEDDED, "cache_dir": str(directory.absolute() / "hub")},
            "data": {"tool_registry": "tools.json", "profiling_data": "profiling.csv"},
            "training": training,
        },
        "search_space": str(DEFAULT_SPACE),
        "search": {"type": "random", "seed": SEED},
        "scheduler": {"type": "none"},
    }


def write_data(directory: Path, training_rows: int) -> None:
    """The shipped registry, and a fixed choice of the shipped table's rows."""
    shutil.copyfile(SHIPPED_DATA["tool_registry"], directory / "tools.json")
    with SHIPPED_DATA["profiling_data"].open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    tools = sorted({row[0] for row in rows})
    chosen: list[list[str]] = []
    for place, tool in enumerate(tools):
        share = training_rows // len(tools) + (place < training_rows % len(tools))
        of_tool = [row for row in rows if row[0] == tool]
        chosen += random.Random(place).sample(of_tool, _rows_for(share))
    with (directory / "profiling.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *chosen])


def _rows_for(training_rows: int) -> int:
    """Rows of a tool of which so many remain when a tenth is held out."""
    return next(n for n in itertools.count(2) if n - max(1, round(0.1 * n)) == training_rows)


def epochs(
    config: PretrainConfig, inputs: SharedInputs, llm: FrozenLLM
) -> Iterator[tuple[Run, History]]:
    """Train one trial with the project's own loop: the run and its history after each epoch."""
    pretraining = Pretraining(config, inputs, llm)
    history: History = []
    for report in pretraining.reports():
        history.append(report.metrics)
        yield pretraining.run, history


def all_batches(config: PretrainConfig, inputs: DeviceInputs) -> list[Batch]:
    """The batches of every step of a trial, in the order in which the project trains on them."""
    run = Run(config, inputs)
    nothing = (torch.zeros((), device=inputs.device),) * len(run.series.COLUMNS)
    batches = []
    for _ in range(config.training.num_epochs):
        run.start_epoch()
        while run.in_epoch:
            batches.append(run.next_batch())
            run.series.add(nothing, 0.0, 0)
    return batches


def alternative_parser(doc: str | None) -> argparse.ArgumentParser:
    """The arguments that every alternative takes."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--workload", type=Path, required=True, metavar="DIRECTORY")
    parser.add_argument("--trials", type=int, default=64)
    return parser


def print_result(seconds: float, val_loss: Mapping[int, float]) -> None:
    """The one line that an alternative ends with: seconds, and each trial's last val_loss."""
    print(json.dumps({"seconds": seconds, "val_loss": dict(sorted(val_loss.items()))}), flush=True)


def fit_and_print(tuner: Any) -> None:
    """Run a Ray Tune tuner against the clock; its trials are known by ``config["number"]``."""
    start = time.perf_counter()
    results = tuner.fit()
    seconds = time.perf_counter() - start
    if results.errors:
        raise results.errors[0]
    print_result(seconds, {r.config["number"]: r.metrics["val_loss"] for r in results})


def relative_difference(a: float, b: float) -> float:
    return abs(a - b) / abs(b)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Plain columns, the first one to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        first, *others = (
            cell.rjust(w) if i else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())


def write_json(path: Path | None, document: Any) -> None:
    if path is not None:
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps of a trial")
    options = parser.parse_args()
    workload = prepare(options.directory, options.steps)
    trained, held_out = len(workload.inputs.train_rows), len(workload.inputs.val_rows)
    print(f"{options.directory}: {trained} rows for training, {held_out} held out")


if __name__ == "__main__":
    main()
