"""What a step through a frozen LLM costs: prompt, attention kernel, memory, shared pages.

    make real
    python -m benchmarks.llm_step [--llm hub/SmolLM2-135M-Instruct] [--steps 7]

A step is losses and gradients of 8 rows with 16 soft tokens and texts of 45 tokens, in fp32 on one
thread; medians, the alternatives taking turns. The parts:

prompt     200 tokens before the soft tokens against none, as training reads them (keys and values
           made once) and with the whole sequence in every step
attention  eager against sdpa
memory     bytes kept for the backward pass, and what recomputing each layer would save and cost
pages      PSS of the LLM in one process and in two (Linux; Pss of /proc/PID/smaps_rollup)
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from benchmarks.workload import print_table
from trainables.config import ModelConfig
from trainables.llm.frozen import FrozenLLM
from trainables.llm.place.prompt import NO_PROMPT, Prompt
from trainables.llm.place.sequences import Rows
from trainables.packing.memory import kept_bytes

ROWS, SOFT, TEXT, BEFORE = 8, 16, 45, 200
SMOLLM2 = "hub/SmolLM2-135M-Instruct"
PROCESS = "process"  # this program again, as one of those whose pages are counted


def load(llm: str) -> FrozenLLM:
    return FrozenLLM.load(ModelConfig(llm_model=llm), torch.device("cpu"), torch.float32)


def rows(llm: FrozenLLM) -> Rows:
    generator = torch.Generator().manual_seed(0)
    soft = torch.randn(ROWS, SOFT, llm.hidden_size, generator=generator).requires_grad_()
    ids = torch.randint(100, 1000, (ROWS, TEXT), generator=generator)
    return Rows(soft, ids, torch.full((ROWS,), TEXT))


def step(llm: FrozenLLM, group: Rows, prompt: Prompt = NO_PROMPT) -> tuple[float, Tensor]:
    """Seconds, and the gradient of the soft tokens."""
    llm.around(prompt)
    began = time.perf_counter()
    losses = llm.joint_losses([group], prompt)
    (gradient,) = torch.autograd.grad(losses.mean(), [group.soft])
    return time.perf_counter() - began, gradient


def compared(ways: Mapping[str, Callable[[], float]], steps: int) -> dict[str, float]:
    """The median seconds of each way; they take turns, and the first turn is not counted."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(steps + 1):
        for name, way in ways.items():
            seconds = way()
            if turn:
                found[name].append(seconds)
    return {name: median(seconds) for name, seconds in found.items()}


def show(title: str, found: Mapping[str, float]) -> None:
    first = next(iter(found.values()))
    print(f"\n{title}")
    print_table(
        ["", "s/step", "ratio"], [[n, f"{s:.3f}", f"{s / first:.2f}"] for n, s in found.items()]
    )


def prompts(llm: FrozenLLM, steps: int) -> None:
    group = rows(llm)
    long = Prompt(before=tuple(range(100, 100 + BEFORE)))
    assert llm.around(long).prefix is not None, "this LLM reads the prompt in every step"
    whole = load(str(llm.source))
    whole._same_losses = lambda *surroundings: False  # type: ignore[method-assign]
    fused = load(str(llm.source))
    fused.model.set_attn_implementation("sdpa")  # type: ignore[operator]
    found = compared(
        {
            "no prompt": lambda: step(llm, group)[0],
            f"{BEFORE} tokens before": lambda: step(llm, group, long)[0],
            "the same, sdpa": lambda: step(fused, group, long)[0],
            "the same, read in every step": lambda: step(whole, group, long)[0],
        },
        steps,
    )
    show("prompt", found)
    gradients = [step(which, group, long)[1] for which in (llm, whole)]
    difference = (gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max()
    print(f"largest difference of a gradient, of the largest: {float(difference):.1e}")


def kernels(llm: FrozenLLM, steps: int) -> None:
    group = rows(llm)

    def with_kernel(name: str) -> float:
        llm.model.set_attn_implementation(name)  # type: ignore[operator]
        return step(llm, group)[0]

    names = ("eager", "sdpa")
    show("attention", compared({n: lambda n=n: with_kernel(n) for n in names}, steps))
    llm.model.set_attn_implementation("eager")  # type: ignore[operator]


def recomputed(llm: FrozenLLM) -> list[int]:
    """From now on each layer keeps its input alone, and is computed again going backward.

    The bytes of these inputs, as they come: torch holds them where no hook counts them.
    """
    inputs: list[int] = []
    for layer in llm.body.layers:  # type: ignore[union-attr]
        plain = layer.forward

        def forward(hidden: Tensor, *given: Any, plain: Any = plain, **named: Any) -> Any:
            inputs.append(hidden.nbytes)
            given = (hidden, *given)
            return checkpoint(plain, *given, use_reentrant=False, **named)

        layer.forward = forward  # type: ignore[assignment,union-attr]
    return inputs


def memory(llm: FrozenLLM, steps: int) -> None:
    group = rows(llm)
    other = load(str(llm.source))
    inputs = recomputed(other)
    found = compared(
        {"kept": lambda: step(llm, group)[0], "recomputed": lambda: step(other, group)[0]}, steps
    )
    show("memory", found)
    for name, which in (("kept", llm), ("recomputed", other)):
        inputs.clear()
        kept = kept_bytes(which, group) + sum(inputs)
        print(f"{name}: {kept / 2**20:.0f} MiB for the backward pass")


def pages(llm: str) -> None:
    """Each process says what it holds before it loads, and after all have used the LLM."""
    alone = None
    print("\npages")
    for count in (1, 2):
        command = [sys.executable, "-m", "benchmarks.llm_step", "--llm", llm, "--part", PROCESS]
        processes = [
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
            )
            for _ in range(count)
        ]
        told = [[], []]
        for moment in told:
            for process in processes:  # all have come so far before any is asked
                assert process.stdout
                assert process.stdout.readline() == "ready\n"
            for process in processes:
                moment.append(_answer(process))
            for process in processes:
                _go_on(process)
        for process in processes:
            process.wait()
        added = (sum(told[1]) - sum(told[0])) / 1024
        alone = alone or added
        print(f"{count} processes: PSS grows by {added:.0f} MiB, {added / alone:.2f} of one's")


def _answer(process: subprocess.Popen[str]) -> int:
    _go_on(process)
    assert process.stdout
    return int(process.stdout.readline())


def _go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def be_a_process(name: str) -> None:
    torch.zeros(1)

    def tell() -> None:
        print("ready", flush=True)
        sys.stdin.readline()
        print(_pss(), flush=True)
        sys.stdin.readline()

    import transformers.models.llama.modeling_llama  # noqa: F401 - code is no page of the LLM's

    tell()
    llm = load(name)
    with torch.no_grad():
        llm.model(input_ids=torch.zeros(1, 8, dtype=torch.long))
    tell()


def _pss() -> int:
    """KiB of this process; a page that n processes share counts 1/n."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--llm", default=SMOLLM2)
    parser.add_argument("--steps", type=int, default=7)
    parts = ("prompt", "attention", "memory", "pages")
    parser.add_argument("--part", choices=[*parts, PROCESS])
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.part == PROCESS:
        be_a_process(options.llm)
        return
    chosen = [options.part] if options.part else parts
    run = {"prompt": prompts, "attention": kernels, "memory": memory}
    for part in chosen:
        if part == "pages":
            pages(options.llm)
        else:
            run[part](load(options.llm), options.steps)


if __name__ == "__main__":
    main()
