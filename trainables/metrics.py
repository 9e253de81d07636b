"""Every metric that training reports: key, unit and meaning, declared once and used everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Metrics = dict[str, Any]  # the metrics of an epoch, by their keys


@dataclass(frozen=True)
class Metric:
    key: str
    unit: str
    help: str
    at_end: bool = False


METRICS = (
    Metric("train_loss", "nats per token", "Mean cross-entropy of the target text in the epoch."),
    Metric("val_loss", "nats per token", "The same on held-out rows."),
    Metric("gate_alpha", "", "The fusion's gate at the epoch's end; 0 without a gate."),
    Metric("semantic_retention", "cosine", "Encoder output against the tool's own embedding."),
    Metric("learning_rate", "", "Learning rate of the epoch's last step."),
    Metric("grad_norm", "", "Mean norm of the gradient before clipping."),
    Metric("gate_grad_norm", "", "Mean size of the gate's gradient; 0 without a gate."),
    Metric("epoch", "epochs", "Passes over the training rows so far."),
    Metric("step", "steps", "Optimiser updates so far."),
    Metric("steps_per_s", "steps/s", "Optimiser updates per second in the epoch."),
    Metric("tokens_per_s", "tokens/s", "Real target tokens per second in the epoch."),
    Metric("peak_memory_mib", "MiB", "Peak memory: the device's on GPU, the process's on CPU."),
    Metric("field_accuracy", "share", "Figures that greedy decoding gets right.", at_end=True),
)
METRIC_KEYS = tuple(metric.key for metric in METRICS)
OBJECTIVES = tuple(
    key for key in METRIC_KEYS if key not in ("epoch", "step", "learning_rate", "peak_memory_mib")
)


def scalars(report: Mapping[str, Any]) -> dict[str, Any]:
    """The declared metrics among a report's values, in their order."""
    return {key: report[key] for key in METRIC_KEYS if key in report}
