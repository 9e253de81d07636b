"""Ray Tune's controller, mended where it gives a trial up that could be retried."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

PATCHED = "ray.tune.tune"  # has `tune.run` in it, which makes the controller
NAME = "TuneController"
PARAMETERS = ("self", "trial", "exception")  # of its `_trial_task_failure`


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
    """``tune.run`` makes a RetryingController inside the block.

    It has no argument for its controller and makes the one that its module has under this name, so
    the name is given another class for the time of the block. Raises RuntimeError where Ray does
    not do what is known here: then nothing is changed.
    """
    module = importlib.import_module(PATCHED)
    if problem := _unknown(getattr(module, NAME, None)):
        raise RuntimeError(
            f"Ray {ray.__version__} cannot be mended as Ray 2.60 can: {problem}; install that one"
        )
    setattr(module, NAME, RetryingController)
    try:
        yield
    finally:
        setattr(module, NAME, TuneController)


def _unknown(found: Any) -> str:
    """What is otherwise than in the class that RetryingController is made for; empty: nothing."""
    if found is not TuneController:
        return f"`{PATCHED}.{NAME}` is {found!r}"
    if tuple(inspect.signature(found._trial_task_failure).parameters) != PARAMETERS:
        return f"`{NAME}._trial_task_failure` has other parameters"
    if "_resetting_trials" not in found.__init__.__code__.co_names:
        return f"`{NAME}` has no `_resetting_trials`"
    return ""
