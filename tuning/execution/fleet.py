"""The fleet: one Ray Train run whose workers are the hosts of all packed trials."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.actor import ActorHandle
from ray.train import UserCallback
from ray.tune.experiment import Trial

from trainables.inputs.shared_inputs import SharedInputs
from trainables.packing.protocol import HostFacts
from trainables.workers.host import HostSettings, make_fleet
from tuning.execution.failures import reason_of
from tuning.execution.switchboard import PACE
from tuning.ray_internals import ControllerStarted, WorkersStart, abort_controller
from tuning.terminal import Say

CONTROLLER, LOST = "controller", "lost"  # queues of the switchboard
FOREVER = 1e9  # seconds
# How long an ending sweep waits for its hosts: to save their runs, to end, to be ended.
# Whoever stops it wants it gone soon; what is not saved is trained again from the last checkpoint.
SAVE_SECONDS = 6.0
CLOSE_SECONDS = 5.0
ABORT_SECONDS = 10.0
WATCH_SECONDS = 1.0
_log = logging.getLogger(__name__)


class FleetGoneError(RuntimeError):
    """The hosts ended, and will not come back by themselves."""


def introduce_controller(mailbox: ActorHandle, key: str, controller: ActorHandle) -> None:
    """Send the Train controller's own handle, so that the driver can end the run in order."""
    mailbox.put.remote(key, controller)


def forget_hosts(switchboard: ActorHandle, expected: int) -> None:
    """Tell the switchboard before a new group of workers starts that the last one is gone."""
    ray.get(switchboard.forget_hosts.remote(expected))


def end_run(mailbox: ActorHandle, key: str) -> None:
    """End a Ray Train run through its controller; one that never started needs no end."""
    with contextlib.suppress(ray.exceptions.RayError):
        for controller in ray.get(mailbox.get.remote(key, ABORT_SECONDS)):
            abort_controller(controller, ABORT_SECONDS)


class HostsLost(UserCallback):
    """Sends word of hosts that ended by an error from the Train controller to the driver."""

    def __init__(self, switchboard: ActorHandle) -> None:
        self._switchboard = switchboard

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for reason in sorted({reason_of(error) for error in worker_exceptions.values()}):
            ray.get(self._switchboard.put.remote(LOST, reason))


class Fleet:
    """Starts the hosts at once and in the background; dead ones are replaced by Ray Train.

    While something waits for them, ``interrupt`` is called again and again, and may raise.
    """

    def __init__(
        self,
        settings: HostSettings,
        train_runs: Path,
        interrupt: Callable[[], None],
        say: Say,
    ) -> None:
        self.switchboard = settings.board.handle
        self._directory = train_runs / "fleet"
        trainer = make_fleet(
            settings,
            name="fleet",
            storage_path=str(train_runs),
            callbacks=[
                WorkersStart(partial(forget_hosts, self.switchboard)),
                ControllerStarted(partial(introduce_controller, self.switchboard, CONTROLLER)),
                HostsLost(self.switchboard),
            ],
        )
        # In a thread: `fit` returns when the last host has ended, and the sweep runs meanwhile.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fleet")
        self._fit: Future[Any] = self._pool.submit(trainer.fit)
        self._interrupt = interrupt
        self._say = say
        self._lost = self._next_lost()
        self._pace: ray.ObjectRef | None = self.switchboard.get.remote(PACE, FOREVER)
        self._up = False
        self._asked = 0.0
        self._failure = self.switchboard.start_failure.remote()

    def check(self) -> None:
        """Raises UserError for what the hosts could not use, FleetGoneError if they are gone."""
        ready, _ = ray.wait([self._failure], timeout=0)
        if ready:
            raise ray.get(self._failure)
        self._tell_lost()
        if self._fit.done():
            error = self._fit.exception()
            reason = reason_of(error) if error else "its hosts ended"
            raise FleetGoneError(f"the fleet of hosts is gone: {reason}")

    def _tell_lost(self) -> None:
        """A line for each host that ended by itself; Ray Train starts others."""
        while ray.wait([self._lost], timeout=0)[0]:
            for reason in ray.get(self._lost):
                self._say(f"a host was lost: {reason}; its trials go on from their checkpoints")
            self._lost = self._next_lost()

    def _next_lost(self) -> ray.ObjectRef:
        return self.switchboard.get.remote(LOST, FOREVER)

    def pace(self) -> float | None:
        """Seconds that a row takes on a host, once, when one has told it."""
        if self._pace is None or not ray.wait([self._pace], timeout=0)[0]:
            return None
        (seconds, *_), self._pace = ray.get(self._pace), None
        return float(seconds)

    def is_up(self) -> bool:
        """Whether any host has joined; may be asked often."""
        if not self._up and time.monotonic() - self._asked > WATCH_SECONDS / 10:
            self._asked = time.monotonic()
            self._up = bool(self.describe())
        return self._up

    def describe(self) -> list[HostFacts]:
        """What each host says of itself, now."""
        return list(ray.get(self.switchboard.hosts.remote()))

    def hosts(self, count: int) -> list[HostFacts]:
        """What ``count`` hosts say of themselves; waits until they are up."""
        while len(found := self.describe()) < count:
            self.check()
            self._interrupt()
            time.sleep(WATCH_SECONDS / 10)
        return found

    def inputs(self) -> SharedInputs:
        """The shared inputs; waits until the first host has prepared them."""
        while (reference := ray.get(self.switchboard.inputs.remote(WATCH_SECONDS))) is None:
            self.check()
            self._interrupt()
        return ray.get(reference[0])

    def save(self) -> None:
        """Let the hosts write checkpoints of all runs where they stand, if they can in time."""
        ray.get(self.switchboard.save_runs.remote(SAVE_SECONDS), timeout=2 * SAVE_SECONDS)

    def close(self) -> None:
        """End the hosts, give back what they hold."""
        self.switchboard.close_hosts.remote()
        wait([self._fit], CLOSE_SECONDS)
        if not self._fit.done():
            end_run(self.switchboard, CONTROLLER)
        self._pool.shutdown(wait=False)
        shutil.rmtree(self._directory, ignore_errors=True)


class FleetCallback(tune.Callback):
    """Ends the sweep if the fleet is gone; frees a trial's lane the moment it has ended.

    ``say_pace`` is called once, with the seconds that a row takes on a host.
    """

    def __init__(self, fleet: Fleet, say_pace: Callable[[float], None]) -> None:
        self._fleet = fleet
        self._say_pace = say_pace
        self._checked = 0.0

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if time.monotonic() - self._checked > WATCH_SECONDS:
            self._fleet.check()
            if pace := self._fleet.pace():
                self._say_pace(pace)
            self._checked = time.monotonic()

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._fleet.switchboard.release_trial.remote(str(trial))

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._fleet.describe()  # raises if it is gone: then the trial has not failed, the sweep has
        self._fleet.switchboard.release_trial.remote(str(trial))
