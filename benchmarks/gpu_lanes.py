"""Lanes on one GPU: sixteen trials in joint steps, in turn, and in processes of their own.

python -m benchmarks.gpu_lanes [--lanes 16] [--steps 20] [--models 0.5b 7b] [--json FILE] [--tiny]

The LLMs have the public shapes of Qwen2.5 and random weights, the texts are random tokens: neither
speed nor memory depends on what they say. Each case has fresh processes that warm up, wait for
each other and then make the same number of steps per trial. ``--tiny`` runs every part in seconds
on a CPU; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from benchmarks.workload import print_table, write_json
from trainables.config import PretrainConfig, TrainingConfig
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.frozen import FrozenLLM, select_device
from trainables.models.features import NUM_FEATURES, FeatureStatistics
from trainables.packing.memory import Footprint, free_bytes
from trainables.training.batches import DeviceInputs
from trainables.training.run import Run
from trainables.training.step import train_step

SHAPES: dict[str, dict[str, Any]] = {
    "0.5b": {
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "7b": {
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    },
    "tiny": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 512,
        "tie_word_embeddings": True,
    },
}
BATCH_SIZE = 16
TOOLS, TEMPLATES = 7, 4
SHORTEST, LONGEST = 32, 48  # tokens of a text; about what the shipped templates give
WARM_UP = 3
ONE, JOINT = "one trial", "joint steps"
MATMUL_SIZE, TINY_MATMUL_SIZE, MATMULS = 8192, 256, 20


@dataclass(frozen=True)
class Case:
    """``processes`` on one device, each with so many trials, in joint steps or in turn."""

    model: str
    processes: int
    lanes: int
    joint: bool
    steps: int


@dataclass(frozen=True)
class Measured:
    """What one process saw; ``memory`` is the whole device's, of a CPU the process's."""

    start: float
    end: float
    tokens: int
    memory: int
    flops_per_token: float
    in_one_step: int
    out_of_memory: int


def make_llm(model: str, device: torch.device) -> FrozenLLM:
    """Random weights, made on the device in the precision in which the real ones are used."""
    on_gpu = device.type == "cuda"
    with device:
        llm = AutoModelForCausalLM.from_config(
            Qwen2Config(**SHAPES[model]),
            dtype=torch.bfloat16 if on_gpu else torch.float32,
            attn_implementation="sdpa" if on_gpu else "eager",
        )
    return FrozenLLM(llm, f"random {model}", {})


def make_inputs(model: str, rows: int) -> SharedInputs:
    shape, rng = SHAPES[model], np.random.default_rng(0)
    embeddings = rng.standard_normal((TOOLS, shape["hidden_size"]), np.float32)
    return SharedInputs(
        tool_names=tuple(f"tool_{i}" for i in range(TOOLS)),
        tool_embeddings=embeddings,
        name_embeddings=embeddings,
        tool_index=rng.integers(TOOLS, size=rows),
        features=rng.standard_normal((rows, NUM_FEATURES), np.float32),
        token_ids=rng.integers(
            shape["vocab_size"], size=(rows, TEMPLATES, LONGEST), dtype=np.int32
        ),
        token_counts=rng.integers(SHORTEST, LONGEST + 1, size=(rows, TEMPLATES), dtype=np.int32),
        train_rows=np.arange(rows),
        val_rows=np.arange(0),
        prompt_before=np.arange(0),
        prompt_after=np.arange(0),
        written_figures=(),
        statistics=FeatureStatistics((0.0,) * NUM_FEATURES, (1.0,) * NUM_FEATURES),
    )


def flops_per_token(llm: FrozenLLM) -> float:
    """Of the LLM, forward and back to its input; its weights get no gradient.

    Two per matrix weight each way, the head included. Attention's own products are left out: at
    these lengths they are below a hundredth. Padding does not count as work.
    """
    body = sum(p.numel() for p in llm.body.parameters() if p.ndim == 2)
    embeddings = sum(p.numel() for p in llm.embed_tokens.parameters())
    head = sum(p.numel() for p in llm.head.parameters())
    return 4.0 * (body - embeddings + head)


def parts(runs: list[Run], llm: FrozenLLM, joint: bool) -> list[list[Run]]:
    """The runs of each step: one, or as many as the device's memory holds."""
    most = 1
    if joint:
        footprint, config = Footprint(llm, runs[0].inputs), runs[0].config
        room = free_bytes(llm.device) - len(runs) * footprint.state(config)
        most = max(1, min(len(runs), int(room / footprint.step(config))))
    size = math.ceil(len(runs) / math.ceil(len(runs) / most))
    return [runs[i : i + size] for i in range(0, len(runs), size)]


