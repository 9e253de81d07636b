"""What others read of a sweep, made from its history."""

from __future__ import annotations

import json
from pathlib import Path

from trainables.files import write_text
from tuning.config.sweep import SweepConfig
from tuning.history.record import TUNE_DIR, SweepRecord
from tuning.search.study import export_study


def write_derived(directory: Path, config: SweepConfig, record: SweepRecord) -> None:
    """The study, Tune's ``result.json`` of each trial, the best encoder.

    All is made anew each time: nothing in it can be missing or twice.
    """
    export_study(record, config.search_space, directory / "study.journal")
    for trial in record.trials.values():
        folder = directory / TUNE_DIR / trial.trial_id
        if folder.is_dir():
            rows = [
                {
                    **trial.reports[epoch],
                    "training_iteration": epoch,
                    "trial_id": trial.trial_id,
                    "config": trial.params,
                }
                for epoch in sorted(trial.reports)
            ]
            write_text(folder / "result.json", "".join(json.dumps(row) + "\n" for row in rows))
    if record.best() is not None:
        from tuning.history.export import write_best

        write_best(directory, record, directory / "best", replace=True)
