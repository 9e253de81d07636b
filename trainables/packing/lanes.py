"""Many runs on one frozen LLM: admitted by measured bytes, stepped together or in turn."""

from __future__ import annotations

import logging
import time
import traceback
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from trainables.config import PretrainConfig
from trainables.errors import OutOfMemoryError, TrialEndedError
from trainables.files import wait_for_room
from trainables.llm.frozen import FrozenLLM
from trainables.metrics import Metrics
from trainables.packing.memory import Footprint
from trainables.packing.protocol import Assignment, Link
from trainables.statuses import Status
from trainables.training.batches import DeviceInputs
from trainables.training.checkpoint import save_beside
from trainables.training.diagnosis import Finding
from trainables.training.pretraining import Pretraining, set_determinism
from trainables.training.reports import Ending, Report
from trainables.training.run import Run
from trainables.training.step import train_step

_log = logging.getLogger(__name__)
PACE_STEPS = 10  # from here on what is left can be told from them


@dataclass
class Lane:
    """A run with what it needs."""

    key: str
    directory: Path
    state_bytes: int
    step_bytes: float
    pretraining: Pretraining
    first_step_at: float | None = None  # seconds since 1970; told with the first report

    @property
    def run(self) -> Run:
        return self.pretraining.run


class Lanes:
    """The runs of one process. None of them can see, disturb or starve another.

    ``together`` steps as many runs at once as the budget of bytes allows, else one after the
    other; every run's losses are those it would have alone (bit for bit in turn).
    """

    def __init__(
        self,
        llm: FrozenLLM,
        inputs: DeviceInputs,
        footprint: Footprint,
        *,
        together: bool,
        budget: float,
        late: Finding | None = None,
    ) -> None:
        """``late``: what is to be said of this process's initialisation, with the first report."""
        self._llm = llm
        self._inputs = inputs
        self._footprint = footprint
        self._together = together
        self._budget = budget
        self._late = late
        self._waiting: deque[tuple[str, Assignment]] = deque()
        self._room_may_have_come = False
        self._lanes: dict[str, Lane] = {}
        self._turn: deque[Lane] = deque()  # the runs that have steps to make
        self.seconds_in_steps = 0.0
        self._steps_timed = -1  # the first one is left out: it makes what the others find
        self._seconds_timed, self._rows_timed = 0.0, 0

    @property
    def busy(self) -> bool:
        """Whether ``work`` has something to do before anything else is said."""
        return bool(self._turn) or (bool(self._waiting) and self._room_may_have_come)

    def assign(self, key: str, assignment: Assignment) -> None:
        """Take a run in as soon as there is room for it."""
        self._waiting.append((key, assignment))
        self._room_may_have_come = True

    def go_on(self, key: str) -> None:
        """Let a run that has reported begin its next epoch."""
        lane = self._lanes.get(key)
        if lane is not None and lane not in self._turn:
            lane.run.start_epoch()
            self._turn.append(lane)

    def release(self, key: str) -> None:
        """Forget a run, wherever it is."""
        self._lanes.pop(key, None)
        self._turn = deque(lane for lane in self._turn if lane.key != key)
        self._waiting = deque(item for item in self._waiting if item[0] != key)
        self._room_may_have_come = True

    def save(self) -> None:
        """Checkpoints of all runs that are in the middle of an epoch, as far as there is room."""
        for lane in self._lanes.values():
            if lane.run.in_epoch and len(lane.run.series):
                try:
                    save_beside(lane.directory, lane.run, lane.pretraining.history)
                except OSError as error:  # the one before has to do
                    _log.warning("%s: no checkpoint in mid-epoch: %s", lane.directory, error)

    def work(self) -> Iterator[tuple[str, Report]]:
        """Admit what fits, then one step of the runs whose turn it is; reports by key.

        What a run says last has ``last`` set: its final epoch, or an ending with the reason.
        """
        yield from self._admit()
        lanes = self._next_together()
        if not lanes:
            return
        start = time.perf_counter()
        ended = train_step([lane.run for lane in lanes], self._llm)
        seconds = time.perf_counter() - start
        self.seconds_in_steps += seconds
        self._time(seconds, sum(lane.run.config.training.batch_size for lane in lanes))
        for lane in lanes:
            lane.first_step_at = lane.first_step_at or time.time()
            if lane.run in ended:
                yield lane.key, self._end(lane, ended[lane.run])
            elif lane.run.in_epoch:
                self._turn.append(lane)
            else:
                yield lane.key, self._report(lane)

    def take_pace(self) -> float | None:
        """Seconds of training per row, once: when enough steps were made to tell."""
        if self._steps_timed != PACE_STEPS:
            return None
        self._steps_timed += 1  # it is told
        return self._seconds_timed / self._rows_timed

    def _time(self, seconds: float, rows: int) -> None:
        if self._steps_timed < PACE_STEPS:
            self._steps_timed += 1
            if self._steps_timed > 0:
                self._seconds_timed += seconds
                self._rows_timed += rows

    def _admit(self) -> Iterator[tuple[str, Report]]:
        while self._waiting:
            key, assignment = self._waiting.popleft()
            try:
                state = self._footprint.state(assignment.config)
                step = self._footprint.step(assignment.config)
                if state + step > self._budget:
                    raise _too_large(assignment.config, state + step, self._budget)
                held = sum(lane.state_bytes for lane in self._lanes.values())
                largest = max([step, *(lane.step_bytes for lane in self._lanes.values())])
                if held + state + largest > self._budget:
                    # Not the next one instead: small runs would keep a large one waiting for ever.
                    self._waiting.appendleft((key, assignment))
                    break  # until a lane is released
                self._open(key, assignment, state, step)
            except Exception as error:  # noqa: BLE001 - the other runs must go on
                yield key, _ending(error)
        self._room_may_have_come = False

    def _open(self, key: str, assignment: Assignment, state: int, step: float) -> None:
        """Build the run, put it where its checkpoint was, begin an epoch: its turn is next."""
        set_determinism(assignment.config.training.deterministic, self._inputs.device)
        pretraining = Pretraining(assignment.config, self._inputs, self._llm)
        if assignment.checkpoint is not None:
            pretraining.resume(Path(assignment.checkpoint), inherited=assignment.inherited)
        lane = Lane(key, Path(assignment.directory), state, step, pretraining)
        self._lanes[key] = lane
        lane.run.begin_epoch()
        # First: its first step shows soonest whether it can be trained at all.
        self._turn.appendleft(lane)

    def _next_together(self) -> list[Lane]:
        """The lanes of the next step: one, or as many as there is room for."""
        room = self._budget - sum(lane.state_bytes for lane in self._lanes.values())
        chosen: list[Lane] = []
        while self._turn:
            taken = sum(lane.step_bytes for lane in chosen)
            if chosen and (not self._together or taken + self._turn[0].step_bytes > room):
                break
            chosen.append(self._turn.popleft())
        return chosen

    def _report(self, lane: Lane) -> Report:
        try:
            report = lane.pretraining.end_epoch()
            save = partial(save_beside, lane.directory, lane.run, lane.pretraining.history)
            path = wait_for_room(save, lane.directory, _log.warning)
        except Exception as error:  # noqa: BLE001 - the other runs must go on
            return self._end(lane, error)
        if report.last:
            self.release(lane.key)
        return replace(
            report,
            findings=report.findings + self._once(),
            checkpoint=str(path),
            first_step_at=lane.first_step_at,
        )

    def _once(self) -> tuple[Finding, ...]:
        late, self._late = self._late, None
        return (late,) if late else ()

    def _end(self, lane: Lane, error: Exception) -> Ending:
        self.release(lane.key)
        return _ending(error, *lane.pretraining.history[-1:])


