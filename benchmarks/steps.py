"""A trial's step: the project's against a straightforward one, and against the LLM's own time.

python -m benchmarks.steps [--steps 60] [--alternations 5] [--processes N] [--json FILE]

Each variant has a process of its own (the hosts one per core) that loads everything and makes one
trial to warm up; then the variants make a whole trial each in turn, so that what else happens on
the machine meets all of them. Figures are medians of the alternations, ratios medians of the
ratios within an alternation. A trial's time has no evaluation and no checkpoint in it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.alternatives import straightforward_step
from benchmarks.workload import (
    Workload,
    all_batches,
    prepare,
    print_table,
    relative_difference,
    write_json,
)
from trainables.llm.frozen import load_llm, select_device
from trainables.training.batches import DeviceInputs
from trainables.training.pretraining import set_determinism
from trainables.training.run import Run
from trainables.training.step import train_step

LARGEST_DIFFERENCE = 0.01
Trial = Callable[[], list[float]]  # makes the steps of one trial, returns their losses


def project(workload: Workload) -> Trial:
    """The project's own step, as its loop calls it."""
    llm = load_llm(workload.config)
    inputs = DeviceInputs(workload.inputs, llm.device)

    set_determinism(workload.config.training.deterministic, llm.device)

    def trial() -> list[float]:
        run = Run(workload.config, inputs)
        losses: list[float] = []
        for _ in range(workload.config.training.num_epochs):
            run.start_epoch()
            while run.in_epoch:
                for error in train_step([run], llm).values():
                    raise error
            losses += run.series.column("loss")
        return losses

    return trial


def llm_alone(workload: Workload) -> Trial:
    """The LLM forward and backward on the batches of a trial, after random soft tokens."""
    llm = load_llm(workload.config)
    batches = all_batches(workload.config, DeviceInputs(workload.inputs, llm.device))
    widest = max(len(batch.counts) for batch in batches)
    soft = torch.randn(widest, llm.hidden_size, device=llm.device, requires_grad=True)

    set_determinism(workload.config.training.deterministic, llm.device)

    def trial() -> list[float]:
        losses = []
        for batch in batches:
            soft.grad = None
            loss = llm.token_losses(soft[: len(batch.counts)], batch.token_ids, batch.counts).mean()
            loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses).tolist()

    return trial


def straightforward(workload: Workload, autocast: bool) -> Trial:
    device = select_device()
    model = straightforward_step.load_model(workload.config, device)
    inputs = DeviceInputs(workload.inputs, device)
    batches = all_batches(workload.config, inputs)
    return lambda: straightforward_step.train(workload.config, inputs, batches, model, autocast)


VARIANTS: dict[str, Callable[[Workload], Trial]] = {
    "project": project,
    "llm": llm_alone,
    "bf16 autocast": lambda workload: straightforward(workload, autocast=True),
    "fp32": lambda workload: straightforward(workload, autocast=False),
}


def serve(variant: str, threads: int, directory: Path, pipe: Connection) -> None:
    """A process: warm up, then make a trial whenever the other side asks for one."""
    torch.set_num_threads(threads)
    workload = Workload.open(directory)
    trial = VARIANTS[variant](workload)
    pipe.send(trial())
    while pipe.recv():
        pipe.send(trial())


class Processes:
    """One or more processes of a variant that make a trial each at the same time."""

    def __init__(self, variant: str, threads: int, count: int, directory: Path) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.losses: list[float]
        self.pipes: list[Any] = []
        for _ in range(count):
            ours, theirs = spawn.Pipe()
            arguments = (variant, threads, directory, theirs)
            spawn.Process(target=serve, args=arguments, daemon=True).start()
            theirs.close()
            self.pipes.append(ours)
        self.losses, *_ = [pipe.recv() for pipe in self.pipes]  # all have the same
        self.rates: list[float] = []

    def alternate(self) -> None:
        """One trial in every process; adds to the trial-steps per second."""
        start = time.perf_counter()
        for pipe in self.pipes:
            pipe.send(True)
        for pipe in self.pipes:
            pipe.recv()
        seconds = time.perf_counter() - start
        self.rates.append(len(self.pipes) * len(self.losses) / seconds)

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(False)


def measure(directory: Path, alternations: int, count: int) -> dict[str, Processes]:
    cores = len(os.sched_getaffinity(0))
    wanted = {
        "project, one trial": ("project", cores, 1),
        "project, one trial on one thread": ("project", 1, 1),
        "project, all hosts": ("project", 1, count),
        "LLM alone on one thread": ("llm", 1, 1),
        "straightforward, bf16 autocast": ("bf16 autocast", cores, 1),
        "straightforward, fp32": ("fp32", cores, 1),
    }
    running = {
        name: Processes(variant, threads, processes, directory)
        for name, (variant, threads, processes) in wanted.items()
    }
    for _ in range(alternations):
        for processes in running.values():
            processes.alternate()
    for processes in running.values():
        processes.close()
    return running


def ratio(a: Processes, b: Processes) -> float:
    return median(x / y for x, y in zip(a.rates, b.rates, strict=True))


def curve_difference(a: Sequence[float], b: Sequence[float]) -> float:
    """The largest relative difference of two loss curves."""
    return max(map(relative_difference, a, b))


def report(measured: dict[str, Processes], path: Path | None) -> int:
    one = measured["project, one trial"]
    thread, llm = measured["project, one trial on one thread"], measured["LLM alone on one thread"]
    autocast, fp32 = (measured[f"straightforward, {s}"] for s in ("bf16 autocast", "fp32"))
    differences = {
        name: curve_difference(processes.losses, one.losses)
        for name, processes in measured.items()
        if processes is not llm
    }
    print_table(
        ("variant", "trial-steps/s", "lowest", "highest", "loss differs by at most"),
        [
            (
                name,
                *(f"{figure(p.rates):.1f}" for figure in (median, min, max)),
                f"{differences[name]:.2%}" if name in differences else "-",
            )
            for name, p in measured.items()
        ],
    )
    ratios = {
        "one trial / straightforward, bf16 autocast": (ratio(one, autocast), ">= 6"),
        "all hosts / straightforward, bf16 autocast": (
            ratio(measured["project, all hosts"], autocast),
            ">= 9",
        ),
        "one trial / straightforward, fp32": (ratio(one, fp32), ""),
        "all hosts / straightforward, fp32": (ratio(measured["project, all hosts"], fp32), ""),
        "time of a step / time of the LLM alone": (ratio(llm, thread), "<= 1.2"),
    }
    print()
    rows = [(name, f"{value:.2f}", goal) for name, (value, goal) in ratios.items()]
    print_table(("ratio", "median", "goal"), rows)
    if not (torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()):
        print("\nThis CPU has no bf16 instructions: autocast is emulated, fp32 is the fair rival.")
    document = {
        "rates": {name: processes.rates for name, processes in measured.items()},
        "losses": {name: processes.losses for name, processes in measured.items()},
        "loss_differences": differences,
        "ratios": {name: value for name, (value, _) in ratios.items()},
    }
    write_json(path, document)
    return int(max(differences.values()) > LARGEST_DIFFERENCE)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps of a trial")
    parser.add_argument("--alternations", type=int, default=5)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        prepare(Path(directory), options.steps)
        measured = measure(Path(directory), options.alternations, options.processes)
    return report(measured, options.json)


if __name__ == "__main__":
    raise SystemExit(main())