def make_steps(groups: list[list[Run]], llm: FrozenLLM, steps: int) -> None:
    """So many steps of every run, the device's work done when this returns."""
    for _ in range(steps):
        for group in groups:
            for error in train_step(group, llm).values():
                raise error
    synchronize(llm.device)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_in_use(device: torch.device) -> int:
    """After steps: the allocator keeps what it once took, so that this is the peak."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return total - free
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


_together: Barrier  # of the processes of a case


def _join(barrier: Barrier) -> None:
    global _together
    _together = barrier


def work(case: Case) -> Measured:
    """What each process of a case does."""
    try:
        return _work(case)
    except BaseException:
        _together.abort()  # the others would wait for ever
        raise


def _work(case: Case) -> Measured:
    device = select_device()
    if device.type == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(0)
    llm = make_llm(case.model, device)
    all_steps = WARM_UP + case.steps
    inputs = DeviceInputs(make_inputs(case.model, BATCH_SIZE * all_steps), device)
    config = PretrainConfig(training=TrainingConfig(batch_size=BATCH_SIZE))
    runs = [Run(config, inputs) for _ in range(case.lanes)]
    groups = parts(runs, llm, case.joint)
    for run in runs:
        run.start_epoch()  # of all steps
    make_steps(groups, llm, WARM_UP)
    before = sum(run.series.tokens for run in runs)
    _together.wait()
    start = time.perf_counter()
    make_steps(groups, llm, case.steps)
    end = time.perf_counter()
    _together.wait()
    memory = memory_in_use(device)
    _together.wait()
    return Measured(
        start,
        end,
        sum(run.series.tokens for run in runs) - before,
        memory,
        flops_per_token(llm),
        len(groups[0]),
        torch.cuda.memory_stats(device)["num_ooms"] if device.type == "cuda" else 0,
    )


def matmul_flops(size: int) -> float:
    """Floating-point operations per second of a large matrix product on this device."""
    device = select_device()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    for _ in range(MATMULS):
        a @ b
    synchronize(device)
    start = time.perf_counter()
    for _ in range(MATMULS):
        a @ b
    synchronize(device)
    return 2.0 * size**3 * MATMULS / (time.perf_counter() - start)


def in_processes(function: Callable[..., Any], count: int, argument: Any) -> list[Any]:
    """Call it in so many fresh processes at once; they end, and give their memory back."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, spawn, _join, (spawn.Barrier(count),)) as pool:
        futures = [pool.submit(function, argument) for _ in range(count)]
        return [future.result() for future in futures]


def measure(case: Case, rate: float) -> dict[str, float]:
    found: list[Measured] = in_processes(work, case.processes, case)
    seconds = max(m.end for m in found) - min(m.start for m in found)
    return {
        "trial_steps_per_s": case.processes * case.lanes * case.steps / seconds,
        "memory": max(m.memory for m in found),
        "utilisation": sum(m.tokens for m in found) * found[0].flops_per_token / seconds / rate,
        "trials_in_one_step": found[0].in_one_step,
        "out_of_memory": sum(m.out_of_memory for m in found),
    }


def cases(model: str, lanes: int, steps: int) -> dict[str, Case]:
    found = {
        ONE: Case(model, 1, 1, False, steps),
        f"{lanes} lanes, {JOINT}": Case(model, 1, lanes, True, steps),
        f"{lanes} lanes, in turn": Case(model, 1, lanes, False, steps),
    }
    if model != "7b":  # so many copies of which fit on no device
        found[f"{lanes} processes"] = Case(model, lanes, 1, False, steps)
    return found


def report(measured: dict[str, dict[str, dict[str, float]]], rate: float) -> None:
    print(f"\nlarge matrix product: {rate / 1e12:.1f} TFLOP/s\n")
    header = ("case", "trial-steps/s", "in one step", "GiB", "of one trial's", "MFU", "OOMs")
    rows = [
        (
            f"{model}, {name}",
            f"{m['trial_steps_per_s']:.1f}",
            f"{m['trials_in_one_step']:.0f}",
            f"{m['memory'] / 2**30:.2f}",
            f"{m['memory'] / by_case[ONE]['memory']:.2f}x",
            f"{m['utilisation']:.1%}",
            f"{m['out_of_memory']:.0f}",
        )
        for model, by_case in measured.items()
        for name, m in by_case.items()
    ]
    print_table(header, rows)
    print()
    ratios = []
    for model, by_case in measured.items():
        rates = {name: m["trial_steps_per_s"] for name, m in by_case.items()}
        joint = next(name for name in rates if name.endswith(JOINT))
        for name in rates:
            if name != joint:
                ratios.append((f"{model}, {joint} / {name}", f"{rates[joint] / rates[name]:.2f}"))
    print_table(("ratio", "trial-steps/s"), ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lanes", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20, help="measured steps of each trial")
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=["0.5b", "7b"])
    parser.add_argument("--tiny", action="store_true", help="every part in seconds, on a CPU, too")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    models, lanes, steps = options.models, options.lanes, options.steps
    if options.tiny:
        models, lanes, steps = ["tiny"], 2, 2
    size = TINY_MATMUL_SIZE if options.tiny else MATMUL_SIZE
    (rate,) = in_processes(matmul_flops, 1, size)
    measured: dict[str, dict[str, dict[str, float]]] = {}
    for model in models:
        measured[model] = {}
        for name, case in cases(model, lanes, steps).items():
            print(f"{model}: {name} ...", flush=True)
            measured[model][name] = measure(case, rate)
    report(measured, rate)
    write_json(options.json, {"matmul_flops": rate, "cases": measured})


if __name__ == "__main__":
    main()
