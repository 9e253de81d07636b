"""What a search space's points come to: a table of truth for `benchmarks.search`.

python -m benchmarks.search_table --space search_spaces/default.yaml \\
    --out benchmarks/tables/default.csv.xz

A finished sweep is such a table. 160 points of a quasi-random sequence, nobody stopped, on 60 rows
of each shipped tool for 9 epochs; then 12 of the best points and 12 of the others four times more,
with other seeds, which tells the noise. The sweeps lie in --storage and are gone on with where a
call before was interrupted; an --out that exists gets the seeds that it lacks. About an hour per
space on 2 cores.

The table has one row per point, seed and epoch: `point` (equal parameters, equal number), `seed`,
`status`, `params.KEY` for each key of the space, `epoch`, and the figures of that epoch. Whoever
has curves of another origin can write them in this form.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from trainables.config import SHIPPED_DATA
from tuning.history.record import SweepRecord, SweepState, TrialRecord
from tuning.history.sweeps import read_sweep

ROWS_PER_TOOL = 60
EPOCHS = 9
AGAIN = 24
FIGURES = ("val_loss", "train_loss", "semantic_retention", "gate_alpha")


def small_table(directory: Path) -> Path:
    """The first rows of each tool of the shipped table."""
    whole = pd.read_csv(SHIPPED_DATA["profiling_data"], dtype=str, keep_default_na=False)
    path = directory / "profiling.csv"
    whole.groupby("tool", sort=False).head(ROWS_PER_TOOL).to_csv(path, index=False)
    return path


def trained(name: str, storage: Path, sweep: dict[str, Any]) -> SweepRecord:
    """The sweep of this name, launched, gone on with, or found finished."""
    directory = storage / name
    run = [sys.executable, "run_tune.py"]
    if not directory.exists():
        file = storage / f"{name}.yaml"
        file.write_text(yaml.safe_dump(sweep), encoding="utf-8")
        run += ["launch", "--name", name, "--config", str(file), "--storage", str(storage)]
        subprocess.run(run, check=True)
    elif read_sweep(directory).state != SweepState.FINISHED:
        subprocess.run([*run, "resume", name, "--storage", str(storage)], check=True)
    return read_sweep(directory)


def chosen(table: pd.DataFrame) -> pd.DataFrame:
    """The points to train again, a row each: half are the best, the others lie evenly behind."""
    ends = table[table["seed"].eq(0) & table["epoch"].eq(EPOCHS)].sort_values("val_loss")
    half = AGAIN // 2
    rest = len(ends) - half
    left = [half + (2 * i + 1) * rest // (2 * half) for i in range(half)]
    return ends.iloc[[*range(half), *left]]


def parameters(points: pd.DataFrame) -> list[dict[str, Any]]:
    """A point may lack a key: one that its own parameters leave without a meaning."""
    rows = json.loads(points.filter(like="params.").to_json(orient="records", double_precision=15))
    return [
        {key.removeprefix("params."): value for key, value in row.items() if value is not None}
        for row in rows
    ]


def rows(trials: Sequence[TrialRecord], points: Sequence[int], seed: int) -> list[dict[str, Any]]:
    return [
        {
            "point": point,
            "seed": seed,
            "status": str(trial.status),
            **{f"params.{key}": value for key, value in trial.params.items()},
            "epoch": epoch,
            **{key: round(trial.reports[epoch][key], 6) for key in FIGURES},
        }
        for point, trial in zip(points, trials, strict=True)
        for epoch in sorted(trial.reports)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--space", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--storage", type=Path, default=Path("sweeps"))
    parser.add_argument("--trials", type=int, default=160)
    parser.add_argument("--seeds", type=int, default=4, help="further ones, of 24 points")
    options = parser.parse_args()
    options.storage.mkdir(parents=True, exist_ok=True)
    name = f"table_{options.space.stem}"
    training = {"num_epochs": EPOCHS, "field_accuracy_samples": 0}
    data = {"profiling_data": str(small_table(options.storage).absolute())}
    sweep: dict[str, Any] = {
        "train": {"data": data, "training": training},
        "search_space": str(options.space.absolute()),
        "search": {"type": "qmc"},
        "scheduler": {"type": "none"},
        "num_trials": options.trials,
        "group": options.trials,  # nobody waits for anybody
        "keep_best": 1,
    }
    if options.out.exists():
        table = pd.read_csv(options.out)
    else:
        record = trained(name, options.storage, sweep).ordered()
        table = pd.DataFrame(rows(record, [t.number for t in record], 0))
    again = chosen(table)
    for seed in sorted(set(range(1, options.seeds + 1)) - set(table["seed"])):
        other = {
            **sweep,
            "train": {"data": data, "training": {**training, "seed": seed}},
            "num_trials": len(again),
            "group": len(again),
            "warm_start": parameters(again),
        }
        repeated = trained(f"{name}_seed{seed}", options.storage, other).ordered()
        table = pd.concat([table, pd.DataFrame(rows(repeated, again["point"].tolist(), seed))])
    table.to_csv(options.out, index=False)
    print(f"{options.out}: {len(table)} rows, {options.out.stat().st_size / 2**10:.0f} KiB")


if __name__ == "__main__":
    main()
