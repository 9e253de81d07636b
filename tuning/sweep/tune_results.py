"""A sweep as Ray Tune sees it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ray import tune
from ray.tune import Result, ResultGrid
from ray.tune.experiment import Trial

from tuning.history.export import best_of
from tuning.history.manifest import read_manifest
from tuning.history.record import TUNE_DIR
from tuning.history.sweeps import read_sweep

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
    """Ray Tune's own, whose best result is what every other place calls the best."""

    def __init__(self, analysis: tune.ExperimentAnalysis, directory: Path) -> None:
        super().__init__(analysis)
        self._directory = directory

    def get_best_result(
        self,
        metric: str | None = None,
        mode: str | None = None,
        scope: str | None = None,
        filter_nan_and_inf: bool = True,
    ) -> Result:
        """The best trial with the figures and the checkpoint of the epoch by which it counts.

        Asked for a metric, a mode or a scope, it answers as Ray Tune does, by last epochs where no
        scope is given.
        """
        if metric or mode or scope:
            return super().get_best_result(metric, mode, scope or "last", filter_nan_and_inf)
        best, checkpoint = best_of(self._directory, read_sweep(self._directory))
        (found,) = (result for result in self if Path(result.path).name == best.trial_id)
        return replace(
            found,
            metrics={**(found.metrics or {}), **best.metrics},
            checkpoint=tune.Checkpoint.from_directory(checkpoint),
        )


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
            directory,
        )
