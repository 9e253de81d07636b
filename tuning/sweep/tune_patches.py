"""Ray Tune's controller, mended where it gives a trial up that could be retried."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from ray.exceptions import RayActorError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial


class RetryingController(TuneController):
    """Retries a trial whose process dies while it is handed over to that trial.

    Ray hears of such a death twice: of the process, upon which it puts the trial back into the
    queue, and of the call that hands it over, upon which it gives up the trial that it finds there.
    """

    def _trial_task_failure(self, trial: Trial, exception: Exception) -> None:
        resetting = isinstance(exception, RayActorError) and trial in self._resetting_trials
        if resetting and trial.status != Trial.RUNNING:
            self._resetting_trials.remove(trial)
            return
        super()._trial_task_failure(trial, exception)


@contextmanager
def retrying_controller() -> Iterator[None]:
    """``tune.run`` uses it inside the block; it has no argument for that."""
    with mock.patch("ray.tune.tune.TuneController", RetryingController):
        yield
