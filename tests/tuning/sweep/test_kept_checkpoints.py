"""The best epoch of a trial: its weights stay, and every place names the same one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from search_spaces.schema import SearchSpace
from tests.tuning.history.test_sweeps import epoch, trial
from tests.tuning.monitors.test_findings import write_checkpoint_files
from trainables.training.checkpoint_files import checkpoints, read_meta
from tuning.commands.answers import best_answer, status_answer, trials_answer
from tuning.config.sweep import ResolvedSweep, load_sweep
from tuning.history.export import best_of
from tuning.history.record import EventKind, SweepRecord
from tuning.history.sweeps import read_sweep
from tuning.search.optuna_study import export_study
from tuning.search.warm_start import best_params
from tuning.sweep.directory import create_directory, read_config
from tuning.sweep.resuming import take_up
from tuning.sweep.running import RunningSweep, open_sweep

DROPOUT = "model.dropout"
FIRST, SECOND = "trial_0000", "trial_0001"


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[RunningSweep]:
    made = ResolvedSweep("mine", load_sweep(None, [f"storage={tmp_path}", "num_trials=2"]))
    create_directory(made)
    opened = reopened(made.directory)
    yield opened
    opened.history.close()


def reopened(directory: Path) -> RunningSweep:
    record = read_sweep(directory)
    return open_sweep(directory, read_config(directory), record, print)


def train(sweep: RunningSweep, name: str, losses: Sequence[float], done: int = 0) -> None:
    """Epochs as Ray Tune tells them: each saved, and the two newest checkpoints kept."""
    tell, folder = sweep.history.tell, sweep.trials / name
    if not done:
        tell(EventKind.TRIAL, name, params={DROPOUT: int(name[-1]) / 10})
    tell(EventKind.START, name, params={DROPOUT: int(name[-1]) / 10})
    for number, loss in enumerate(losses, start=done + 1):
        metrics = {**epoch(name, number, loss)["metrics"], "step": 10 * number}
        tell(EventKind.EPOCH, name, metrics=metrics)
        rows = sweep.record.trials[name].reports
        write_checkpoint_files(folder, [rows[e] for e in sorted(rows)])
        sweep.history.checkpointed(name, checkpoints(folder)[-1])
        for old in checkpoints(folder)[:-2]:
            shutil.rmtree(old)


def end(sweep: RunningSweep, name: str, status: str) -> None:
    sweep.history.tell(EventKind.END, name, status=status, message="")


def folders(sweep: RunningSweep, name: str) -> list[str]:
    return sorted(path.name for path in (sweep.trials / name).iterdir())


def test_the_best_epoch_counts_and_every_place_names_it(sweep: RunningSweep) -> None:
    train(sweep, FIRST, [3.0, 1.9, 1.7, 1.8, 1.85, 1.9])
    end(sweep, FIRST, "finished")
    train(sweep, SECOND, [2.5, 1.75])
    end(sweep, SECOND, "finished")
    assert folders(sweep, FIRST) == ["best_000003", "checkpoint_000005", "checkpoint_000006"]

    record = read_sweep(sweep.directory)
    best, checkpoint = best_of(sweep.directory, record)
    assert (best.trial_id, best.epoch, best.metrics["val_loss"]) == (FIRST, 3, 1.7)
    assert read_meta(checkpoint)["history"][-1]["val_loss"] == 1.7
    answer = best_answer(sweep.directory)
    told = {key: answer[key] for key in ("trial_id", "epoch", "value")}
    assert told == {"trial_id": FIRST, "epoch": 3, "value": 1.7}
    assert answer["metrics"]["val_loss"] == 1.7
    status = status_answer(sweep.directory)["best"]
    assert {key: status[key] for key in told} == told
    first, _ = trials_answer(sweep.directory)
    assert {key: first[key] for key in told} == told
    assert best_params(record, 2) == [{DROPOUT: 0.0}, {DROPOUT: 0.1}]
    study = exported(sweep)
    assert study.best_value == 1.7
    assert study.best_trial.user_attrs["trial"] == FIRST
    assert study.user_attrs["winner"] == {"trial": FIRST, "epoch": 3, "val_loss": 1.7}


def exported(sweep: RunningSweep) -> optuna.Study:
    space = SearchSpace.model_validate({DROPOUT: {"type": "float", "low": 0, "high": 0.5}})
    path = sweep.directory / "study.journal"
    export_study(read_sweep(sweep.directory), space, path)
    return optuna.load_study(
        study_name="mine", storage=JournalStorage(JournalFileBackend(str(path)))
    )


def test_a_trial_that_was_stopped_early_wins_only_below_all_others(sweep: RunningSweep) -> None:
    train(sweep, FIRST, [3.0, 1.6])
    end(sweep, FIRST, "stopped early")
    train(sweep, SECOND, [2.5, 1.75, 1.6])
    end(sweep, SECOND, "finished")
    record = read_sweep(sweep.directory)
    assert [t.trial_id for t in record.by_value()] == [FIRST, SECOND]  # as good: the earlier
    study = exported(sweep)
    assert study.user_attrs["winner"]["trial"] == FIRST
    assert study.best_trial.user_attrs["trial"] == SECOND  # Optuna's own knows finished ones only
    assert best_answer(sweep.directory)["status"] == "stopped early at epoch 2"


def test_a_sweep_may_count_by_last_epochs_and_those_from_before_do(sweep: RunningSweep) -> None:
    assert load_sweep(sweep.directory / "sweep.yaml", begun=True).metric_at == "best"
    path = sweep.directory / "sweep.yaml"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("metric_at")))
    assert load_sweep(path, begun=True).metric_at == "last"
    record = SweepRecord("mine", "val_loss", "min", 1)
    for event in trial(FIRST, [1.0, 2.0], "finished"):
        record.apply(event)
    (found,) = record.ranked()
    assert (record.epoch_of(found), record.value(found)) == (2, 2.0)


def test_a_stop_in_mid_epoch_past_the_best_keeps_the_best_weights(sweep: RunningSweep) -> None:
    train(sweep, FIRST, [3.0, 1.7, 1.8, 1.9])
    folder = sweep.trials / FIRST
    shutil.copytree(checkpoints(folder)[-1], folder / "aside")
    meta = (folder / "aside" / "meta.json").read_text()
    (folder / "aside" / "meta.json").write_text(meta.replace('"step": 40', '"step": 45', 1))
    (folder / "aside").rename(folder / "checkpoint_000004_1")  # with half of epoch 5
    sweep.history.close()

    again = reopened(sweep.directory)
    (start,) = take_up(again, retry_failed=False)
    assert start.checkpoint == folder / "checkpoint_000004_1"
    assert folders(again, FIRST) == ["best_000002", "checkpoint_000004_1"]
    end(again, FIRST, "stopped early")
    again.history.close()
    best, checkpoint = best_of(sweep.directory, read_sweep(sweep.directory))
    assert (best.epoch, checkpoint.name) == (2, "best_000002")

    shutil.rmtree(checkpoint)  # what is left has other weights than epoch 4's figures
    with pytest.raises(Exception, match="best_000002"):
        best_of(sweep.directory, read_sweep(sweep.directory))


def test_killed_before_the_best_was_told_it_is_told_at_resume(sweep: RunningSweep) -> None:
    train(sweep, FIRST, [3.0, 2.0])
    metrics = {**epoch(FIRST, 3, 1.5)["metrics"], "step": 30}
    sweep.history.tell(EventKind.EPOCH, FIRST, metrics=metrics)
    rows = sweep.record.trials[FIRST].reports
    write_checkpoint_files(sweep.trials / FIRST, [rows[e] for e in sorted(rows)])
    sweep.history.close()
    again = reopened(sweep.directory)
    take_up(again, retry_failed=False)
    assert again.record.trials[FIRST].best_epoch == 3
    assert folders(again, FIRST) == ["best_000003", "checkpoint_000003"]
    again.history.close()


def test_nothing_goes_back_behind_the_best_epoch(sweep: RunningSweep) -> None:
    train(sweep, FIRST, [3.0, 2.0, 1.5])
    for path in checkpoints(sweep.trials / FIRST):
        (path / "encoder.safetensors").unlink()  # the copy is another name of the same file
    sweep.history.close()
    again = reopened(sweep.directory)
    (start,) = take_up(again, retry_failed=False)
    again.history.close()
    assert start.checkpoint == sweep.trials / FIRST / "best_000003"
    assert again.record.trials[FIRST].epoch == 3


def test_a_best_epoch_that_is_trained_again_is_best_again(sweep: RunningSweep) -> None:
    train(sweep, FIRST, [3.0, 2.0, 1.5])
    for path in (sweep.trials / FIRST).iterdir():
        if path.name != "checkpoint_000002":
            (path / "meta.json").write_text("{")
    sweep.history.close()
    again = reopened(sweep.directory)
    take_up(again, retry_failed=False)
    known = again.record.trials[FIRST]
    assert (known.epoch, known.best_epoch, again.record.value(known)) == (2, 2, 2.0)
    train(again, FIRST, [1.5], done=2)
    assert (known.best_epoch, again.record.value(known)) == (3, 1.5)
    assert folders(again, FIRST)[0] == "best_000003"
    again.history.close()
    found: Any = read_sweep(sweep.directory).trials[FIRST]
    assert (found.best_epoch, found.best_checkpoint) == (3, f"tune/{FIRST}/best_000003")
