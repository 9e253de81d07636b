"""What a run says, as typed values and in the plain form that Ray Train takes."""

from __future__ import annotations

import json
import pickle
from dataclasses import FrozenInstanceError

import pytest

from trainables.statuses import Status
from trainables.training.diagnosis import Finding
from trainables.training.reports import Ending, EpochReport, Report, from_plain, to_plain

WHOLE = EpochReport(
    {"epoch": 3, "step": 12, "val_loss": 0.5},
    {"loss": [0.6, 0.5]},
    Status.STOPPED_EARLY,
    "the gate is at 0",
    (Finding("gate_stuck", "the gate is at 0"),),
    ({"epoch": 1, "val_loss": 0.9}, {"epoch": 2, "val_loss": 0.7}),
    "tune/trial_0000/checkpoint_000003",
    12.5,
)
REPORTS = [
    WHOLE,
    EpochReport({"epoch": 1}),
    Ending(Status.DIVERGED, "loss is nan at step 7", {"epoch": 2}),
    Ending(Status.OUT_OF_MEMORY, "it does not fit"),
]


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_is_the_same_after_ray_has_carried_it(report: Report) -> None:
    assert from_plain(json.loads(json.dumps(to_plain(report)))) == report
    assert pickle.loads(pickle.dumps(report)) == report
    assert type(from_plain(to_plain(report)).status) is Status


def test_the_last_report_is_known_by_its_status() -> None:
    assert [report.last for report in REPORTS] == [True, False, True, True]
    assert [report.epoch for report in REPORTS] == [3, 1, 2, 0]


def test_a_report_is_passed_on_unchanged() -> None:
    with pytest.raises(FrozenInstanceError):
        WHOLE.message = "another"  # type: ignore[misc]
