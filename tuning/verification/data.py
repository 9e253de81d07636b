"""The configured registry and table."""

from __future__ import annotations

from pathlib import Path

from trainables.data.registry import load_registry
from trainables.inputs.checked_data import read_data
from tuning.verification.check import Check, Subjects


def _registry(subjects: Subjects) -> str:
    path = subjects.config.data.tool_registry
    return f"{len(load_registry(Path(path)))} tools in {Path(path).name}"


def _table(subjects: Subjects) -> str:
    data = read_data(subjects.config)
    name = Path(subjects.config.data.profiling_data).name
    repeated = f", {data.repeated} repeated" if data.repeated else ""
    return (
        f"{len(data.train_rows)} for training, {len(data.val_rows)} held out{repeated}, from {name}"
    )


CHECKS = (
    Check("the tool registry can be used", "set `data.tool_registry`", _registry),
    Check("the profiling table can be used", "set `data.profiling_data`", _table),
)
