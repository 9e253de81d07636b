"""A sweep as Ray Tune sees it."""

from __future__ import annotations

from pathlib import Path

from ray import tune
from ray.tune import ResultGrid
from ray.tune.experiment import Trial

from tuning.history.manifest import read_manifest
from tuning.history.record import TUNE_DIR


def results(directory: Path) -> ResultGrid:
    """Ray Tune's own view of a sweep, its checkpoints included.

    Every process that ran a part of the sweep has left its own; the last one knows best.
    """
    manifest = read_manifest(directory)
    by_name: dict[str, Trial] = {}
    for state in sorted((directory / TUNE_DIR).glob("experiment_state-*.json")):
        for trial in tune.ExperimentAnalysis(str(state)).trials or ():
            by_name[str(trial)] = trial
    return ResultGrid(
        tune.ExperimentAnalysis(
            str(directory / TUNE_DIR),
            default_metric=manifest["metric"],
            default_mode=manifest["mode"],
            trials=[by_name[name] for name in sorted(by_name)],
        )
    )
