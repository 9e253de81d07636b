"""``compare``: both architectures on the same data, seeds and budget, into a directory.

compare.md      the tables and what they tell     runs/   one file per training
compare.json    the same as numbers               compare.png
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainables.config import PretrainConfig
from trainables.errors import UserError
from trainables.files import check_writable, replace_file, write_text
from trainables.inputs.checked_data import CheckedData
from trainables.inputs.probing import check_llm
from trainables.yaml_config import build
from tuning.checks import check_train
from tuning.comparison.experiment import Plan, Results, Runner, run_experiment
from tuning.comparison.figures import Figures, as_json, compute_figures
from tuning.comparison.jobs import ARCHITECTURES, with_split_of, with_training
from tuning.comparison.plots import comparison_info, draw_comparison
from tuning.comparison.promises import Promise, check_promises
from tuning.comparison.report import PICTURE_FILE, describe_plan, page
from tuning.terminal import Say

REPORT_FILE, JSON_FILE, RUNS_DIR = "compare.md", "compare.json", "runs"


def compare_architectures(plan: Plan, out: Path, say: Say) -> dict[str, Any]:
    """Train, compute and write; returns what ``compare.json`` holds."""
    runs = out / RUNS_DIR
    plan = replace(plan, config=with_split_of(runs, plan.config))
    data = _check(plan, out)
    runs.mkdir(parents=True, exist_ok=True)
    results = _train(plan, runs, say)
    figures = compute_figures(results.seeds)
    if not all(figures.spreads["val_loss"].values()):
        raise UserError(f"no seed of one architecture came to its end; see {runs}")
    checks = check_promises(figures, results.seeds)
    answer = _answer(plan, results, figures, checks)
    info = comparison_info(results.seeds)
    replace_file(out / PICTURE_FILE, lambda aside: draw_comparison(info, aside))
    write_text(out / JSON_FILE, json.dumps(answer, indent=1) + "\n")
    head = ["# Two architectures compared", "", *describe_plan(plan, _describe(data)), ""]
    machine = [*_describe_machine(results), ""]
    lines = [*head, *machine, *page(plan, results, figures, checks)]
    write_text(out / REPORT_FILE, "\n".join(lines) + "\n")
    return answer


def _check(plan: Plan, out: Path) -> CheckedData:
    """Whatever can be wrong before hours of training; nothing is created."""
    check_writable(out, "--out")
    if (out / REPORT_FILE).exists():
        raise UserError(f"--out {out}: holds a comparison that is complete; give another directory")
    if out.is_dir() and any(out.iterdir()) and not (out / RUNS_DIR).is_dir():
        raise UserError(f"--out {out}: holds something else; give another directory")
    for architecture in ARCHITECTURES:
        training = plan.config.training
        config = with_training(plan.config, architecture, training.learning_rate, training.seed)
        build(PretrainConfig, config.model_dump(), "compare")
    data = check_train(plan.config)
    check_llm(plan.config, data)
    return data


def _train(plan: Plan, runs: Path, say: Say) -> Results:
    from tuning.comparison.worker import fill_cache, train_job

    say(f"shared inputs: prepared once, cached in {plan.config.model.cache_dir}")
    first = multiprocessing.get_context("spawn").Process(
        target=fill_cache, args=(plan.config, plan.threads), daemon=True
    )
    first.start()
    first.join()
    if first.exitcode:
        raise UserError("the shared inputs could not be prepared; the reason stands above")
    runner = Runner(plan, runs, say, train_job)
    try:
        return run_experiment(plan, runner, say)
    finally:
        runner.close()


def _answer(
    plan: Plan,
    results: Results,
    figures: Figures,
    checks: list[Promise],
) -> dict[str, Any]:
    return {
        "config": plan.config.model_dump(mode="json"),
        "seeds": plan.seeds,
        "trials": plan.trials,
        "workers": plan.workers,
        "threads": plan.threads,
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "load": _loads(results),
            "python": platform.python_version(),
            "torch": version("torch"),
        },
        "figures": as_json(figures),
        "promises": [vars(check) for check in checks],
        "tuning": {
            a: [
                {"learning_rate": t.config.training.learning_rate, "val_loss": t.final_loss}
                for t in tried
            ]
            for a, tried in results.tuning.items()
        },
        "histories": {a: [t.history for t in trained] for a, trained in results.seeds.items()},
    }


def _describe(data: CheckedData) -> str:
    return (
        f"{len(data.tools)} tools, {len(data.train_rows)} training and {len(data.val_rows)} "
        "held-out rows"
    )


def _describe_machine(results: Results) -> list[str]:
    loads = _loads(results)
    return [
        f"{os.cpu_count()} cores of {_cpu()}, Python {platform.python_version()}, torch "
        f"{version('torch')}; load average {min(loads):.1f} to {max(loads):.1f} at the ends of the "
        "trainings."
    ]


def _loads(results: Results) -> list[float]:
    return [t.load for trained in results.seeds.values() for t in trained]


def _cpu() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
