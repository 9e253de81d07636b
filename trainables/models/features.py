"""The six resource figures of a row and their standardisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

INPUT_SIZES = ("small", "medium", "large")
RESOURCES = ("input_size", "cpu_core", "cpu_mem_gb", "gpu_sm", "gpu_mem_gb", "latency_ms")
NUM_FEATURES = len(RESOURCES)
RESOURCE_HIDDEN_SIZE = 512  # of the resource MLP

FloatArray = npt.NDArray[np.float32]


def raw_features(figures: Mapping[str, Any]) -> list[float]:
    """The R = 6 unscaled features of one row.

    ``input_size`` becomes 0, 1 or 2; every other figure x becomes log(1 + x), because resource
    levels and latencies are spread over orders of magnitude.
    """
    size = float(INPUT_SIZES.index(figures["input_size"]))
    return [size, *(float(np.log1p(float(figures[name]))) for name in RESOURCES[1:])]


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean and standard deviation of each raw feature over the profiling table, [R] each."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, raw: npt.NDArray[np.float64]) -> FeatureStatistics:
        """Statistics of ``raw`` [N, R]; a feature that never varies gets the deviation 1."""
        std = raw.std(axis=0)
        std[std < 1e-8] = 1.0
        return cls(tuple(raw.mean(axis=0).tolist()), tuple(std.tolist()))

    def standardise(self, raw: Sequence[Sequence[float]] | npt.NDArray[np.float64]) -> FloatArray:
        """[N, R] raw features to zero mean and unit deviation, float32."""
        values = np.asarray(raw, dtype=np.float64)
        return ((values - np.array(self.mean)) / np.array(self.std)).astype(np.float32)

    def as_dict(self) -> dict[str, list[float]]:
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Sequence[float]]) -> FeatureStatistics:
        return cls(tuple(values["mean"]), tuple(values["std"]))
