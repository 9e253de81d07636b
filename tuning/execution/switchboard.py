"""One small actor between a sweep's trials and the hosts that train them.

Trials ask for epochs, hosts hold runs in lanes; who trains where is decided here. A run has a key
of its own, so that what a superseded run of a trial still says is not mistaken for its
successor's. Nothing here imports torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.actor import ActorHandle

from trainables.errors import UserError
from trainables.packing.protocol import Assignment, Board, Command, HostFacts
from trainables.training.reports import EpochReport, Report
from tuning.execution.mailbox import DRIVER_SHARE, Mailbox

# A run that has reported keeps its lane for so long while another waits for one.
PATIENCE_SECONDS = 1.0
PACE = "pace"  # a queue of the mailbox


@dataclass
class Host:
    """A process of the fleet; ``runs`` are the keys of those in its lanes."""

    facts: HostFacts
    runs: set[str] = field(default_factory=set)
    commands: asyncio.Queue[Command] = field(default_factory=asyncio.Queue)

    @property
    def lanes(self) -> int:
        return self.facts.lanes


@dataclass(eq=False)
class TrialRun:
    """A trial's run; ``host`` is None while it waits for a lane or has given its lane up."""

    trial: str
    key: str
    assignment: Assignment
    host: str | None = None
    training: bool = True
    reported_at: float = 0.0
    reports: asyncio.Queue[Report] = field(default_factory=asyncio.Queue)


