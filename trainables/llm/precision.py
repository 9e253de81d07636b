"""Which precision the frozen LLM has on which device; known without loading torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

Precision = Literal["bf16", "fp32"]


def llm_precision(wanted: str, on_gpu: bool) -> Precision:
    """``auto``: bf16 on GPUs and on CPUs with bf16 instructions, where it was measured faster."""
    if wanted == "auto":
        return "bf16" if on_gpu or _cpu_has_bf16() else "fp32"
    return "bf16" if wanted == "bf16" else "fp32"


@cache
def _cpu_has_bf16() -> bool:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return "avx512_bf16" in flags.split()
