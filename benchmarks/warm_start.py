"""How many trials on a larger LLM are saved by starting from what a small one's sweep has found.

    python -m benchmarks.warm_start DIRECTORY [--seeds 5] [--trials 16] [--steps 120] [--json FILE]

Per seed: a sweep on the embedded LLM (D = 128), then two on a larger one (``wider_llm``, D = 256):
a cold one, and one that begins with the small one's best configurations, as
``launch --warm_start_from`` does. All search the default space with the default search, one trial
after the other, nobody stopped early. Counted are the trials that each needs for the best loss of
the configurations carried over, and to come within 1, 3 and 5 % of the best loss that the cold
sweep ever reached. The sweeps stay in DIRECTORY, for ``trials NAME --storage DIRECTORY``.
"""

from __future__ import annotations

import argparse
import math
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, median
from typing import Any

import optuna
import torch

from benchmarks.wider_llm import widen
from benchmarks.workload import (
    SWEEP_FILE,
    epochs,
    prepare,
    print_table,
    write_json,
)
from trainables.errors import TrialEndedError
from trainables.inputs.find_or_prepare import find_or_prepare
from trainables.llm.frozen import load_llm
from tuning.config.space import searched_values, with_params
from tuning.config.sweep import ResolvedSweep, SweepConfig, load_sweep
from tuning.history.event_log import EventLog, now
from tuning.history.record import SweepRecord, trial_name
from tuning.search.suggestions import Suggestions
from tuning.search.warm_start import MOST as CARRIED
from tuning.search.warm_start import warm_started
from tuning.sweep.directory import create_directory

PROCESSES = 2
MARGINS = (0.01, 0.03, 0.05)
SHOWN_TRIALS = (1, 2, 3, 5, 8, 12, 16)
OTHER_SEEDS = 1000
LARGE_DIR = "large_llm"


@dataclass(frozen=True)
class Comparison:
    """One seed: the loss after each trial of the three sweeps, and their seconds."""

    seed: int
    small: list[float]
    cold: list[float]
    warm: list[float]
    seconds: dict[str, float]

    @property
    def goals(self) -> list[float]:
        """The best loss of what was carried over, then the margins above the best cold one."""
        return [min(self.warm[:CARRIED]), *((1 + m) * min(self.cold) for m in MARGINS)]


def trials_until(losses: list[float], goal: float) -> float:
    """The number of the first trial that reaches ``goal``; infinite if none does."""
    return next((i for i, loss in enumerate(losses, start=1) if loss <= goal), math.inf)


def compare(directory: Path, trials: int, seed: int) -> Comparison:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    larger = (f"train.model.llm_model={directory / LARGE_DIR}",)
    # Seeds of their own: else the cold sweep's first points would be the small one's.
    small_config = _config(directory, trials, seed, (f"search.seed={seed + OTHER_SEEDS}",))
    small = ResolvedSweep(f"small_{seed}", small_config)
    cold = ResolvedSweep(f"cold_{seed}", _config(directory, trials, seed, larger))
    losses, seconds = {}, {}
    for kind, sweep in (("small", small), ("cold", cold)):
        losses[kind], seconds[kind] = _run(sweep)
    warm = warm_started(ResolvedSweep(f"warm_{seed}", cold.config), small.directory)
    losses["warm"], seconds["warm"] = _run(warm)
    return Comparison(seed, **losses, seconds=seconds)


def _config(directory: Path, trials: int, seed: int, extra: tuple[str, ...]) -> SweepConfig:
    return load_sweep(
        directory / SWEEP_FILE,
        [
            f"num_trials={trials}",
            f"storage={directory}",
            f"search={{type: tpe, seed: {seed}}}",
            f"train.training.seed={seed}",
            *extra,
        ],
    )


def _run(sweep: ResolvedSweep) -> tuple[list[float], float]:
    """A sweep without Ray, its history on disk: the loss of every trial, and seconds."""
    create_directory(sweep)
    config = sweep.config
    llm = load_llm(config.train)
    inputs, _ = find_or_prepare(config.train, torch.cuda.is_available(), llm=llm)
    record = SweepRecord(sweep.name, config.metric, config.mode, config.num_trials)
    suggestions = Suggestions(
        config.search_space,
        config.search,
        record,
        first=config.warm_start,
        fixed=searched_values(config.train, config.search_space),
    )
    log = EventLog(sweep.directory)

    def tell(event: str, number: int, **content: Any) -> None:
        told = {"event": event, "trial_id": trial_name(number), **content, "time": now()}
        record.apply(told)
        log.write(told)

    start = time.perf_counter()
    for number in range(config.num_trials):
        params = suggestions.draw(number).params
        tell("trial", number, params=params)
        tell("start", number)
        status, message = "finished", ""
        try:
            for _, history in epochs(with_params(config.train, params, "trial"), inputs, llm):
                tell("epoch", number, metrics=history[-1])
        except TrialEndedError as error:
            status, message = error.status, error.message
        tell("end", number, status=status, message=message)
    log.close()
    values = [record.value(trial) for trial in record.ordered()]
    return [float("inf") if v is None else v for v in values], time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--steps", type=int, default=120, help="optimiser steps of a trial")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    directory = options.directory.absolute()
    prepare(directory, options.steps)
    widen(directory / LARGE_DIR, seed=0)
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(compare, directory, options.trials, s) for s in range(options.seeds)]
        found = [task.result() for task in tasks]
    _print(found, options.trials)
    write_json(options.json, [asdict(comparison) for comparison in found])


def _print(found: list[Comparison], trials: int) -> None:
    kinds = ("cold", "warm")
    header = [f"{k} to {g}" for g in ("carried", *(f"{m:.0%}" for m in MARGINS)) for k in kinds]
    counts = [[trials_until(getattr(c, k), g) for g in c.goals for k in kinds] for c in found]
    rows = []
    for one, until in zip(found, counts, strict=True):
        best = [f"{min(losses):.4f}" for losses in (one.small, one.cold, one.warm)]
        rows.append([str(one.seed), *best, *(_count(n, trials) for n in until)])
    medians = [_count(median(column), trials) for column in zip(*counts, strict=True)]
    rows.append(["median", "", "", "", *medians])
    print_table(["seed", "small best", "cold best", "warm best", *header], rows)
    print("\nbest loss so far, mean of the seeds")
    after = [n for n in SHOWN_TRIALS if n <= trials]
    curves = [[_mean_best(found, kind, n) for n in after] for kind in kinds]
    table = [[k, *(f"{v:.4f}" for v in curve)] for k, curve in zip(kinds, curves, strict=True)]
    print_table(["trials", *map(str, after)], table)
    each = {kind: median(c.seconds[kind] for c in found) / trials for kind in found[0].seconds}
    print("\nseconds per trial: " + ", ".join(f"{k} {v:.1f}" for k, v in each.items()))


def _count(number: float, trials: int) -> str:
    return f"> {trials}" if math.isinf(number) else f"{number:g}"


def _mean_best(found: list[Comparison], kind: str, trials: int) -> float:
    return fmean(min(getattr(comparison, kind)[:trials]) for comparison in found)


if __name__ == "__main__":
    main()
