"""What a sweep is worth on very little data: 4 tools, 24 rows, 40 epochs of two steps or fewer.

    python -m benchmarks.small_table DIRECTORY [--seeds 10] [--trials 12] [--json FILE]

Per seed a default sweep and one plain ``train`` of the same file, rows and epochs. Counted are the
value of the encoder that the sweep exports, the lowest value that any epoch of any trial had, and
that of the epoch which ``train`` names. What lies in DIRECTORY from a call before is used again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import yaml

from benchmarks.workload import write_json
from trainables.config import SHIPPED_DATA
from trainables.training.checkpoint_files import best_checkpoint, read_meta

TOOLS = 4
ROWS = 6  # of each
EPOCHS = 40
RUN_TUNE = [sys.executable, "run_tune.py"]


def write_training(directory: Path) -> Path:
    """Rows from all over each tool's figures, not the first ones alone."""
    directory.mkdir(parents=True, exist_ok=True)
    tools = json.loads(SHIPPED_DATA["tool_registry"].read_text(encoding="utf-8"))[:TOOLS]
    (directory / "tools.json").write_text(json.dumps(tools), encoding="utf-8")
    whole = pd.read_csv(SHIPPED_DATA["profiling_data"], dtype=str, keep_default_na=False)
    rows = [
        group.iloc[[(2 * i + 1) * len(group) // (2 * ROWS) for i in range(ROWS)]]
        for tool in tools
        for group in [whole[whole["tool"].eq(tool["name"])]]
    ]
    pd.concat(rows).to_csv(directory / "profiling.csv", index=False)
    path = directory / "train.yaml"
    content = {
        "data": {"tool_registry": "tools.json", "profiling_data": "profiling.csv"},
        "training": {"num_epochs": EPOCHS},
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def swept(directory: Path, training: Path, seed: int, trials: int) -> dict[str, float]:
    """The exported value, and the lowest that was seen."""
    name, storage = f"seed_{seed}", ["--storage", str(directory / "sweeps")]
    if not (directory / "sweeps" / name).exists():
        run = [*RUN_TUNE, "launch", "--name", name, *storage, "--num_trials", str(trials)]
        for setting in (f"train={training}", f"search.seed={seed}", f"train.training.seed={seed}"):
            run += ["--set", setting]
        subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
    answer = subprocess.run(
        [*RUN_TUNE, "trials", name, *storage, "--json"], check=True, capture_output=True
    )
    histories = [trial["history"] for trial in json.loads(answer.stdout)]
    best = subprocess.run(
        [*RUN_TUNE, "best", name, *storage, "--json"], check=True, capture_output=True
    )
    checkpoint = Path(json.loads(best.stdout)["checkpoint"])
    exported: float = read_meta(checkpoint)["metrics"]["val_loss"]
    return {"exported": exported, "seen": min(e["val_loss"] for h in histories for e in h)}


def plain(directory: Path, training: Path, seed: int) -> float:
    out = directory / f"train_{seed}"
    if not out.exists():
        run = [*RUN_TUNE, "train", "--config", str(training), "--output_dir", str(out)]
        subprocess.run([*run, "--seed", str(seed)], check=True, stdout=subprocess.DEVNULL)
    best = best_checkpoint(out)
    if best is None:
        raise SystemExit(f"error: {out} has no checkpoint; remove it and call again")
    return float(read_meta(best)["metrics"]["val_loss"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    directory = options.directory.absolute()
    training = write_training(directory)
    found: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        row = {"seed": seed, **swept(directory, training, seed, options.trials)}
        row["train"] = plain(directory, training, seed)
        found.append(row)
        print(
            f"seed {seed}: exported {row['exported']:.4f}, lowest seen {row['seen']:.4f}, "
            f"train {row['train']:.4f}",
            flush=True,
        )
    better = sum(row["exported"] < row["train"] for row in found)
    as_seen = sum(row["exported"] <= row["seen"] for row in found)
    middle = {key: median(row[key] for row in found) for key in ("exported", "seen", "train")}
    print(
        f"better than train: {better} of {len(found)}; as good as the lowest seen: {as_seen}; "
        f"medians: {', '.join(f'{key} {value:.4f}' for key, value in middle.items())}"
    )
    write_json(options.json, found)


if __name__ == "__main__":
    main()
