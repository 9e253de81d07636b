"""Nothing a sweep's files say leads out of its directory; nothing of a person's home is in them."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.damage import resume
from tests.faults.specimen import make_specimen
from tests.tuning.history.test_sweeps import EVENTS, trial, write_sweep
from trainables.config import load_config
from trainables.errors import ConfigError, LLMError, UserError
from trainables.files import without_home
from trainables.llm.frozen import FrozenLLM
from tuning.cli import main
from tuning.config.space import with_params
from tuning.config.sweep import ResolvedSweep, load_sweep
from tuning.history.event_log import EventLog
from tuning.history.manifest import read_manifest, write_manifest
from tuning.history.record import SweepRecord
from tuning.history.sweeps import read_sweep
from tuning.monitors.wandb import run_config
from tuning.sweep.directory import check_inputs, create_directory
from tuning.sweep.history_writer import SweepCallback

KEY = "0123456789abcdef0123456789abcdef01234567"
ESCAPES = ["../../outside/x", "/outside/x", "tune/../../../outside/x", "tune/trial_0000/.."]


@pytest.mark.parametrize("path", ESCAPES)
def test_a_checkpoint_elsewhere_is_neither_read_nor_deleted(path: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside" / "x" / "checkpoint_000001"
    outside.mkdir(parents=True)
    (outside / "meta.json").write_text("{}")
    path = path.replace("/outside", str(tmp_path / "outside")) if path[0] == "/" else path
    told = {"event": "checkpoint", "trial_id": "trial_0000", "path": path, "time": 2}
    events = [*trial("trial_0000", [9.0], "running")[:-1], told]
    directory = write_sweep(tmp_path / "sweeps", events=events)
    record = read_sweep(directory)
    assert record.trials["trial_0000"].checkpoint is None
    callback = SweepCallback(record, EventLog(directory), directory, keep_best=1)
    for event in trial("trial_0001", [1.0], "running"):
        callback._emit(event)
    for name in ("trial_0001", "trial_0000"):
        callback._end(name, "finished", "")
    callback.close()
    assert main(["export", "mine", "--storage", str(tmp_path / "sweeps"), "--out", "x"]) == 2
    assert (outside / "meta.json").is_file()


BAD_MANIFESTS: list[dict[str, Any]] = [
    {"inputs": {"../../outside": "0"}},
    {"inputs": {"/etc/passwd": "0"}},
    {"inputs": {"..": "0"}},
    {"name": "x; rm -rf ~"},
    {"name": "../x"},
    {"name": "\x1b[2J"},
    {"mode": "sideways"},
]


@pytest.mark.parametrize("content", BAD_MANIFESTS, ids=str)
def test_names_in_a_manifest_stay_inside(content: dict[str, Any], tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    write_manifest(directory, {**read_manifest(directory), **content})
    with pytest.raises(UserError, match="cannot be read"):
        check_inputs(directory)


@pytest.mark.parametrize(
    "key", ["model.trust_remote_code", "model.llm_model", "data.tool_registry", "x", "training.a.b"]
)
def test_a_history_cannot_set_what_cannot_be_searched(key: str) -> None:
    with pytest.raises(ConfigError, match="cannot be searched"):
        with_params(load_sweep(None).train, {key: True}, "trial_0000")


def test_code_of_a_model_is_not_run_unless_asked_for() -> None:
    assert load_sweep(None).train.model.trust_remote_code is False


class Hostile:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("it ran",)


def test_pickled_weights_are_not_run(
    llm_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "config.json").write_bytes((llm_dir / "config.json").read_bytes())
    torch.save(Hostile(), tmp_path / "llm" / "pytorch_model.bin")
    config = load_config(Path(__file__).parents[2] / "trainables/configs/pretrain_encoder.yaml")
    model = config.model.model_copy(update={"llm_model": str(tmp_path / "llm")})
    with pytest.raises((LLMError, pickle.UnpicklingError)):
        FrozenLLM.load(model, torch.device("cpu"), torch.float32)
    assert not Path("it ran").exists()


@pytest.mark.parametrize("text", ["!!python/object/apply:os.mkdir [it_ran]", "!!python/name:os.x"])
def test_yaml_makes_no_objects(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sweep.yaml").write_text(f"num_trials: {text}")
    assert main(["validate", "--config", "sweep.yaml"]) == 2
    assert main(["validate", "--set", f"num_trials={text}"]) == 2
    assert not Path("it_ran").exists()


def test_home_is_written_as_a_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/jo")
    texts = ["/home/jo", "/home/jo/x", "at /home/jo/x:", "/home/joe/x", "/mnt/home/jo/x", "x"]
    expected = ["~", "~/x", "at ~/x:", "/home/joe/x", "/mnt/home/jo/x", "x"]
    assert without_home(texts) == expected
    assert without_home({"a": {"b": "/home/jo/x"}, "c": 3}) == {"a": {"b": "~/x"}, "c": 3}
    assert run_config({"p": "/home/jo/x"}, 1, 2, {})["p"] == "~/x"
    monkeypatch.setenv("HOME", "/")
    assert without_home("/x") == "/x"


def test_neither_home_nor_keys_are_in_a_sweeps_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole directory, made with everything below a person's home and keys at hand."""
    home = tmp_path / "home" / "jo"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    for name in ("WANDB_API_KEY", "HF_TOKEN", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.chdir(tmp_path)
    directory = make_specimen(home)
    record = read_sweep(directory)
    callback = SweepCallback(record, EventLog(directory), directory)
    callback._end("trial_0002", "failed", f"OSError: {home}/llm is gone")
    callback.sweep_event("interrupted", f"Ray failed: {home}/ray")
    callback.close()
    assert main(["export", str(directory), "--out", str(tmp_path / "exported")]) == 0
    files = [p for d in (directory, tmp_path / "exported") for p in d.rglob("*") if p.is_file()]
    assert len(files) > 40
    for path in files:
        content = path.read_bytes()
        assert str(home).encode() not in content, path
        assert KEY.encode() not in content, path
    assert load_sweep(directory / "sweep.yaml").train.model.llm_model == str(home / "llm")


def test_a_sweep_that_was_moved_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = make_specimen(tmp_path / "here")
    there = tmp_path / "there" / "renamed"
    there.parent.mkdir()
    before.rename(there)
    (tmp_path / "here" / "data").rename(tmp_path / "gone")
    config = load_sweep(there / "sweep.yaml")
    assert config.train.data.tool_registry == str(there / "inputs" / "tools.json")
    assert [(number, epoch) for number, _, epoch in resume(there)] == [(2, 2)]
    assert main(["best", "renamed", "--storage", "there"]) == 0
    assert main(["export", "there/renamed", "--out", "out"]) == 0
    assert Path("out/encoder.safetensors").is_file()


def create(storage: Path, start: Any, answers: Any) -> None:
    sweep = ResolvedSweep("same", load_sweep(None, [f"storage={storage}"]))
    start.wait(30)
    try:
        create_directory(sweep)
        answers.put("made")
    except UserError as error:
        answers.put(str(error))


def test_of_launches_with_one_name_all_but_one_are_refused(tmp_path: Path) -> None:
    forked, count = multiprocessing.get_context("fork"), 6
    start, answers = forked.Barrier(count), forked.SimpleQueue()
    racers = [forked.Process(target=create, args=(tmp_path, start, answers)) for _ in range(count)]
    for racer in racers:
        racer.start()
    refusal = f"the name `same` is already used: {tmp_path / 'same'}"
    assert sorted(answers.get() for _ in racers) == ["made", *[refusal] * (count - 1)]
    for racer in racers:
        racer.join()
        racer.close()
    assert [p.name for p in tmp_path.iterdir()] == ["same"], "nothing half-made"
    check_inputs(tmp_path / "same")


WRITE = """
import sys
from pathlib import Path
from tests.tuning.history.test_sweeps import epoch, trial
from tuning.history.event_log import EventLog
from tuning.history.lock import SweepLock
lock = SweepLock(Path(sys.argv[1]))
lock.acquire()
log = EventLog(Path(sys.argv[1]))
for number in range(4, 200):
    for event in trial(f"trial_{number:04d}", [3.0, 2.0, 1.0], "finished"):
        log.write(event)
"""


def test_reading_while_a_sweep_writes_sees_whole_trials(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = write_sweep(tmp_path, events=EVENTS[:5])
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    writer = subprocess.Popen([sys.executable, "-c", WRITE, str(directory)], env=env)
    seen = []
    while writer.poll() is None or not seen:
        record: SweepRecord = read_sweep(directory)
        seen.append(len(record.trials))
        for found in record.trials.values():
            assert [row["epoch"] for row in found.history] == list(range(1, found.epoch + 1))
    assert seen == sorted(seen)
    assert len(read_sweep(directory).trials) == 197
    assert json.dumps([record.getMessage() for record in caplog.records]) == "[]"
