"""Packed execution on a real Ray cluster: schedulers, lost hosts, equality with dedicated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.tuning.sweep.test_launch_on_ray import (
    RUN_TUNE,
    answer,
    hosts_paused,
    processes_of,
    run,
    start,
    stop_ray,
    workplace,
)

__all__ = ["workplace"]
pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
LAUNCH = ("launch", "--config", "sweep.yaml", "--name")


def events(workplace: Path, name: str, kind: str) -> list[dict[str, Any]]:
    lines = (workplace / "sweeps" / name / "trials.jsonl").read_text().splitlines()
    return [e for e in map(json.loads, lines) if e["event"] == kind]


LONGER = ("--num_trials", "6", "--num_epochs", "12", "--set", "execution.hosts=2")


def test_what_is_killed_goes_on_and_comes_out_as_if_nothing_had_been(workplace: Path) -> None:
    """One sweep left alone; one of which a host is killed, and later every process."""
    run(workplace, *LAUNCH, "calm", *LONGER)
    calm = answer(workplace, "trials", "calm")
    process = start(workplace, *LAUNCH, "hit", *LONGER)
    process.wait_for_line(r"trial_0000 epoch 4/")
    hosts = processes_of("RayTrainWorker")
    assert len(hosts) == 2
    os.kill(hosts[0], signal.SIGSEGV)
    process.wait_for_line(rf"^a host was lost: .*\(pid {hosts[0]} on .*\) was killed by SIGSEGV")
    process.wait_for_line(r"trial_000[45] epoch 3/")
    process.kill()
    out, err = process.finish(timeout=60)
    stop_ray()
    assert out.count("a host was lost: ") == 1, out + err
    told = [(e["trial_id"], e["metrics"]["epoch"]) for e in events(workplace, "hit", "epoch")]
    assert sorted(told) == sorted(set(told)), "no epoch is told twice"
    started = [e["trial_id"] for e in events(workplace, "hit", "start")]
    assert len(started) == len(set(started)), "no trial noticed"
    assert answer(workplace, "status", "hit")["state"] == "interrupted"
    before = {t["trial_id"]: t for t in answer(workplace, "trials", "hit")}
    over = [trial for trial in before.values() if trial["status"] == "finished"]
    assert over
    run(workplace, "resume", "hit")
    hit = answer(workplace, "trials", "hit")
    assert [t["status"] for t in hit] == ["finished"] * 6
    assert [[row["epoch"] for row in t["history"]] for t in hit] == [list(range(1, 13))] * 6
    for trial in over:
        assert trial in hit, "a finished trial must not run again"
    for key in ("params", "history"):
        assert [t[key] for t in hit] == [t[key] for t in calm]


def test_a_bad_trial_of_a_population_takes_over_a_good_ones_weights(workplace: Path) -> None:
    (workplace / "space.yaml").write_text(
        "training.learning_rate: {type: float, low: 1.0e-6, high: 1.0e-2, log: true}\n"
        "model.dropout: {type: float, low: 0.0, high: 0.2}\n"
    )
    process = start(
        workplace, *LAUNCH, "pbt", "--num_trials", "6", "--num_epochs", "24",
        "--set", "search={type: random, seed: 3}", "--set", "execution.hosts=2",
        "--set", "scheduler={type: pbt, interval_epochs: 3}",
    )  # fmt: skip
    process.wait_for_line(r"epoch 1/")
    for host in processes_of("RayTrainWorker"):  # some trials fall behind, so that others are ahead
        with hosts_paused([host]):
            time.sleep(3)
    out, err = process.finish(timeout=300)
    assert process.returncode == 0, out + err
    trials = {t["trial_id"]: t for t in answer(workplace, "trials", "pbt")}
    assert {t["status"] for t in trials.values()} == {"finished"}
    assert all([r["epoch"] for r in t["history"]] == list(range(1, 25)) for t in trials.values())
    changed = events(workplace, "pbt", "params")
    assert changed, "nobody took over anything"
    gains = []
    for event in changed:
        history = [
            e["metrics"]["val_loss"]
            for e in events(workplace, "pbt", "epoch")
            if e["trial_id"] == event["trial_id"]
        ]
        steps = [before - after for before, after in pairwise(history)]
        gains.append(max(steps) / (sum(map(abs, steps)) / len(steps)))
    assert max(gains) > 3, "one epoch that gains more than training does"
    for event in changed:
        for key, low, high in (("training.learning_rate", 1e-6, 1e-2), ("model.dropout", 0, 0.2)):
            assert low <= event["params"][key] <= high


def test_hyperband_pauses_trials_and_lets_them_go_on(workplace: Path) -> None:
    run(
        workplace, *LAUNCH, "bands", "--num_trials", "8", "--num_epochs", "9",
        "--set", "scheduler={type: hyperband}",
    )  # fmt: skip
    trials = answer(workplace, "trials", "bands")
    assert len(trials) == 8
    assert {t["status"] for t in trials} == {"finished", "stopped early"}
    for trial in trials:
        epochs = [row["epoch"] for row in trial["history"]]
        assert epochs == list(range(1, len(epochs) + 1))
    starts = [e["trial_id"] for e in events(workplace, "bands", "start")]
    assert len(starts) > len(set(starts)), "a paused trial starts again"


def test_every_searched_parameter_may_differ_between_lanes_that_end_early(workplace: Path) -> None:
    """More trials than places, and half of them stopped: what is left over would be waited for."""
    space = {
        "training.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
        "training.batch_size": {"type": "int", "low": 4, "high": 16, "step": 4},
        "training.weight_decay": {"type": "float", "low": 0, "high": 0.1},
        "training.gate_lr_multiplier": {"type": "float", "low": 1, "high": 20},
        "training.max_grad_norm": {"type": "choice", "choices": [0.5, 1.0, None]},
        "training.scheduler": {"type": "choice", "choices": ["cosine", "linear", "constant"]},
        "training.seed": {"type": "int", "low": 0, "high": 99},
        "model.dropout": {"type": "float", "low": 0, "high": 0.4},
        "model.num_attention_heads": {"type": "choice", "choices": [1, 2, 4, 8]},
        "model.d_resource": {"type": "int", "low": 16, "high": 48},
        "model.normalize": {"type": "choice", "choices": [True, False]},
        "model.resource_tokens": {"type": "choice", "choices": ["features", "summary"]},
    }
    (workplace / "space.yaml").write_text(json.dumps(space))
    run(
        workplace, *LAUNCH, "wide", "--num_trials", "8", "--num_epochs", "8",
        "--set", "execution.lanes=4",
        "--set", "scheduler={type: asha, grace_epochs: 1, reduction_factor: 2}",
    )  # fmt: skip
    trials = answer(workplace, "trials", "wide")
    assert len({json.dumps(t["params"], sort_keys=True) for t in trials}) == 8
    lengths = {"finished": [], "stopped early": []}
    for trial in trials:
        lengths[trial["status"]].append(len(trial["history"]))
    assert len(lengths["stopped early"]) >= 2
    assert max(lengths["stopped early"]) < 8
    assert set(lengths["finished"]) == {8}


TWICE = """
import logging, os, signal, warnings
from pathlib import Path
from tuning.config.sweep import ResolvedSweep, load_sweep
from tuning.sweep.launch import launch
from tuning.terminal import say_on_stdout

