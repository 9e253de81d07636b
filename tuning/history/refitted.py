"""What `refit` has found out about a trial, kept beside its sweep."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REFIT_DIR = "refit"
RESULT_FILE = "refit.json"

_log = logging.getLogger(__name__)


def read_refit(directory: Path) -> dict[str, Any] | None:
    """The result of a sweep's refit: ``trial``, ``metric``, ``num_epochs``, ``seeds`` (value by
    seed), ``mean``, ``standard_error``, ``gate_closed``. None if there is none; a damaged file is
    reported and does not count."""
    path = directory / REFIT_DIR / RESULT_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        described(found)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        _log.warning("%s is damaged and left out: %r", path, error)
        return None
    return dict(found)


def described(result: Mapping[str, Any]) -> str:
    """In one line: the mean, its error, and what the same comes to without a gate that opens."""
    number = len(result["seeds"])
    seeds = f"{number} {'seed' if number == 1 else 'seeds'}"
    error, closed = result["standard_error"], result["gate_closed"]
    spread = "" if error is None else f" ± {error:.4f}"
    baseline = "" if closed is None else f" (gate closed: {closed:.4f})"
    return (
        f"{result['metric']} {result['mean']:.4f}{spread}{baseline}, {result['trial']} refitted "
        f"with {seeds}, {result['num_epochs']:d} epochs"
    )
