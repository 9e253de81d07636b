"""How well one soft token steers the embedded LLM: the default training against a closed gate.

python benchmarks/embedded_llm.py --seed 271828
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RUN_TUNE = Path(__file__).parents[1] / "run_tune.py"
CLOSED_GATE = ["--set", "training.gate_lr_multiplier=0"]


def train(out: Path, seed: int, extra: list[str]) -> tuple[list[dict[str, Any]], float]:
    """The history of one training by the command line, and its seconds, start-up included."""
    command = [
        sys.executable,
        str(RUN_TUNE),
        "train",
        "--seed",
        str(seed),
        "--output_dir",
        str(out),
    ]
    start = time.perf_counter()
    subprocess.run([*command, *extra], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    newest = max(out.glob("checkpoint_*"))
    return json.loads((newest / "meta.json").read_text(encoding="utf-8"))["history"], seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, required=True)
    seed = parser.parse_args().seed
    with tempfile.TemporaryDirectory() as directory:
        history, seconds = train(Path(directory) / "gated", seed, [])
        closed, _ = train(Path(directory) / "closed", seed, CLOSED_GATE)
    last, reference = history[-1], closed[-1]
    alphas = [row["gate_alpha"] for row in history]
    drop = max(max(alphas[: i + 1]) - alpha for i, alpha in enumerate(alphas))
    print(f"seed                     {seed}, {last['epoch']} epochs, {seconds:.0f} s")
    print(
        f"val_loss                 {last['val_loss']:.4f}, gate at 0: {reference['val_loss']:.4f}"
    )
    print(f"ratio                    {last['val_loss'] / reference['val_loss']:.3f}")
    print(f"gate alpha               {last['gate_alpha']:.3f}, largest fall on the way {drop:.3f}")
    print(f"semantic retention       {last['semantic_retention']:.3f}")
    print(f"field accuracy           {last['field_accuracy']:.3f}")
    print(f"  the same, gate at 0    {reference['field_accuracy']:.3f}")


if __name__ == "__main__":
    main()
