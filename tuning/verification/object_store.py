"""The shared inputs through Ray's object store, as trials get them. Starts Ray for its time."""

from __future__ import annotations

import tempfile
from dataclasses import fields
from pathlib import Path

import numpy as np

from trainables.inputs.shared_inputs import SharedInputs
from tuning.verification.check import Check, ProblemError, Subjects


def _comes_back(subjects: Subjects) -> str:
    from trainables.workers.object_store import get_inputs, put_inputs
    from tuning.execution.cluster import ray_cluster
    from tuning.execution.finding_ray import find_ray

    found = find_ray()
    with (
        tempfile.TemporaryDirectory() as logs,
        ray_cluster(found, Path(logs) / "ray.log") as cluster,
    ):
        problem = _difference(subjects.inputs, get_inputs(put_inputs(subjects.inputs)))
        where = "a running cluster" if cluster.joined else "a local cluster"
    where += f"; {found.remark}" if found.remark else ""
    if problem:
        raise ProblemError(problem)
    return where


def _difference(before: SharedInputs, after: SharedInputs) -> str:
    for field in fields(SharedInputs):
        was, now = getattr(before, field.name), getattr(after, field.name)
        if not isinstance(was, np.ndarray):
            if was != now:
                return f"`{field.name}` comes back changed"
        elif was.dtype != now.dtype or not np.array_equal(was, now):
            return f"`{field.name}` comes back changed"
        elif now.flags.writeable or now.flags.owndata:
            return f"`{field.name}` comes back as a copy"
    return ""


CHECKS = (
    Check(
        "shared inputs come back unchanged, read-only, without a copy",
        "put plain numpy arrays, and start Ray where `ray start` or RAY_ADDRESS says",
        _comes_back,
    ),
)
