"""Reports as the results that Ray Tune wants, and back."""

from __future__ import annotations

from trainables.statuses import Status
from trainables.training.reports import Ending, EpochReport
from tuning.tune_edge import has_new_epoch, status_of, take_report, to_result

EPOCH = EpochReport({"epoch": 2, "val_loss": 0.5}, {"loss": [0.6]})
ENDING = Ending(Status.DIVERGED, "loss is nan", {"epoch": 1, "val_loss": 0.9})


def test_a_result_has_the_metrics_flat_for_schedulers() -> None:
    result = to_result(EPOCH, checkpoint=True)
    assert (result["epoch"], result["val_loss"]) == (2, 0.5)
    assert (result["done"], result["should_checkpoint"]) == (False, True)
    assert has_new_epoch(result)


def test_an_ending_has_no_new_epoch_and_the_metrics_of_the_last() -> None:
    result = to_result(ENDING, checkpoint=False)
    assert (result["epoch"], result["done"], result["should_checkpoint"]) == (1, True, False)
    assert not has_new_epoch(result)
    assert to_result(Ending(Status.DIVERGED, "at once"), checkpoint=False)["epoch"] == 0


def test_what_is_left_when_the_report_is_taken_out_is_plain_and_tells_the_status() -> None:
    for report in (EPOCH, ENDING):
        result = to_result(report, checkpoint=False)
        assert take_report(result) is report
        assert all(isinstance(value, bool | int | float | str) for value in result.values())
        assert status_of(result) == report.status
