"""What others read of a sweep, made from its history."""

from __future__ import annotations

import json

from trainables.files import write_text
from tuning.search.optuna_study import export_study
from tuning.sweep.running import RunningSweep


def write_derived(sweep: RunningSweep) -> None:
    """The study, Tune's ``result.json`` of each trial, the best encoder, once there is room.

    All but the study, which others may have open, is made anew each time: nothing in it can be
    missing or twice.
    """
    sweep.when_there_is_room(lambda: _write(sweep))


def _write(sweep: RunningSweep) -> None:
    record = sweep.record
    export_study(record, sweep.config.search_space, sweep.directory / "study.journal")
    for trial in record.trials.values():
        folder = sweep.trials / trial.trial_id
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
        from tuning.history.export import write_trial

        write_trial(sweep.directory, record, sweep.directory / "best", replace=True)
