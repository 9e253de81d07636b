"""One small actor that carries every trial's reports from its Train controller to its driver.

Ray's own way is a queue actor per trial: a process and two CPU-seconds each.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import ray
from ray.actor import ActorHandle

# What only waits and forwards must not take from what the workers need: a bit of the head node.
DRIVER_SHARE = 0.001


class Mailbox:
    """Unbounded queues by key; ``get`` returns what has arrived within ``timeout`` seconds."""

    def __init__(self) -> None:
        self._queues: defaultdict[str, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)

    async def put(self, key: str, item: Any) -> None:
        await self._queues[key].put(item)

    async def get(self, key: str, timeout: float) -> list[Any]:
        queue = self._queues[key]
        try:
            items = [await asyncio.wait_for(queue.get(), timeout)]
        except TimeoutError:
            return []
        while not queue.empty():
            items.append(queue.get_nowait())
        return items

    async def close(self, key: str) -> None:
        self._queues.pop(key, None)


def open_mailbox() -> ActorHandle:
    """Start the actor; it needs no CPU of its own and ends with the sweep's driver."""
    return ray.remote(num_cpus=0, max_concurrency=1000)(Mailbox).remote()
