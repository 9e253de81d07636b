"""A launch up to its training; loads no torch."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable

import optuna

from trainables.inputs.checked_data import read_data
from tuning.config.space import searched_values, with_params
from tuning.config.sweep import ResolvedSweep, dump_sweep
from tuning.history.record import SweepRecord
from tuning.search.suggestions import Suggestions
from tuning.sweep.directory import check_inputs, create_directory, read_config

optuna.logging.set_verbosity(optuna.logging.ERROR)
DRAWS = 2


def make_and_check(sweep: ResolvedSweep, say: Callable[[str], None]) -> None:
    """Instead of training: the directory is whole, and the space gives trials that can be built."""
    create_directory(sweep)
    try:
        config = read_config(sweep.directory)
        check_inputs(sweep.directory)
        assert not read_data(config.train).leaked or config.train.data.split == "rows"
        assert dump_sweep(read_config(sweep.directory)) == dump_sweep(config)
        record = SweepRecord(sweep.name, config.metric, config.mode, config.num_trials)
        fixed = searched_values(config.train, config.search_space)
        points = Suggestions(
            config.search_space, config.search, record, None, config.warm_start, fixed
        )
        for number in range(min(DRAWS + len(config.warm_start), 9)):
            with_params(config.train, points.draw(number).params, f"trial {number}")
    finally:
        shutil.rmtree(sweep.directory)
        with contextlib.suppress(OSError):
            sweep.directory.parent.rmdir()
