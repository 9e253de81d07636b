"""Reports at Ray Tune's edge, the one place where they are dictionaries.

Tune's schedulers and snapshots want flat, plain values. The report itself travels beside them under
one key, and is taken out before Tune writes the result down.
"""

from __future__ import annotations

from typing import Any

from ray.tune.result import DONE, SHOULD_CHECKPOINT

from trainables.statuses import Status
from trainables.training.reports import EpochReport, Report

TIME_ATTRIBUTE = "epoch"
REPORT = "report"
NEW_EPOCH = "new_epoch"
STATUS = "outcome"  # its name in the results of earlier releases
MESSAGE = "message"
BEFORE_THE_FIRST = {"epoch": 0, "step": 0}


def to_result(report: Report, *, checkpoint: bool) -> dict[str, Any]:
    """What a trial's ``step`` returns; ``checkpoint``: Tune is to ask for one."""
    return {
        **BEFORE_THE_FIRST,
        **report.metrics,
        NEW_EPOCH: isinstance(report, EpochReport),
        STATUS: report.status.value,
        MESSAGE: report.message,
        DONE: report.last,
        SHOULD_CHECKPOINT: checkpoint,
        REPORT: report,
    }


def take_report(result: dict[str, Any]) -> Report:
    """The report of a result, which is without it from then on."""
    report: Report = result.pop(REPORT)
    return report


def has_new_epoch(result: dict[str, Any]) -> bool:
    """Whether a result tells of an epoch; others only end their trial."""
    return bool(result.get(NEW_EPOCH))


def status_of(result: dict[str, Any]) -> Status:
    """What became of the trial, also after the report has been taken out."""
    return Status(result.get(STATUS, Status.RUNNING))
