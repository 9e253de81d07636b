"""``run_tune.py`` in whatever environment it is given, up to the training: it finds its Ray."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from unittest.mock import patch

from run_tune import restart_in_utf8

if __name__ == "__main__":
    restart_in_utf8()
    from trainables.errors import UserError
    from tuning.cli import main
    from tuning.commands.identity import identified
    from tuning.config.sweep import ResolvedSweep

    def find_and_check(sweep: ResolvedSweep, say: Callable[[str], None]) -> None:
        """Instead of the sweep."""
        from tests.fuzz.without_training import make_and_check
        from tuning.execution.finding_ray import find_ray

        find_ray()
        make_and_check(sweep, say)

    with ExitStack() as stack:
        with suppress(UserError):  # which `main` tells
            stack.enter_context(identified())  # before what loads Ray, as in `main`
        stack.enter_context(patch("tuning.sweep.launch.launch", find_and_check))
        stack.enter_context(patch("tuning.commands.launch._summary", lambda directory: 0))
        sys.exit(main())
