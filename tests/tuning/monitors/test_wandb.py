"""W&B's own variables make no two runs one, and what goes wrong in its process is said."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path
from typing import Any

import pytest
import wandb

from tests.tuning.monitors.test_monitors import (
    END,
    START,
    TRIAL,
    epoch_event,
    offline_runs,
    play,
)
from trainables.training.reports import EpochReport
from tuning.monitors.wandb import WandbMonitor, WandbProcess
from tuning.monitors.wandb_environment import OF_ONE_RUN, environment_of_runs
from tuning.monitors.wandb_process import serve

BEST_LOSS = "summary.best_val_loss"
OF_A_RUN = {
    "WANDB_RUN_ID": "abc",
    "WANDB_RESUME": "must",
    "WANDB_RESUME_FROM": "abc?_step=1",
    "WANDB_FORK_FROM": "abc?_step=1",
    "WANDB_NAME": "other",
    "WANDB_RUN_GROUP": "other",
    "WANDB_JOB_TYPE": "other",
    "WANDB_SWEEP_ID": "other",
    "WANDB_SWEEP_PARAM_PATH": "nowhere.yaml",
    "WANDB_CONFIG_PATHS": "nowhere.yaml",
    "WANDB_LAUNCH": "true",
    "WANDB_LAUNCH_CONFIG_PATH": "nowhere.json",
    "WANDB_SERVICE": "3-1-unix-/nowhere",
    "WANDB__SKIP_TRANSACTION_LOG": "true",
    "WANDB_X_FILES_DIR": "/nowhere",
}
WHERE_AND_HOW = {
    "WANDB_PROJECT": "p",
    "WANDB_ENTITY": "e",
    "WANDB_MODE": "offline",
    "WANDB_DIR": "/d",
    "WANDB_API_KEY": "k",
    "WANDB_BASE_URL": "http://127.0.0.1:9",
    "WANDB_HTTP_TIMEOUT": "3",
    "WANDB_TAGS": "a,b",
    "WANDB_NOTES": "n",
    "WANDB__STATS_PID": "1",
    "HOME": "/h",
}


def test_what_belongs_to_one_run_is_put_aside() -> None:
    kept, aside = environment_of_runs(OF_A_RUN | WHERE_AND_HOW)
    assert kept == WHERE_AND_HOW
    assert aside == sorted(OF_A_RUN)


def spellings(setting: str) -> list[str]:
    """The variables from which wandb fills a setting in."""
    found = [f"WANDB_{setting.upper()}"]
    return [*found, f"WANDB_{setting[1:].upper()}"] if setting.startswith("x_") else found


def test_no_setting_of_wandb_that_tells_a_run_from_others_is_forgotten() -> None:
    telling = r"^(run_|resum|fork|sweep|launch|job_|x_files|x_sync|x_primary|reinit|service)"
    shared = {"run_notes", "run_tags"}  # the same for all is what they are for
    settings = [s for s in wandb.Settings.model_fields if re.search(telling, s) and s not in shared]
    assert len(settings) > 12
    for variable in (v for setting in settings for v in spellings(setting)):
        assert environment_of_runs({variable: "1"})[1] == [variable]
    with_fields = {s for s in OF_ONE_RUN if s in wandb.Settings.model_fields}
    assert len(with_fields) > 20, "wandb has other names now"


@pytest.mark.timeout(120)
def test_trials_are_runs_of_their_own_whatever_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in OF_A_RUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_MODE", "offline")
    said: list[str] = []
    events: list[dict[str, Any]] = []
    reports: dict[int, EpochReport] = {}
    for name in ("trial_0000", "trial_0001"):  # the second begins while the first goes on
        events += [{**TRIAL, "trial_id": name}, {**START, "trial_id": name}]
    for name in ("trial_0000", "trial_0001"):
        event, report = epoch_event(1)
        reports[len(events)] = report
        events += [{**event, "trial_id": name}, {**END, "trial_id": name}]
    play(WandbMonitor(tmp_path, "project", "mine", {}, 7, 128, said.append), events, reports)
    runs = offline_runs(tmp_path)
    assert [len(rows) for _, rows in runs] == [5, 5]
    assert [config["_group"] for config, _ in runs] == ["mine", "mine"]
    for config, _ in runs:
        summary = {k: v for k, v in config.items() if k in (BEST_LOSS, "summary.best_epoch")}
        assert summary == {BEST_LOSS: 0.5, "summary.best_epoch": 1}
        assert config["summary.status"] == "finished"
    assert len(said) == 1
    assert all(name in said[0] for name in OF_A_RUN)


def wait_for(said: list[str], number: int) -> None:
    until = time.monotonic() + 20
    while len(said) < number and time.monotonic() < until:
        time.sleep(0.01)
    assert len(said) >= number, said


def test_a_killed_wandb_process_is_told_at_once_and_at_the_end(tmp_path: Path) -> None:
    said: list[str] = []
    process = WandbProcess(tmp_path, "project", said.append)
    process._process.kill()
    wait_for(said, 1)
    assert "its process was killed by SIGKILL" in said[0]
    assert "training goes on" in said[0]
    assert "wandb_process.log" in said[0]
    for _ in range(3):  # nobody is held up, and nothing is said again
        process.start("t", "mine", {})
        process.log("t", epoch_event(1)[1])
    process.finish("t", "finished")
    process.close()
    assert len(said) == 2
    assert said[1].startswith("W&B is incomplete: its process was killed by SIGKILL")


@pytest.mark.timeout(120)
def test_what_is_wrong_with_one_run_is_told_and_the_others_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    said: list[str] = []
    process = WandbProcess(tmp_path, "project", said.append)
    for name in ("bad", "good"):
        process.start(name, "mine", {}, past=[])
    report = epoch_event(1)[1]
    process.log("bad", EpochReport(report.metrics, {"loss": [1.0], "learning_rate": []}))
    for name in ("bad", "good"):
        process.log(name, report)
        process.finish(name, "finished")
    process.close()
    assert said[0].startswith("W&B: the run bad is left out: ValueError: zip() argument 2 is short")
    assert said[1].startswith("W&B is incomplete: the run bad is left out")
    assert len(said) == 2
    assert sorted(len(rows) for _, rows in offline_runs(tmp_path)) == [0, 5]


def test_a_process_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "no address")
    said: list[str] = []
    process = WandbProcess(tmp_path, "project", said.append)
    wait_for(said, 1)
    assert said[0].startswith("W&B: it cannot start: ValidationError")
    process.close()
    assert said[-1].startswith("W&B is incomplete: it cannot start")
    assert "(and 1 more)" in said[-1]


class Refusing:
    """Runs of which some cannot be finished."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.left_out: list[str] = []

    def obey(self, command: dict[str, Any]) -> None:
        if command["run"] == "bad":
            raise OSError(28, "No space left\non device")
        self.done.append(command["run"])

    def leave_out(self, name: str) -> None:
        self.left_out.append(name)

    def open_runs(self) -> list[str]:
        return ["bad", "good"]


def test_runs_that_are_open_at_the_end_are_finished_one_by_one() -> None:
    runs: Any = Refusing()
    troubles = io.StringIO()
    serve(runs, io.StringIO(), troubles)
    assert runs.done == ["good"]
    assert runs.left_out == ["bad"]
    expected = "the run bad is left out: OSError: [Errno 28] No space left on device\n"
    assert troubles.getvalue() == expected
