"""A sweep as Ray Tune sees it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray import tune
from ray.tune import Result, ResultGrid
from ray.tune.experiment import Trial

from tuning.history.manifest import read_manifest
from tuning.history.record import TUNE_DIR

# Ray Tune pickles references to our functions into its state. Where a module was when an earlier
# release wrote one -> where it is now.
MOVED = {"tuning.experiment": "tuning.sweep.tune_run"}


@contextmanager
def moved_modules() -> Iterator[None]:
    """Inside the block what was pickled by an earlier release finds the modules of this one."""
    names = [name for name in MOVED if name not in sys.modules]
    sys.modules.update({name: importlib.import_module(MOVED[name]) for name in names})
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


class SweepResults(ResultGrid):
    """Ray Tune's own, whose best result is that of the epoch by which the sweep's trials count."""

    def __init__(self, analysis: tune.ExperimentAnalysis, scope: str) -> None:
        super().__init__(analysis)
        self._scope = scope

    def get_best_result(
        self,
        metric: str | None = None,
        mode: str | None = None,
        scope: str | None = None,
        filter_nan_and_inf: bool = True,
    ) -> Result:
        """As Tune's, by default over the epochs that count instead of the last ones."""
        return super().get_best_result(metric, mode, scope or self._scope, filter_nan_and_inf)


def results(directory: Path) -> ResultGrid:
    """Ray Tune's own view of a sweep, its checkpoints included.

    Every process that ran a part of the sweep has left its own; the last one knows best.
    """
    directory = directory.absolute()  # Ray takes a relative path for a URI
    manifest = read_manifest(directory)
    by_name: dict[str, Trial] = {}
    with moved_modules():
        for state in sorted((directory / TUNE_DIR).glob("experiment_state-*.json")):
            for trial in tune.ExperimentAnalysis(str(state)).trials or ():
                by_name[str(trial)] = trial
        return SweepResults(
            tune.ExperimentAnalysis(
                str(directory / TUNE_DIR),
                default_metric=manifest["metric"],
                default_mode=manifest["mode"],
                trials=[by_name[name] for name in sorted(by_name)],
            ),
            "all" if manifest.get("metric_at") == "best" else "last",
        )
