"""A host's end of the line to the switchboard."""

from __future__ import annotations

import queue
import threading
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

import ray
from ray.actor import ActorHandle

from trainables.errors import UserError
from trainables.packing.protocol import Board, Command, HostFacts
from trainables.training.reports import Report

POLL_SECONDS = 5.0  # the longest that a host takes to notice that the sweep is gone
Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class BoardActor:
    """The actor that hands out runs, its methods called as ``Board`` declares them."""

    handle: ActorHandle

    def ask(
        self,
        method: Callable[Concatenate[Board, Arguments], Awaitable[Answer]],
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Answer:
        """The answer of ``method``; waits for it."""
        answer: Answer = ray.get(self._call(method.__name__, *arguments, **options))
        return answer

    def tell(
        self,
        method: Callable[Concatenate[Board, Arguments], Awaitable[Any]],
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> None:
        """Call ``method`` and wait for nothing; calls arrive in their order."""
        self._call(method.__name__, *arguments, **options)

    def _call(self, method: str, *arguments: Any, **options: Any) -> ray.ObjectRef:
        return getattr(self.handle, method).remote(*arguments, **options)


class SwitchboardLink:
    """A host's end of the line; a thread listens, so that no step ever waits for a message."""

    def __init__(self, board: BoardActor) -> None:
        self._board = board
        self._host = uuid.uuid4().hex
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()

    def join(self, facts: HostFacts) -> None:
        self._board.ask(Board.join, self._host, facts)
        threading.Thread(target=self._listen, name="switchboard", daemon=True).start()

    def cannot_start(self, error: UserError) -> None:
        self._board.ask(Board.cannot_start, error)

    def receive(self, wait: bool) -> list[Command]:
        found = [self._commands.get()] if wait else []
        while not self._commands.empty():
            found.append(self._commands.get())
        return found

    def send(self, key: str, report: Report, seconds_in_steps: float) -> None:
        self._board.tell(Board.report, self._host, key, report, seconds_in_steps)

    def saved(self) -> None:
        self._board.ask(Board.saved, self._host)

    def pace(self, seconds_per_row: float) -> None:
        self._board.tell(Board.pace, seconds_per_row)

    def _listen(self) -> None:
        while True:
            try:
                found = self._board.ask(Board.commands, self._host, POLL_SECONDS)
            except ray.exceptions.RayError:  # the sweep is gone
                found = [Command("close")]
            for command in found:
                self._commands.put(command)
                if command.kind == "close":
                    return
