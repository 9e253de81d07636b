"""Whoever runs a command has a home and a name while it runs, if need be given ones."""

from __future__ import annotations

from contextlib import AbstractContextManager

from tuning.execution.process_state import environment
from tuning.home import missing_identity


def identified() -> AbstractContextManager[None]:
    return environment(missing_identity())
