"""``verify``: every part of the encoder against what it promises, one line each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib import import_module

from trainables.config import PretrainConfig
from trainables.errors import UserError
from tuning.verification.check import Check, ProblemError, Subjects
from tuning.verification.names import MODULES

CHECKS: dict[str, tuple[Check, ...]] = {
    name: import_module(f"tuning.verification.{name}").CHECKS for name in MODULES
}


def verify(modules: Sequence[str], config: PretrainConfig, say: Callable[[str], None]) -> bool:
    """Say one line per check of ``modules``; True if all hold."""
    start = time.perf_counter()
    subjects = Subjects(config)
    answers = [_holds(name, check, subjects, say) for name in modules for check in CHECKS[name]]
    right = sum(answers)
    say(f"{right} of {len(answers)} checks hold ({time.perf_counter() - start:.1f} s)")
    return right == len(answers)


def _holds(name: str, check: Check, subjects: Subjects, say: Callable[[str], None]) -> bool:
    try:
        remark = check.run(subjects)
    except Exception as error:  # noqa: BLE001 - a broken part must not hide what the others do
        say(f"✗ {name:<16} {check.claim}: {_found(error)}; {check.remedy}")
        return False
    say(f"✓ {name:<16} {check.claim}{f' ({remark})' if remark else ''}")
    return True


def _found(error: Exception) -> str:
    if isinstance(error, (ProblemError, UserError)):
        return str(error)
    return " ".join(f"{type(error).__name__}: {error}".split())
