"""The comparison's trainings: a learning rate found for each architecture, then every seed.

Each training is a process of its own, so that its peak memory is its own. What has been trained
lies in a directory and is not trained again when the command is given once more.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from trainables.config import PretrainConfig
from trainables.errors import UserError, how_it_ended
from tuning.comparison.jobs import (
    ARCHITECTURES,
    FINISHED,
    Job,
    Trained,
    best_rate,
    progress_path,
    read_result,
    with_training,
)
from tuning.terminal import Say, duration, shown_number

LOWEST_RATE, HIGHEST_RATE = 3e-4, 1e-2  # the grid goes on where its best stands at an end
MOST_EXTRA = 3  # learning rates tried beyond the grid's ends
POLL_SECONDS = 0.2
Train = Callable[[Job, Path], None]
MakeProcess = Callable[..., Any]


@dataclass(frozen=True)
class Plan:
    """What is compared: ``seeds`` trainings of each architecture after ``trials`` to tune it."""

    config: PretrainConfig
    seeds: int
    trials: int
    workers: int
    threads: int

    @property
    def epochs(self) -> int:
        """Of all trainings together, without those beyond the grid's ends."""
        jobs = len(ARCHITECTURES) * (self.seeds + self.trials)
        return jobs * self.config.training.num_epochs

    def tuning_job(self, architecture: str, rate: float) -> Job:
        """On the configuration's own seed, with which nothing is compared afterwards."""
        config = with_training(self.config, architecture, rate, self.config.training.seed)
        training = config.training.model_copy(update={"field_accuracy_samples": 0})
        config = config.model_copy(update={"training": training})
        return Job(f"{architecture}_rate_{rate:.3g}", config, False, self.threads)

    def seed_job(self, architecture: str, rate: float, number: int) -> Job:
        seed = self.config.training.seed + number
        config = with_training(self.config, architecture, rate, seed)
        return Job(f"{architecture}_seed_{seed}", config, True, self.threads)


@dataclass(frozen=True)
class Results:
    """By architecture: the trainings that tuned its learning rate, and those of all seeds."""

    tuning: dict[str, list[Trained]]
    seeds: dict[str, list[Trained]]


def learning_rates(count: int, default: float) -> list[float]:
    """``count`` learning rates at even ratios; the default alone for a count of 1."""
    if count == 1:
        return [default]
    ratio = (HIGHEST_RATE / LOWEST_RATE) ** (1 / (count - 1))
    return [float(f"{LOWEST_RATE * ratio**i:.4g}") for i in range(count)]


def beyond(tried: Sequence[Trained]) -> float | None:
    """The next learning rate outwards if the best one so far stands at an end of those tried."""
    rates = sorted(t.config.training.learning_rate for t in tried)
    best = best_rate(tried)
    if best is None or len(rates) < 2:
        return None
    ratio = rates[1] / rates[0]
    outer = {rates[0]: rates[0] / ratio, rates[-1]: rates[-1] * ratio}
    found = outer.get(best)
    return float(f"{found:.4g}") if found is not None and found <= 1 else None