class Switchboard(Mailbox, Board):
    """Placing, refilling, replacing: the books of a fleet."""

    def __init__(self) -> None:
        super().__init__()
        self._hosts: dict[str, Host] = {}
        self._runs: dict[str, TrialRun] = {}  # by key
        self._run_of: dict[str, str] = {}  # the key of a trial's run
        self._waiting: deque[TrialRun] = deque()
        self._expected = 0  # hosts that are starting beside each other
        self._closed = False
        self._inputs: list[ray.ObjectRef] | None = None
        self._have_inputs = asyncio.Event()
        self._failure: UserError | None = None
        self._has_failed = asyncio.Event()
        self._saved: set[str] = set()
        self._another_saved = asyncio.Condition()

    # What trials say

    async def train(self, key: str, trial: str, assignment: Assignment | None) -> Report:
        """The report of the run's next epoch; an ``assignment`` starts it.

        A trial has one run at a time: a new one takes the place of the one before.
        """
        if assignment is not None:
            await self.release_trial(trial)
            run = TrialRun(trial, key, assignment)
            self._runs[key] = run
            self._run_of[trial] = key
            self._waiting.append(run)
        else:
            run = self._runs[key]
            run.training = True
            if run.host is not None and self._has_emptier_host(run.host):
                self._take_lane(run)
            if run.host is None:
                self._waiting.append(run)
            else:
                self._tell(run.host, Command("go_on", key))
        self._place()
        return await run.reports.get()

    async def release(self, key: str) -> None:
        """The run needs no lane any more."""
        run = self._runs.pop(key, None)
        if run is None:
            return
        if self._run_of.get(run.trial) == key:
            del self._run_of[run.trial]
        if run in self._waiting:
            self._waiting.remove(run)
        self._take_lane(run)
        self._place()

    async def release_trial(self, trial: str) -> None:
        await self.release(self._run_of.get(trial, ""))

    # What hosts say

    async def share(self, inputs: Any) -> None:
        """Keep what the first host has prepared; this process owns it from now on."""
        self._inputs = [ray.put(inputs)]
        self._have_inputs.set()

    async def inputs(self, timeout: float) -> list[ray.ObjectRef] | None:
        """A list, because a reference by itself would be fetched on the way."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._have_inputs.wait(), timeout)
        return self._inputs

    async def join(self, host: str, facts: HostFacts) -> None:
        self._hosts[host] = Host(facts)
        self._place()

    async def cannot_start(self, error: UserError) -> None:
        self._failure = error
        self._has_failed.set()

    async def saved(self, host: str) -> None:
        async with self._another_saved:
            self._saved.add(host)
            self._another_saved.notify_all()

    async def pace(self, seconds_per_row: float) -> None:
        await self.put(PACE, seconds_per_row)

    async def commands(self, host: str, timeout: float) -> list[Command]:
        """What the host has to do; ``close`` for one that is not known any more."""
        known = self._hosts.get(host)
        if known is None:
            return [Command("close")]
        try:
            found = [await asyncio.wait_for(known.commands.get(), timeout)]
        except TimeoutError:
            return [] if host in self._hosts and not self._closed else [Command("close")]
        while not known.commands.empty():
            found.append(known.commands.get_nowait())
        return found

    async def report(self, host: str, key: str, report: Report, seconds_in_steps: float) -> None:
        run = self._runs.get(key)
        if host in self._hosts:
            known = self._hosts[host]
            known.facts = replace(known.facts, seconds_in_steps=seconds_in_steps)
        if run is None or run.host != host:
            return
        run.training = False
        run.reported_at = asyncio.get_running_loop().time()
        if isinstance(report, EpochReport) and report.checkpoint is not None:
            run.assignment = replace(run.assignment, checkpoint=report.checkpoint, inherited=False)
        if report.last:
            self._hosts[host].runs.discard(key)
            run.host = None
        await run.reports.put(report)
        self._place()

    # What the fleet says

    async def forget_hosts(self, expected: int = 0) -> None:
        """All hosts are gone or going; their runs wait for the next ones, first in the queue.

        Until the ``expected`` next ones have joined, none takes more than its share.
        """
        self._expected = expected
        lost = [run for run in self._runs.values() if run.host is not None]
        self._hosts.clear()
        for run in lost:
            run.host = None
        self._waiting.extendleft(reversed([run for run in lost if run.training]))

    async def hosts(self) -> list[HostFacts]:
        return [host.facts for host in self._hosts.values()]

    async def start_failure(self) -> UserError | None:
        """Why a host cannot start; waits until one says so, perhaps for ever."""
        await self._has_failed.wait()
        return self._failure

    async def save_runs(self, timeout: float) -> None:
        """Let all hosts save their runs where they stand; waits for them up to ``timeout`` s."""
        asked = set(self._hosts)
        self._saved.clear()
        for name in asked:
            self._tell(name, Command("save"))
        async with self._another_saved:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self._another_saved.wait_for(lambda: self._saved >= asked), timeout
                )

    async def close_hosts(self) -> None:
        self._closed = True
        for name in self._hosts:
            self._tell(name, Command("close"))

    def _place(self) -> None:
        """Give free lanes to those that wait, the emptiest host first."""
        while self._waiting and self._hosts:
            name = min(self._hosts, key=lambda n: len(self._hosts[n].runs) / self._hosts[n].lanes)
            host = self._hosts[name]
            share = self._share(host)
            if len(host.runs) >= share and (share < host.lanes or not self._evict()):
                return
            if len(host.runs) < host.lanes:
                run = self._waiting.popleft()
                run.host = name
                host.runs.add(run.key)
                self._tell(name, Command("assign", run.key, run.assignment))

    def _share(self, host: Host) -> int:
        """The lanes that it may fill: all of them, as soon as its neighbours are up."""
        if len(self._hosts) >= self._expected:
            return host.lanes
        runs = len(self._waiting) + sum(len(h.runs) for h in self._hosts.values())
        return min(host.lanes, math.ceil(runs / self._expected))

    def _has_emptier_host(self, name: str) -> bool:
        """Whether a run that is moved between two epochs would leave the hosts more even."""
        here = len(self._hosts[name].runs)
        return any(len(h.runs) + 2 <= here and len(h.runs) < h.lanes for h in self._hosts.values())

    def _evict(self) -> bool:
        """Take the lane of a run that has been told nothing since it reported, if there is one.

        Its checkpoint lies on disk; told to go on, it will wait for a lane as others do.
        """
        loop = asyncio.get_running_loop()
        idle = [r for r in self._runs.values() if r.host is not None and not r.training]
        if not idle:
            return False
        oldest = min(idle, key=lambda run: run.reported_at)
        wait = oldest.reported_at + PATIENCE_SECONDS - loop.time()
        if wait > 0:
            loop.call_later(wait + 0.01, self._place)
            return False
        self._take_lane(oldest)
        return True

    def _take_lane(self, run: TrialRun) -> None:
        if run.host is not None:
            self._hosts[run.host].runs.discard(run.key)
            self._tell(run.host, Command("release", run.key))
            run.host = None

    def _tell(self, host: str, command: Command) -> None:
        self._hosts[host].commands.put_nowait(command)


def open_switchboard() -> ActorHandle:
    """Start the actor; it needs no CPU of its own and ends with the sweep's driver."""
    from tuning.ray_internals import HEAD_NODE  # not in the actor's process

    share = {HEAD_NODE: DRIVER_SHARE}
    actor = ray.remote(num_cpus=0, resources=share, max_concurrency=10_000)(Switchboard)
    return actor.remote()
