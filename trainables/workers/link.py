"""A host's end of the line to the switchboard."""

from __future__ import annotations

import queue
import threading
import uuid
from typing import TYPE_CHECKING, Any

import ray
import ray.train
from ray.actor import ActorHandle

from trainables.packing.protocol import Command

# The trial that drives a run and the run's controller load this module, too. What only workers
# need (torch, transformers) is imported where it is used: seconds per process.
if TYPE_CHECKING:
    pass

POLL_SECONDS = 5.0
SAVED = "saved"  # where hosts say that they have saved their runs


class SwitchboardLink:
    """A host's end of the line; a thread listens, so that no step ever waits for a message."""

    def __init__(self, switchboard: ActorHandle) -> None:
        self._switchboard = switchboard
        self._host = uuid.uuid4().hex
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()

    def join(self, lanes: int, about: dict[str, Any]) -> None:
        ray.get(self._switchboard.join.remote(self._host, lanes, about))
        threading.Thread(target=self._listen, name="switchboard", daemon=True).start()

    def put(self, key: str, item: Any) -> None:
        ray.get(self._switchboard.put.remote(key, item))

    def receive(self, wait: bool) -> list[Command]:
        found = [self._commands.get()] if wait else []
        while not self._commands.empty():
            found.append(self._commands.get())
        return found

    def send(self, key: str, report: dict[str, Any]) -> None:
        self._switchboard.report.remote(self._host, key, report)

    def saved(self) -> None:
        self.put(SAVED, self._host)

    def _listen(self) -> None:
        while True:
            try:
                found = ray.get(self._switchboard.commands.remote(self._host, POLL_SECONDS))
            except ray.exceptions.RayError:  # the sweep is gone
                found = [Command("close")]
            for command in found:
                self._commands.put(command)
                if command.kind == "close":
                    return
