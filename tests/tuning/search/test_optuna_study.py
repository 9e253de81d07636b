"""The journal is only added to: whoever has it open reads on, and what others wrote in it stays."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from search_spaces.schema import SearchSpace
from tests.tuning.search.test_suggestions import POINT, SPACE, make_record, tell
from tuning.history.record import SweepRecord
from tuning.search.optuna_study import export_study


def reader(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


def studies(storage: JournalStorage) -> dict[str, list[tuple[TrialState, float | None]]]:
    return {
        study.study_name: [
            (t.state, t.value)
            for t in optuna.load_study(study_name=study.study_name, storage=storage).trials
        ]
        for study in storage.get_all_studies()
    }


COMPLETE, FAIL = TrialState.COMPLETE, TrialState.FAIL


@pytest.fixture
def record() -> SweepRecord:
    record = make_record()
    tell(record, 0, [3.0], "finished")
    tell(record, 1, [3.0])
    return record


@pytest.fixture
def path(tmp_path: Path, record: SweepRecord) -> Path:
    path = tmp_path / "study.journal"
    export_study(record, SPACE, path)
    return path


def test_an_open_reader_reads_on_and_its_notes_stay(path: Path, record: SweepRecord) -> None:
    dashboard = reader(path)
    study = optuna.load_study(study_name="mine", storage=dashboard)
    study.set_user_attr("note", "look at trial 0")
    before = path.read_bytes()
    tell(record, 1, [3.0, 2.0], "finished")
    export_study(record, SPACE, path)
    assert path.read_bytes().startswith(before)
    assert studies(dashboard) == {"mine": [(COMPLETE, 3.0), (COMPLETE, 2.0)]}
    for storage in (dashboard, reader(path)):
        again = optuna.load_study(study_name="mine", storage=storage)
        assert again.user_attrs["note"] == "look at trial 0"
        again.set_user_attr("second", 2)  # and can go on writing


def test_a_second_export_of_the_same_adds_nothing(path: Path, record: SweepRecord) -> None:
    before = path.read_bytes()
    export_study(record, SPACE, path)
    assert path.read_bytes() == before


def test_a_trial_that_is_taken_up_again_is_told_in_a_further_study(
    path: Path, record: SweepRecord
) -> None:
    tell(record, 2, [], "failed")
    export_study(record, SPACE, path)
    dashboard, before = reader(path), path.read_bytes()
    optuna.load_study(study_name="mine", storage=dashboard).set_user_attr("note", "why?")
    tell(record, 2, [2.5], "finished")
    for _ in range(2):
        export_study(record, SPACE, path)
    assert path.read_bytes().startswith(before)
    assert studies(dashboard) == {
        "mine": [(COMPLETE, 3.0), (FAIL, None)],
        "mine (2)": [(COMPLETE, 3.0), (COMPLETE, 2.5)],
    }
    further = optuna.load_study(study_name="mine (2)", storage=dashboard)
    assert further.user_attrs == {"note": "why?"}
    tell(record, 1, [3.0, 1.0], "finished")  # what comes then goes into the newest
    export_study(record, SPACE, path)
    assert studies(dashboard)["mine (2)"][-1] == (COMPLETE, 1.0)
    assert len(studies(dashboard)) == 2


def space(**changed: Any) -> SearchSpace:
    return SearchSpace.model_validate({**SPACE.model_dump(mode="json"), **changed})


HEADS, RATE = "model.num_attention_heads", "training.learning_rate"


@pytest.mark.parametrize(
    ("changed", "number"),
    [
        ({RATE: {"type": "float", "low": 1e-6, "high": 1.0, "log": True}}, 1),  # Optuna allows it
        ({HEADS: {"type": "choice", "choices": [1, 2, 4, 8]}}, 2),
        ({RATE: {"type": "float", "low": 1e-5, "high": 1e-2}}, 2),
        ({HEADS: {"type": "int", "low": 1, "high": 8}}, 2),
    ],
)
def test_what_optuna_refuses_to_change_is_a_further_study(
    path: Path, record: SweepRecord, changed: dict[str, Any], number: int
) -> None:
    dashboard = reader(path)
    assert len(studies(dashboard)["mine"]) == 1
    tell(record, 1, [3.0, 2.0], "finished")
    export_study(record, space(**changed), path)
    found = studies(dashboard)
    assert list(found) == ["mine", "mine (2)"][:number]
    assert list(found.values())[-1] == [(COMPLETE, 3.0), (COMPLETE, 2.0)]
    newest = optuna.load_study(study_name=list(found)[-1], storage=dashboard)
    assert newest.trials[1].params == POINT
    newest.ask(newest.trials[1].distributions)  # Optuna itself goes on with it


def test_a_trial_that_went_bad_keeps_the_value_that_it_was_told_with(
    path: Path, record: SweepRecord
) -> None:
    """It is worse than all seen, and more are seen later."""
    tell(record, 2, [], "diverged")
    export_study(record, SPACE, path)
    tell(record, 3, [50.0], "finished")
    export_study(record, SPACE, path)
    assert studies(reader(path)) == {"mine": [(COMPLETE, 3.0), (COMPLETE, 6.0), (COMPLETE, 50.0)]}


@pytest.mark.parametrize("torn", [b'{"op_code":4,"study', b"\0\0\0\0", b'{"op_code":4}'])
def test_a_torn_last_line_is_cut_before_anything_is_written(
    path: Path, record: SweepRecord, torn: bytes
) -> None:
    dashboard, before = reader(path), path.read_bytes()
    path.write_bytes(before + torn)  # its writer was killed
    assert studies(dashboard) == {"mine": [(COMPLETE, 3.0)]}
    tell(record, 1, [3.0, 2.0], "finished")
    export_study(record, SPACE, path)
    assert (
        studies(dashboard) == studies(reader(path)) == {"mine": [(COMPLETE, 3.0), (COMPLETE, 2.0)]}
    )
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_nothing_is_cut_while_another_writes(path: Path, record: SweepRecord) -> None:
    """The line of a dashboard is half-written for a moment, and then whole."""
    lock = Path(f"{path}.lock")
    lock.symlink_to(path)
    half, before = b'{"op_code":2,"worker_id":"d","study_id":0,', path.read_bytes()
    path.write_bytes(before + half)
    if os.fork() == 0:  # the dashboard
        time.sleep(0.3)
        with path.open("ab") as file:
            file.write(b'"user_attr":{"note":"whole"}}\n')
        lock.unlink()
        os._exit(0)
    tell(record, 1, [3.0, 2.0], "finished")
    export_study(record, SPACE, path)
    os.wait()
    study = optuna.load_study(study_name="mine", storage=reader(path))
    assert (study.user_attrs, len(study.trials)) == ({"note": "whole"}, 2)


def test_the_lock_of_a_process_that_is_gone_holds_nobody_up(
    path: Path, record: SweepRecord
) -> None:
    Path(f"{path}.lock").symlink_to("/where/it/was/before/study.journal")
    began = time.monotonic()
    export_study(record, SPACE, path)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("damage", ["a line in its middle", "no journal", "a directory"])
def test_what_optuna_cannot_read_is_kept_beside_and_made_anew(
    path: Path, record: SweepRecord, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    content = path.read_bytes()
    match damage:
        case "a line in its middle":
            path.write_bytes(b'{"op_code' + content[20:])
        case "no journal":
            path.write_bytes(b'"text"\n[1]\n')
        case _:
            path.unlink()
            path.mkdir()
    export_study(record, SPACE, path)
    assert studies(reader(path)) == {"mine": [(COMPLETE, 3.0)]}
    assert path.with_name("study.journal.unreadable-1").exists()
    assert "study.journal.unreadable-1" in caplog.text


def test_what_others_add_or_delete_in_the_file_is_left_alone(
    path: Path, record: SweepRecord
) -> None:
    storage = reader(path)
    other = optuna.create_study(storage=storage, study_name="another")
    mine = optuna.load_study(study_name="mine", storage=storage)
    mine.enqueue_trial(POINT)
    tell(record, 1, [3.0, 2.0], "finished")
    export_study(record, SPACE, path)
    assert [t.state for t in mine.trials] == [COMPLETE, TrialState.WAITING, COMPLETE]
    optuna.delete_study(study_name="mine", storage=storage)
    export_study(record, SPACE, path)
    assert studies(storage) == {"another": [], "mine": [(COMPLETE, 3.0), (COMPLETE, 2.0)]}
    assert other.trials == []