class Runner:
    """Trains jobs in processes, ``workers`` at a time; tells what is done and how long it takes."""

    def __init__(
        self,
        plan: Plan,
        directory: Path,
        say: Say,
        train: Train,
        make_process: MakeProcess | None = None,
    ) -> None:
        self._plan = plan
        self._directory = directory
        self._say = say
        self._train = train
        self._make_process = make_process or multiprocessing.get_context("spawn").Process
        self._begun = time.monotonic()
        self._bar = tqdm(total=plan.epochs, unit="epoch", dynamic_ncols=True, disable=None)
        self._total = plan.epochs
        self._kept = 0  # epochs that were found done
        self._done = 0  # epochs of jobs that are over

    def run(self, jobs: Sequence[Job]) -> list[Trained]:
        """The results of all jobs, in their order."""
        waiting = [job for job in jobs if read_result(self._directory, job) is None]
        self._kept += (len(jobs) - len(waiting)) * self._plan.config.training.num_epochs
        running: dict[Any, Job] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self._plan.workers:
                    job = waiting.pop(0)
                    running[self._start(job)] = job
                time.sleep(POLL_SECONDS)
                for process in [p for p in running if not p.is_alive()]:
                    self._end(process, running.pop(process))
                self._show(running.values())
        finally:
            for process in running:
                process.terminate()
        found = [read_result(self._directory, job) for job in jobs]
        return [result for result in found if result is not None]

    def expect_more(self, jobs: int) -> None:
        """Trainings that were not planned."""
        self._total += jobs * self._plan.config.training.num_epochs
        self._bar.total = self._total

    def close(self) -> None:
        self._bar.close()

    def _start(self, job: Job) -> Any:
        progress_path(self._directory, job).write_text("", encoding="utf-8")
        process = self._make_process(target=self._train, args=(job, self._directory))
        process.daemon = True  # it ends with this one
        process.start()
        return process

    def _end(self, process: Any, job: Job) -> None:
        process.join()
        result = read_result(self._directory, job)
        if result is None:
            raise UserError(
                f"the training {job.name} {how_it_ended(process.exitcode)}; what it said "
                "stands above. What has been trained is kept: give the same --out again"
            )
        self._done += self._plan.config.training.num_epochs
        ending = f"val_loss {shown_number(result.final_loss)}"
        if result.outcome != FINISHED:
            ending = f"{result.outcome}: {result.message}"
        tqdm.write(f"{job.name}: {ending}, {duration(result.seconds)}{self._left()}")

    def _show(self, running: Any) -> None:
        here = sum(progress_path(self._directory, job).stat().st_size for job in running)
        self._bar.n = self._kept + self._done + here
        self._bar.refresh()

    def _left(self) -> str:
        left = self._total - self._kept - self._done
        per_epoch = (time.monotonic() - self._begun) / self._done
        return f"; about {duration(per_epoch * left)} left" if left else ""


def run_experiment(plan: Plan, runner: Runner, say: Say) -> Results:
    """Both architectures take turns throughout, so that whatever else runs slows both alike."""
    rates = learning_rates(plan.trials, plan.config.training.learning_rate)
    say(f"learning rates of each architecture: {', '.join(f'{rate:g}' for rate in rates)}")
    grid = [plan.tuning_job(a, rate) for rate in rates for a in ARCHITECTURES]
    tuning = _by_architecture(runner.run(grid))
    for _ in range(MOST_EXTRA):
        outer = {a: rate for a in ARCHITECTURES if (rate := beyond(tuning[a])) is not None}
        if not outer:
            break
        runner.expect_more(len(outer))
        for found in runner.run([plan.tuning_job(a, rate) for a, rate in outer.items()]):
            tuning[found.config.model.architecture].append(found)
    best = {a: _best(a, tuning[a]) for a in ARCHITECTURES}
    chosen = ", ".join(f"{a} {rate:g}" for a, rate in best.items())
    say(f"best learning rates: {chosen}; now {plan.seeds} seeds of each")
    numbers = range(1, plan.seeds + 1)
    jobs = [plan.seed_job(a, best[a], number) for number in numbers for a in ARCHITECTURES]
    return Results(tuning, _by_architecture(runner.run(jobs)))


def _best(architecture: str, tried: Sequence[Trained]) -> float:
    rate = best_rate(tried)
    if rate is None:
        reasons = "; ".join(sorted({f"{t.outcome}: {t.message}" for t in tried}))
        raise UserError(f"no training of {architecture} came to its end ({reasons})")
    return rate


def _by_architecture(found: Sequence[Trained]) -> dict[str, list[Trained]]:
    return {a: [t for t in found if t.config.model.architecture == a] for a in ARCHITECTURES}
