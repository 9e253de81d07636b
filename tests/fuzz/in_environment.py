"""``run_tune.py`` in whatever environment it is given, up to the training: it finds its Ray."""

from __future__ import annotations

import sys
from collections.abc import Callable
from unittest.mock import patch

from run_tune import restart_in_utf8

if __name__ == "__main__":
    restart_in_utf8()
    from tests.fuzz.without_training import make_and_check
    from tuning.cli import main
    from tuning.config.sweep import ResolvedSweep
    from tuning.execution.finding_ray import find_ray

    def find_and_check(sweep: ResolvedSweep, say: Callable[[str], None]) -> None:
        """Instead of the sweep."""
        find_ray()
        make_and_check(sweep, say)

    with (
        patch("tuning.sweep.launch.launch", find_and_check),
        patch("tuning.commands.launch._summary", lambda directory: 0),
    ):
        sys.exit(main())