def state():
    loggers = [logging.getLogger(name) for name in ("ray", "optuna", "py.warnings", "transformers")]
    numbers = (signal.SIGINT, signal.SIGTERM)
    return [
        dict(os.environ),
        [(list(logger.handlers), logger.propagate) for logger in loggers],
        (list(warnings.filters), warnings.showwarning),
        [signal.getsignal(number) for number in numbers],
    ]

before = state()
for name in ("packed", "dedicated"):
    sweep = load_sweep(Path("sweep.yaml"), [f"execution.type={name}"])
    launch(ResolvedSweep(name, sweep), say_on_stdout())
    assert state() == before, (before, state())
"""


def test_a_program_launches_in_both_executions_and_gets_the_same(workplace: Path) -> None:
    """Stuck gates end alike, the shared inputs are found, and the program is as it was before."""
    rates = "{type: choice, choices: [1.0e-6, 5.0e-3]}"
    (workplace / "space.yaml").write_text(f"training.learning_rate: {rates}\n")
    sweep = json.loads((workplace / "sweep.yaml").read_text())
    sweep["train"]["training"]["stop_stuck_gates"] = True
    sweep |= {"search": {"type": "random", "seed": 5}, "num_trials": 4}
    (workplace / "sweep.yaml").write_text(json.dumps(sweep))
    done = subprocess.run(
        [sys.executable, "-c", TWICE],
        cwd=workplace,
        env={**os.environ, "PYTHONPATH": str(RUN_TUNE.parent)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    out = done.stdout
    assert done.returncode == 0, out + done.stderr
    prepared, found = (
        f"48 rows: {how}" for how in ("prepared by the first host", "from the cache")
    )
    assert out.index(prepared) < out.index(found)
    packed, dedicated = (answer(workplace, "trials", name) for name in ("packed", "dedicated"))
    for trial in (*packed, *dedicated):  # how long something took is nothing of the run's own
        trial["findings"] = [f for f in trial["findings"] if f["id"] != "slow_initialisation"]
    for key in ("params", "history", "status", "message", "findings"):
        assert [t[key] for t in packed] == [t[key] for t in dedicated]
    by_rate = {t["params"]["training.learning_rate"]: t for t in packed}
    assert (by_rate[5e-3]["status"], by_rate[5e-3]["message"]) == ("finished", "")
    stuck = by_rate[1e-6]
    assert (stuck["status"], len(stuck["history"])) == ("stopped early", 1)
    assert stuck["findings"] == [{"epoch": 1, "id": "gate_stuck", "text": stuck["message"]}]
    assert f"{stuck['trial_id']} gate_stuck: the gate is at" in out