def serve(lanes: Lanes, link: Link) -> None:
    """Train what comes over the link until it says ``close``."""
    while True:
        # Commands come between two steps: none is so urgent that it could not wait for one.
        for command in link.receive(wait=not lanes.busy):
            match command.kind:
                case "assign" if command.assignment is not None:
                    lanes.assign(command.key, command.assignment)
                case "go_on":
                    lanes.go_on(command.key)
                case "release":
                    lanes.release(command.key)
                case "save":
                    lanes.save()
                    link.saved()
                case "close":
                    return
        for key, report in lanes.work():
            link.send(key, report, lanes.seconds_in_steps)
        if pace := lanes.take_pace():
            link.pace(pace)


def _ending(error: Exception, last: Metrics | None = None) -> Ending:
    """The ending of a run that could not go on; ``last`` are the metrics of its last epoch."""
    metrics = last or {}
    if isinstance(error, TrialEndedError):
        return Ending(error.status, error.message, metrics)
    _log.warning("a run failed:\n%s", "".join(traceback.format_exception(error)))
    return Ending(Status.FAILED, f"{type(error).__name__}: {error}", metrics)


def _too_large(config: PretrainConfig, needed: float, budget: float) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"a step of batch_size {config.training.batch_size} needs about {needed / 2**30:.1f} GiB, "
        f"but there are {budget / 2**30:.1f} GiB; lower training.batch_size",
        0,
    )
