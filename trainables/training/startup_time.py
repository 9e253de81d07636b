"""How long a process should need from its start to its first step, known before it starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from trainables.config import PretrainConfig
from trainables.llm.location import config_file
from trainables.llm.precision import llm_precision
from trainables.llm.shape import BYTES, LLMShape, cpu_rate, h100_rate, llm_shape
from trainables.training.diagnosis import SLOW_SECONDS, Finding, slow_initialisation

LIBRARIES_SECONDS = 6.0  # torch and transformers; CPU seconds, measured
READ_BYTES_PER_S = 1e9  # assumed, of a local disk; from memory it is faster
LONG_SECONDS = 20.0
CHARACTERS_PER_TOKEN = 3.0


@dataclass(frozen=True)
class Initialisation:
    """Expected seconds: to load libraries and weights, and to embed the tools."""

    load: float
    embed: float

    @property
    def seconds(self) -> float:
        return self.load + self.embed


def shape_of(config: PretrainConfig) -> LLMShape | None:
    """The LLM's shape; None while its config.json is not here, or if it is no plain decoder's."""
    file = config_file(config.model)
    return llm_shape(file) if file else None


def expected_initialisation(
    config: PretrainConfig, prompts: Sequence[str], on_gpu: bool
) -> Initialisation | None:
    """From the LLM's shape and the prompts' lengths; None where the shape is not known.

    ``prompts`` are those that the LLM still has to read: none where their embeddings are cached.
    """
    shape = shape_of(config)
    if shape is None:
        return None
    size = shape.parameters * BYTES[llm_precision(config.training.precision, on_gpu)]
    embed = 0.0
    if prompts:
        lengths = [len(prompt) / CHARACTERS_PER_TOKEN for prompt in prompts]
        flops = shape.forward_flops(sum(lengths), fmean(lengths))
        embed = flops / (h100_rate() if on_gpu else cpu_rate())
    return Initialisation(LIBRARIES_SECONDS + size / READ_BYTES_PER_S, embed)


def announce(
    config: PretrainConfig, prompts: Sequence[str], on_gpu: bool, say: Callable[[str], None]
) -> None:
    """Say that an initialisation will be long, before it begins."""
    expected = expected_initialisation(config, prompts, on_gpu)
    if line := announcement(expected, config.model.cache_dir):
        say(f"      {line}")


def announcement(expected: Initialisation | None, cache_dir: str) -> str | None:
    """What to say before an initialisation that will be long; None of a short one."""
    if expected is None or expected.seconds < LONG_SECONDS:
        return None
    line = f"this takes about {expected.seconds:.0f} s, {expected.load:.0f} s to load the LLM"
    if not expected.embed:
        return line
    return (
        f"{line} and {expected.embed:.0f} s to embed the tools; the next start finds the "
        f"embeddings in `model.cache_dir` ({cache_dir})"
    )


def lateness(
    config: PretrainConfig, began: float, prompts: Sequence[str], on_gpu: bool
) -> Finding | None:
    """The finding of a process that began at ``time.perf_counter() == began``, now ready."""
    seconds = time.perf_counter() - began
    if seconds < SLOW_SECONDS:  # what is expected need not be asked, and measured
        return None
    expected = expected_initialisation(config, prompts, on_gpu)
    if expected is None:
        return None
    remedy = "see whether its files lie on a slow disk and what else this machine does"
    if prompts:
        cache = config.model.cache_dir
        remedy = f"the next start finds the tools' embeddings in `model.cache_dir` ({cache})"
    return slow_initialisation(seconds, expected.seconds, remedy)
