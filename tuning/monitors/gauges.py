"""Metrics and findings as Ray gauges, labelled with sweep and trial, for the dashboard."""

from __future__ import annotations

from ray.util.metrics import Gauge

from trainables.metrics import METRICS
from trainables.training.diagnosis import FINDING_IDS
from trainables.training.reports import EpochReport
from tuning.history.record import Event, EventKind, SweepRecord

PREFIX = "encoder_"


class GaugeMonitor:
    """Ray exports a gauge ``encoder_x`` to Prometheus as ``ray_encoder_x``."""

    def __init__(self, sweep: str) -> None:
        self._sweep = sweep
        self._gauges = {
            metric.key: Gauge(
                PREFIX + metric.key,
                description=f"{metric.help} [{metric.unit}]" if metric.unit else metric.help,
                tag_keys=("sweep", "trial"),
            )
            for metric in METRICS
        }
        self._finding = Gauge(
            PREFIX + "finding",
            description="1 while the diagnosis `finding` holds of a trial, else 0.",
            tag_keys=("sweep", "trial", "finding"),
        )

    def on_event(self, record: SweepRecord, event: Event, report: EpochReport | None) -> None:
        if event["event"] != EventKind.EPOCH or report is None:
            return
        tags = {"sweep": self._sweep, "trial": event["trial_id"]}
        for key, value in report.metrics.items():
            self._gauges[key].set(float(value), tags=tags)
        found = {finding.id for finding in report.findings}
        for name in FINDING_IDS:
            self._finding.set(float(name in found), tags={**tags, "finding": name})

    def close(self) -> None:
        return
