"""What a pretrained LLM takes to be steered: soft tokens, what stands around them, gate, rates.

    make real
    python -m benchmarks.pretrained_llm DIRECTORY [--only NAME ...]
    python -m benchmarks.pretrained_llm DIRECTORY --show [--picture FILE.png --sweep sweeps/smol]

60 rows of each shipped tool (420), batch 8, fp32, one thread; every variant is a training of its
own, of 60 or 300 steps, with the project's own step, schedule and evaluation. A variant's figures
are written to DIRECTORY/NAME.json; one that lies there is not trained again, so that several
processes can share the work and an interrupted one goes on. Several variants at a time: start the
command several times with other names.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.workload import print_table, write_data, write_json
from trainables.config import PretrainConfig, TrainingConfig, parse_config
from trainables.inputs.find_or_prepare import find_or_prepare
from trainables.llm.frozen import FrozenLLM, load_llm
from trainables.models.encoder import evaluating
from trainables.training.batches import DeviceInputs
from trainables.training.evaluation import evaluate, field_accuracy
from trainables.training.run import Run
from trainables.training.step import train_step
from tuning.history.sweeps import read_sweep

SMOLLM2 = Path("hub/SmolLM2-135M-Instruct")
TRAINING_ROWS = 54 * 7
SHORT, LONG = 60, 300
MARKS = (0, 15, 30, 45, 60, 150, 300)
SENTENCES = 5
# The RMS of SmolLM2's input embeddings; soft tokens are otherwise at unit RMS.
EMBEDDINGS_RMS = 0.136

# Name: (steps, settings that differ from the default, factor on the soft tokens).
Variant = tuple[int, dict[str, Any], float]
VARIANTS: dict[str, Variant] = {
    "default": (SHORT, {}, 1.0),
    "default, 300 steps": (LONG, {}, 1.0),
    "gate held at 0, 300 steps": (LONG, {"training.gate_lr_multiplier": 0}, 1.0),
    "S = 8": (SHORT, {"model.num_soft_tokens": 8}, 1.0),
    "S = 1": (SHORT, {"model.num_soft_tokens": 1}, 1.0),
    "nothing around": (SHORT, {"model.prompt": None}, 1.0),
    "S = 1, nothing around": (
        SHORT, {"model.num_soft_tokens": 1, "model.prompt": None}, 1.0,
    ),
    "learning rate 2e-3": (SHORT, {"training.learning_rate": 2e-3}, 1.0),
    "learning rate 5e-4": (SHORT, {"training.learning_rate": 5e-4}, 1.0),
    "gate x 10": (SHORT, {"training.gate_lr_multiplier": 10}, 1.0),
    "at the embeddings' RMS": (SHORT, {}, EMBEDDINGS_RMS),
    "1 head": (SHORT, {"model.num_attention_heads": 1}, 1.0),
    "default, seed 1": (SHORT, {"training.seed": 1}, 1.0),
    "default, seed 2": (SHORT, {"training.seed": 2}, 1.0),
    "default, 300 steps, seed 1": (LONG, {"training.seed": 1}, 1.0),
    "default, 300 steps, seed 2": (LONG, {"training.seed": 2}, 1.0),
}  # fmt: skip


def configuration(directory: Path, llm: Path, settings: Mapping[str, Any]) -> PretrainConfig:
    """A training of the rows in DIRECTORY, which are written there by the first that comes."""
    if not (directory / "profiling.csv").exists():
        write_data(directory, TRAINING_ROWS)
    training = {"batch_size": 8, "precision": "fp32", "num_epochs": 1}
    document: dict[str, Any] = {
        "model": {"llm_model": str(llm.absolute()), "cache_dir": str(directory / "hub")},
        "data": {"tool_registry": "tools.json", "profiling_data": "profiling.csv"},
        "training": training,
    }
    for dotted, value in settings.items():
        section, key = dotted.split(".")
        document[section][key] = value
    return parse_config(document, source="the benchmark", base=directory)


def train(config: PretrainConfig, llm: FrozenLLM, steps: int, factor: float) -> dict[str, Any]:
    """Losses at the marks, and what the encoder says in the end."""
    inputs = DeviceInputs(find_or_prepare(config, on_gpu=False, llm=llm)[0], llm.device)
    run = Run(config, inputs)
    run.total_steps = steps  # so that the schedule ends with the training
    if factor != 1:
        run.encoder.register_forward_hook(lambda module, given, out: out * factor)
    before = sentences(run, llm)
    losses: dict[int, float] = {}
    began = time.perf_counter()
    spent = 0.0
    while True:
        if run.step in MARKS:
            spent += time.perf_counter() - began
            losses[run.step], retention = evaluate(run, llm)
            print(f"  step {run.step}: {losses[run.step]:.4f}", flush=True)
            began = time.perf_counter()
        if run.step == steps:
            break
        run.begin_epoch()
        if failed := train_step([run], llm):
            raise failed[run]
    return {
        "val_loss": losses,
        "gate_alpha": run.encoder.get_gate_value(),
        "retention": retention,
        "seconds_per_step": spent / steps,
        "field_accuracy": field_accuracy(run, llm, len(inputs.val_rows)),
        "before": before,
        "after": sentences(run, llm),
    }


def sentences(run: Run, llm: FrozenLLM) -> list[dict[str, Any]]:
    """Held-out rows, evenly spread, with what the LLM writes after their soft tokens."""
    inputs, source = run.inputs, run.inputs.source
    places = torch.arange(SENTENCES) * len(inputs.val_rows) // SENTENCES
    rows = inputs.val_rows[places]
    with torch.no_grad(), evaluating(run.encoder):
        soft = run.encoder(inputs.tool_index[rows], inputs.features[rows])
    texts = llm.write(soft, int(source.token_counts.max()) + 4, inputs.prompt)
    return [
        {
            "tool": source.tool_names[int(inputs.tool_index[row])],
            "figures": list(source.written_figures[place]),
            "text": text,
        }
        for row, place, text in zip(rows.tolist(), places.tolist(), texts, strict=True)
    ]


def show(directory: Path) -> None:
    found = results(directory)
    rows = []
    for name, result in found.items():
        losses = {int(step): loss for step, loss in result["val_loss"].items()}
        rows.append([
            name, *(f"{losses[m]:.3f}" if m in losses else "" for m in MARKS),
            f"{result['gate_alpha']:.2f}", f"{result['retention']:.2f}",
            f"{result['field_accuracy']:.2f}", f"{result['seconds_per_step']:.1f}",
        ])  # fmt: skip
    header = ["variant", *map(str, MARKS), "alpha", "retention", "accuracy", "s/step"]
    print_table(header, rows)
    for steps in (SHORT, LONG):
        seeds = [
            r["val_loss"][str(steps)]
            for name, r in found.items()
            if VARIANTS[name][0] == steps and set(VARIANTS[name][1]) <= {"training.seed"}
            and VARIANTS[name][2] == 1
        ]  # fmt: skip
        if seeds:
            print(f"default after {steps} steps: median {statistics.median(seeds):.3f} of "
                  f"{len(seeds)} seeds, {min(seeds):.3f} to {max(seeds):.3f}")  # fmt: skip
    if long := found.get("default, 300 steps"):
        for before, after in zip(long["before"], long["after"], strict=True):
            print(f"\n{before['tool']}: {', '.join(before['figures'])}")
            print(f"  before: {before['text']!r}\n  after:  {after['text']!r}")


def results(directory: Path) -> dict[str, dict[str, Any]]:
    paths = {name: directory / f"{file_name(name)}.json" for name in VARIANTS}
    return {
        name: json.loads(p.read_text(encoding="utf-8")) for name, p in paths.items() if p.exists()
    }


def file_name(variant: str) -> str:
    return variant.replace(", ", "-").replace(" ", "_").replace("'", "")


def picture(directory: Path, path: Path, sweep: Path | None) -> None:
    """Held-out loss over the steps: by S and prompt, by scale and rate; a sweep's trials."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = {
        "soft tokens and what stands around them": (
            "default", "S = 8", "S = 1", "nothing around", "S = 1, nothing around",
        ),
        "gate, scale, learning rate, heads": (
            "default", "gate x 10", "at the embeddings' RMS", "learning rate 2e-3",
            "learning rate 5e-4", "1 head",
        ),
        "300 steps": (
            "default, 300 steps", "default, 300 steps, seed 1", "default, 300 steps, seed 2",
            "gate held at 0, 300 steps",
        ),
    }  # fmt: skip
    found = results(directory)
    figure, axes = plt.subplots(1, 4, figsize=(20, 4.6))
    for axis, (title, names) in zip(axes[:3], panels.items(), strict=True):
        for name in names:
            if name in found:
                losses = {int(k): v for k, v in found[name]["val_loss"].items()}
                label = "S = 16, chat turns (default)" if name == "default" else name
                axis.plot(list(losses), list(losses.values()), marker="o", label=label)
        axis.set(title=title, xlabel="step")
        axis.set(ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    axes[0].set(ylabel="held-out loss, nats per token")
    if sweep is not None:
        show_sweep(axes[3], sweep)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def show_sweep(axis: Any, sweep: Path) -> None:
    """The last held-out loss of every trial over its learning rate."""
    trials = read_sweep(sweep).trials.values()
    for dropout in sorted({t.params["model.dropout"] for t in trials}):
        chosen = [t for t in trials if t.params["model.dropout"] == dropout]
        rates = [t.params["training.learning_rate"] for t in chosen]
        axis.scatter(rates, [t.metrics["val_loss"] for t in chosen], label=f"dropout {dropout}")
    default = TrainingConfig().learning_rate
    axis.axvline(default, color="grey", linestyle="--", label="default learning rate")
    axis.set(title=f"a sweep of {len(trials)} trials", xlabel="learning rate", xscale="log")
    axis.set_xticks([3e-4, 1e-3, 3e-3], ["3e-4", "1e-3", "3e-3"], minor=False)
    axis.set_xticks([], minor=True)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--llm", type=Path, default=SMOLLM2)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), metavar="NAME")
    parser.add_argument("--show", action="store_true", help="print what lies there, train nothing")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--sweep", type=Path, help="a sweep over learning rate and dropout")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    if not options.show:
        torch.set_num_threads(1)
        llm: FrozenLLM | None = None
        for name in options.only or VARIANTS:
            path = options.directory / f"{file_name(name)}.json"
            if path.exists():
                continue
            print(name, flush=True)
            steps, settings, factor = VARIANTS[name]
            config = configuration(options.directory, options.llm, settings)
            llm = llm or load_llm(config, torch.device("cpu"))
            write_json(path, train(config, llm, steps, factor))
    show(options.directory)
    if options.picture:
        picture(options.directory, options.picture, options.sweep)


if __name__ == "__main__":
    main()
