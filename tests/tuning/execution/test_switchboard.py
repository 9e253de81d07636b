"""Who trains where: placing, refilling, taking over from hosts that are gone. No Ray is needed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from trainables.config import PretrainConfig
from trainables.packing.protocol import Assignment, Command, HostFacts
from trainables.statuses import Status
from trainables.training.reports import EpochReport
from tuning.execution import switchboard
from tuning.execution.switchboard import Switchboard

CONFIG = PretrainConfig()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switchboard, "PATIENCE_SECONDS", 0.05)


def scenario(play: Callable[[Switchboard], Awaitable[None]]) -> None:
    async def run() -> None:
        await asyncio.wait_for(play(Switchboard()), timeout=10)

    asyncio.run(run())


def assignment(trial: str) -> Assignment:
    return Assignment(CONFIG, trial)


async def told(board: Switchboard, host: str) -> list[tuple[str, str]]:
    return [(c.kind, c.key) for c in await board.commands(host, timeout=0.01)]


def report(epoch: int, last: bool = False, checkpoint: str | None = None) -> EpochReport:
    status = Status.FINISHED if last else Status.RUNNING
    return EpochReport({"epoch": epoch}, status=status, checkpoint=checkpoint)


def facts(lanes: int) -> HostFacts:
    return HostFacts(lanes, "as the test wants it", pid=3, node=0, joined=0.0)


def start(board: Switchboard, key: str) -> asyncio.Task[Any]:
    return asyncio.create_task(board.train(key, key.split("-")[0], assignment(key)))


def test_free_lanes_are_filled_the_emptiest_host_first() -> None:
    async def play(board: Switchboard) -> None:
        await board.join("h1", facts(2))
        await board.join("h2", facts(2))
        tasks = [start(board, key) for key in ("a", "b", "c", "d", "e")]
        await asyncio.sleep(0)
        assert await told(board, "h1") == [("assign", "a"), ("assign", "c")]
        assert await told(board, "h2") == [("assign", "b"), ("assign", "d")]
        await board.report("h2", "d", report(3, last=True), 1.0)
        assert await told(board, "h2") == [("assign", "e")], "refilled at once"
        assert (await tasks[3]).epoch == 3
        for task in tasks:
            task.cancel()

    scenario(play)


def test_hosts_that_start_beside_each_other_share_what_waits() -> None:
    async def play(board: Switchboard) -> None:
        await board.forget_hosts(expected=2)
        tasks = [start(board, key) for key in ("a", "b")]
        await asyncio.sleep(0)
        await board.join("h1", facts(2))
        assert await told(board, "h1") == [("assign", "a")], "its lane is free, but not for long"
        await board.join("h2", facts(2))
        assert await told(board, "h2") == [("assign", "b")]
        tasks += [start(board, key) for key in ("c", "d")]
        await asyncio.sleep(0)
        assert await told(board, "h1") == [("assign", "c")]
        assert await told(board, "h2") == [("assign", "d")]
        for task in tasks:
            task.cancel()

    scenario(play)


def test_a_run_moves_between_two_epochs_to_a_host_that_has_less_to_do() -> None:
    async def play(board: Switchboard) -> None:
        await board.join("h1", facts(2))
        tasks = [start(board, key) for key in ("a", "b")]
        await asyncio.sleep(0)
        assert await told(board, "h1") == [("assign", "a"), ("assign", "b")]
        await board.join("h2", facts(2))
        await board.report("h1", "a", report(1, checkpoint="a/1"), 1.0)
        await tasks[0]
        tasks.append(asyncio.create_task(board.train("a", "a", None)))
        await asyncio.sleep(0)
        assert await told(board, "h1") == [("release", "a")]
        (command,) = await board.commands("h2", timeout=1)
        assert command.assignment is not None
        assert (command.key, command.assignment.checkpoint) == ("a", "a/1")
        await board.report("h1", "b", report(1), 1.0)
        await tasks[1]
        tasks.append(asyncio.create_task(board.train("b", "b", None)))
        await asyncio.sleep(0)
        assert await told(board, "h1") == [("go_on", "b")], "they are even now"
        for task in tasks:
            task.cancel()

    scenario(play)


def test_a_run_goes_on_in_its_lane_when_it_is_told_to() -> None:
    async def play(board: Switchboard) -> None:
        await board.join("h1", facts(1))
        first = start(board, "a")
        await asyncio.sleep(0)
        await board.report("h1", "a", report(1), 1.0)
        assert (await first).epoch == 1
        second = asyncio.create_task(board.train("a", "a", None))
        await asyncio.sleep(0)
        assert await told(board, "h1") == [("assign", "a"), ("go_on", "a")]
        second.cancel()

    scenario(play)


def test_a_run_that_is_told_nothing_gives_its_lane_to_one_that_waits() -> None:
    async def play(board: Switchboard) -> None:
        await board.join("h1", facts(1))
        a = start(board, "a")
        await asyncio.sleep(0)
        await board.report("h1", "a", report(1, checkpoint="a/1"), 1.0)
        await a
        b = start(board, "b")
        await asyncio.sleep(0)
        assert await told(board, "h1") == [("assign", "a")], "not before it had time to be told"
        await asyncio.sleep(0.1)
        assert await told(board, "h1") == [("release", "a"), ("assign", "b")]
        again = asyncio.create_task(board.train("a", "a", None))
        await asyncio.sleep(0)
        await board.report("h1", "b", report(5, last=True), 1.0)
        (command,) = await board.commands("h1", timeout=1)
        assert command.assignment is not None
        assert (command.key, command.assignment.checkpoint) == ("a", "a/1")
        again.cancel()
        b.cancel()

    scenario(play)


def test_runs_of_lost_hosts_go_on_elsewhere_from_their_checkpoints() -> None:
    async def play(board: Switchboard) -> None:
        await board.join("old", facts(2))
        a, b, c = (start(board, key) for key in "abc")
        await asyncio.sleep(0)
        await board.report("old", "a", report(1, checkpoint="a/1"), 1.0)
        await a
        again = asyncio.create_task(board.train("a", "a", None))
        await asyncio.sleep(0)
        await board.forget_hosts()
        assert await told(board, "old") == [("close", "")]
        await board.report("old", "b", report(1), 1.0)  # came too late, and does not count
        assert not b.done()
        await board.join("new", facts(2))
        commands: list[Command] = await board.commands("new", timeout=1)
        assert [c.key for c in commands] == ["a", "b"], "before those that have not started"
        assert [c.assignment and c.assignment.checkpoint for c in commands] == ["a/1", None]
        for task in (again, b, c):
            task.cancel()

    scenario(play)


def test_a_new_run_of_a_trial_takes_the_place_of_the_old_one() -> None:
    async def play(board: Switchboard) -> None:
        await board.join("h1", facts(1))
        old, new = start(board, "a-1"), start(board, "a-2")
        await asyncio.sleep(0.01)
        assert await told(board, "h1") == [
            ("assign", "a-1"),
            ("release", "a-1"),
            ("assign", "a-2"),
        ]
        await board.release("a-1")  # said by the actor that had it before
        await board.report("h1", "a-2", report(1), 1.0)
        assert (await new).epoch == 1
        old.cancel()

    scenario(play)


def test_a_trial_that_has_ended_leaves_nothing_behind() -> None:
    async def play(board: Switchboard) -> None:
        await board.join("h1", facts(1))
        for key in ("a", "b", "c"):
            task = start(board, key)
            await asyncio.sleep(0)
            await board.report("h1", key, report(1, last=key != "b"), 1.0)
            await task
            await board.release_trial(key)
        assert not board._runs
        assert not board._run_of
        assert not board._hosts["h1"].runs

    scenario(play)


def test_closing_tells_every_host() -> None:
    async def play(board: Switchboard) -> None:
        await board.join("h1", facts(1))
        assert await board.hosts() == [facts(1)]
        await board.close_hosts()
        assert await told(board, "h1") == [("close", "")]

    scenario(play)


def test_the_light_processes_import_no_torch() -> None:
    code = (
        "import sys, tuning.execution.packed_trial, tuning.execution.switchboard;"
        "import tuning.execution.opening, tuning.sweep.launch;"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    assert done.returncode == 0


def test_the_switchboards_process_does_not_import_tune() -> None:
    """It would take 100 MiB more."""
    code = "import sys, tuning.execution.switchboard; sys.exit('ray.tune' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    assert done.returncode == 0
