"""Makes the shipped registry and profiling table from a documented latency model.

    python -m trainables.data.generator [DIRECTORY]

Latency of a row, in milliseconds:

    work(tool, size)                         CPU-milliseconds on one core, by input size
    cpu   = work * (1 - g) * ((1 - p) + p / cores)      Amdahl's law, parallel part p
    gpu   = work * g / (speed * share)                  share of the GPU's SMs, in (0, 1]
    spill = 1 + 0.8 * max(0, need - memory) / need      for CPU and GPU memory below the need
    latency = cpu * spill(cpu memory) + gpu * spill(GPU memory)

g is the part of the work that runs on the GPU, ``speed`` how much faster a whole GPU is there.
"""

from __future__ import annotations

import csv
import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from trainables.data.profiling import COLUMNS
from trainables.models.features import INPUT_SIZES

CPU_CORES = (2, 4, 16)
CPU_MEM_GB = (4, 16, 64)
GPU_SM = (10, 50, 100)
GPU_MEM_GB = (2, 8, 24)
SIZE_FACTOR = {"small": 1.0, "medium": 4.0, "large": 16.0}


@dataclass(frozen=True)
class Profile:
    """work: ms on one core for a small input; needs: GB for a large one."""

    name: str
    description: str
    work: float
    gpu_part: float
    gpu_speed: float
    parallel: float
    cpu_need: float
    gpu_need: float


PROFILES = (
    Profile(
        "image_classifier",
        "Assigns each image of a batch to one of a thousand categories with a vision transformer.",
        180, 0.90, 40, 0.80, 8, 4,
    ),
    Profile(
        "object_detector",
        "Finds and labels the objects in an image and returns their bounding boxes.",
        420, 0.92, 35, 0.75, 12, 10,
    ),
    Profile(
        "speech_recognizer",
        "Transcribes recorded speech to text with punctuation and time stamps.",
        900, 0.85, 25, 0.70, 10, 8,
    ),
    Profile(
        "text_summarizer",
        "Writes a short summary of a long document with a sequence-to-sequence language model.",
        650, 0.95, 30, 0.60, 16, 16,
    ),
    Profile(
        "document_scanner",
        "Reads the text of scanned pages by optical character recognition and keeps the layout.",
        520, 0.40, 12, 0.90, 24, 3,
    ),
    Profile(
        "video_captioner",
        "Describes what happens in a video clip in one sentence per scene.",
        2400, 0.88, 28, 0.80, 48, 20,
    ),
    Profile(
        "code_generator",
        "Completes source code from a comment or a function signature.",
        1100, 0.97, 45, 0.50, 20, 22,
    ),
)  # fmt: skip


def latency_ms(
    tool: Profile, size: str, cores: int, mem: float, sm: float, gpu_mem: float
) -> float:
    """Milliseconds of one row, by the model in the module's docstring."""
    factor = SIZE_FACTOR[size]
    work = tool.work * factor
    scale = (factor / SIZE_FACTOR["large"]) ** 0.5

    def spill(need: float, memory: float) -> float:
        return 1.0 + 0.8 * max(0.0, need - memory) / need

    cpu = work * (1 - tool.gpu_part) * ((1 - tool.parallel) + tool.parallel / cores)
    gpu = work * tool.gpu_part / (tool.gpu_speed * sm / 100)
    return cpu * spill(tool.cpu_need * scale, mem) + gpu * spill(tool.gpu_need * scale, gpu_mem)


def write_default_data(directory: Path) -> None:
    """``tools.json`` and ``profiling.csv``: 7 tools x 3 sizes x 3^4 resource levels."""
    tools = [{"name": p.name, "description": p.description} for p in PROFILES]
    (directory / "tools.json").write_text(json.dumps(tools, indent=2) + "\n", encoding="utf-8")
    levels = itertools.product(PROFILES, INPUT_SIZES, CPU_CORES, CPU_MEM_GB, GPU_SM, GPU_MEM_GB)
    with (directory / "profiling.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for tool, size, cores, mem, sm, gpu_mem in levels:
            latency = latency_ms(tool, size, cores, mem, sm, gpu_mem)
            writer.writerow([tool.name, size, cores, mem, sm, gpu_mem, f"{latency:.1f}"])


if __name__ == "__main__":
    write_default_data(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
