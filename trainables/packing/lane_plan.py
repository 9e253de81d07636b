"""How many lanes a host has, from the memory that is free and what a run needs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainables.config import PretrainConfig
from trainables.packing.memory import Footprint, free_bytes
from trainables.packing.protocol import LANES_IN_TURN

MOST_LANES = 16  # seen on a GPU: each further lane adds less, as its host time stays its own


@dataclass(frozen=True)
class LanePlan:
    """How many lanes a host has, whether they step together, and why."""

    lanes: int
    together: bool
    reason: str


def plan_lanes(
    wanted: int | None,
    config: PretrainConfig,
    device: torch.device,
    footprint: Footprint,
    budget: float,
) -> LanePlan:
    """``wanted`` lanes, or as many as pay: two in turn on a CPU, all that fit on a GPU."""
    if device.type == "cpu":
        lanes = LANES_IN_TURN if wanted is None else wanted
        return LanePlan(lanes, False, "in turn: on a CPU a joint step is no faster per trial")
    lane = footprint.state(config) + footprint.step(config)
    lanes = min(MOST_LANES, max(1, int(budget // lane))) if wanted is None else wanted
    return LanePlan(
        lanes,
        True,
        f"in one pass: a lane needs {lane / 2**20:.0f} MiB, {budget / 2**20:.0f} MiB are free",
    )


def budget_of(device: torch.device, sharers: int) -> float:
    """The bytes that one of ``sharers`` processes on this machine may take for its runs."""
    return free_bytes(device) / (1 if device.type == "cuda" else sharers)
