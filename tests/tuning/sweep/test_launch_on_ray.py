"""Whole sweeps on a real Ray cluster: launch, read, export, kill, resume, several workers."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tests.conftest import byte_tokenizer, write_data, write_llm
from trainables.config import PromptConfig
from trainables.llm.place.prompt_text import REQUEST
from trainables.models.features import RESOURCES
from trainables.models.resource_encoder import ResourceEncoder
from tuning.config.sweep import load_sweep

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
RAY = Path(sys.executable).with_name("ray")
RUN_TUNE = Path(__file__).parents[3] / "run_tune.py"
SPACE = "training.learning_rate: {type: float, low: 1.0e-3, high: 1.0e-2, log: true}\n"
TEMPLATE = "{{ messages[0].content }}>"
TRAINING = {
    "batch_size": 8,
    "num_epochs": 3,
    "precision": "fp32",
    "field_accuracy_samples": 4,
}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a tiny LLM, other tools, and a sweep's file; no process is left behind."""
    write_llm(tmp_path / "llm")
    (tmp_path / "llm" / "chat_template.jinja").write_text(TEMPLATE)
    write_data(tmp_path / "data")
    (tmp_path / "space.yaml").write_text(SPACE)
    train = {
        "model": {"llm_model": "llm", "num_attention_heads": 4, "num_soft_tokens": 2},
        "data": {"tool_registry": "data/tools.json", "profiling_data": "data/profiling.csv"},
        "training": TRAINING,
    }
    sweep = {
        "train": train,
        "search_space": "space.yaml",
        "scheduler": {"type": "none"},
        "execution": {"type": "packed", "hosts": 1},  # each takes seconds of both cores to start
        "num_trials": 3,
    }
    (tmp_path / "sweep.yaml").write_text(json.dumps(sweep))
    (tmp_path / "train.yaml").write_text(json.dumps(train))
    ray_dir = tempfile.mkdtemp(prefix="ray_")  # short: socket paths are limited
    monkeypatch.setenv("RAY_TMPDIR", ray_dir)
    yield tmp_path
    stop_ray()
    shutil.rmtree(ray_dir, ignore_errors=True)


def stop_ray() -> None:
    """SIGKILL to every process of this test's clusters, and to no others."""
    mark = os.environ["RAY_TMPDIR"].encode()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if mark in entry.read_bytes():
                os.kill(int(entry.parent.name), signal.SIGKILL)


def start_node(cores: int, *arguments: str) -> None:
    """A node of a cluster that the sweep does not start itself."""
    command = [str(RAY), "start", *arguments, "--num-cpus", str(cores)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


class Command(subprocess.Popen[str]):
    """Writes to files: a pipe that nobody reads would be full some day, and hold it up."""

    def __init__(self, workplace: Path, arguments: Sequence[str]) -> None:
        self._paths = [Path(tempfile.mkstemp(dir=workplace, suffix=s)[1]) for s in (".out", ".err")]
        with self._paths[0].open("w") as out, self._paths[1].open("w") as err:
            super().__init__(
                [sys.executable, str(RUN_TUNE), *arguments],
                cwd=workplace,
                stdout=out,
                stderr=err,
                env={**os.environ, "WANDB_MODE": "offline"},
            )
        self._seen = 0  # lines

    def finish(self, timeout: float) -> tuple[str, str]:
        """What it has said, once it has ended."""
        self.wait(timeout)
        out, err = (path.read_text() for path in self._paths)
        return out, err

    def wait_for_line(self, pattern: str) -> str:
        """The next line that matches."""
        while True:
            ended = self.poll() is not None
            lines = self._paths[0].read_text().splitlines(keepends=True)
            for line in lines[self._seen :]:
                if not line.endswith("\n") and not ended:
                    break
                self._seen += 1
                if re.search(pattern, line):
                    return line
            else:
                if ended:
                    said = self._paths[1].read_text()
                    raise AssertionError(f"no line matched {pattern}: {said}")
            time.sleep(0.05)


def start(workplace: Path, *arguments: str) -> Command:
    return Command(workplace, arguments)


def run(workplace: Path, *arguments: str) -> str:
    process = start(workplace, *arguments)
    out, err = process.finish(timeout=500)
    assert process.returncode == 0, out + err
    return out


def answer(workplace: Path, *arguments: str) -> Any:
    return json.loads(run(workplace, *arguments, "--json"))


def gauge_lines() -> list[str]:
    """What the metrics endpoint of the running cluster's node says of this project."""
    (session,) = Path(os.environ["RAY_TMPDIR"]).rglob("session_latest")
    for _ in range(40):
        services = []
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):  # not written yet
            services = json.loads((session / "prom_metrics_service_discovery.json").read_text())
        for target in (t for service in services for t in service["targets"]):
            try:  # Ray lists the ports of parts that do not listen yet, or never do
                with urllib.request.urlopen(f"http://{target}/metrics", timeout=5) as page:
                    text = page.read().decode()
            except OSError:
                continue
            if lines := [s for s in text.splitlines() if s.startswith("ray_encoder_")]:
                return lines
        time.sleep(1)
    return []


def leave_a_stale_address() -> str:
    """The file that `ray start` leaves when its Ray is killed."""
    file = Path(os.environ["RAY_TMPDIR"]) / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    file.write_text("127.0.0.1:1")
    return f"      {file} names a Ray at `127.0.0.1:1`, but no Ray answers"


def processes_of(title: str) -> list[int]:
    """Processes of this test's cluster whose title says what they are."""
    mark = f"RAY_TMPDIR={os.environ['RAY_TMPDIR']}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if title.encode() in (entry / "cmdline").read_bytes() and (
                mark in (entry / "environ").read_bytes()
            ):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@contextlib.contextmanager
def hosts_paused(hosts: Sequence[int] = ()) -> Iterator[None]:
    """Nothing is trained in this block, by these hosts or by all."""
    hosts = hosts or processes_of("RayTrainWorker")
    for host in hosts:
        os.kill(host, signal.SIGSTOP)
    try:
        yield
    finally:
        for host in hosts:
            os.kill(host, signal.SIGCONT)


def test_a_sweep_from_launch_to_export(workplace: Path) -> None:
    stale = leave_a_stale_address()
    process = start(
        workplace, "launch", "--config", "sweep.yaml", "--name", "one", "--log_wandb",
        "--num_epochs", "30", "--set", "max_concurrent=1",  # Ray's gauges come some seconds late
    )  # fmt: skip
    process.wait_for_line(re.escape(stale))
    dashboard = process.wait_for_line("dashboard http")
    assert "ray get-auth-token`" in dashboard
    process.wait_for_line(r"trial_0000 epoch 2/30")
    with hosts_paused():  # however fast they are, the sweep is not over before Ray shows its gauges
        gauges = gauge_lines()
        assert answer(workplace, "status", "one")["state"] == "running"
    wanted = [g for g in gauges if g.startswith("ray_encoder_gate_alpha")]
    assert any('sweep="one"' in g and 'trial="trial_0000"' in g for g in wanted), gauges
    assert any(g.startswith("ray_encoder_finding") and 'finding="gate_stuck"' in g for g in gauges)
    out, err = process.finish(timeout=400)
    assert process.returncode == 0, out + err
    assert "Traceback" not in out + err
    status = answer(workplace, "status", "one")
    assert (status["state"], status["trials"]) == ("finished", {"finished": 3})
    trials = answer(workplace, "trials", "one")
    assert [[row["epoch"] for row in t["history"]] for t in trials] == [list(range(1, 31))] * 3
    best = answer(workplace, "best", "one")
    assert best["value"] == min(row["val_loss"] for t in trials for row in t["history"])
    check_one_best(workplace / "sweeps" / "one", best, trials)
    run(workplace, "export", "one", "--out", "exported")
    figures = dict(zip(RESOURCES, ("small", 1, 2, 20, 4, 10.0), strict=True))
    exported = ResourceEncoder.from_pretrained(workplace / "exported")
    settled = load_sweep(workplace / "sweeps" / "one" / "sweep.yaml").train.model
    before, after = (byte_tokenizer()(text)["input_ids"] for text in (REQUEST, ">"))
    assert settled.prompt == PromptConfig(before=before, after=after), "the template is not asked"
    assert exported.prompt == (tuple(before), tuple(after))
    checkpoint = ResourceEncoder.from_pretrained(best["checkpoint"])
    assert torch.equal(exported.encode("r", figures), checkpoint.encode("r", figures))
    assert best["trial_id"] in (workplace / "exported" / "README.md").read_text()
    assert len(list((workplace / "sweeps" / "one" / "wandb_runs").rglob("run-*.wandb"))) == 3
    assert len(list((workplace / "hub" / "tool_embeddings").iterdir())) == 1
    assert not (workplace / "sweeps" / "one" / "train_runs").exists()


def check_one_best(directory: Path, best: dict[str, Any], trials: list[dict[str, Any]]) -> None:
    """The same trial, epoch and value everywhere; its weights are those of that epoch."""
    from tuning.sweep import results

    named = {key: best[key] for key in ("trial_id", "epoch", "value")}
    (listed,) = (t for t in trials if t["trial_id"] == best["trial_id"])
    assert {key: listed[key] for key in named} == named
    meta = json.loads((Path(best["checkpoint"]) / "meta.json").read_text())
    assert (meta["epoch"], meta["metrics"]["val_loss"]) == (best["epoch"], best["value"])
    typed = Path(os.path.relpath(directory))  # as a person gives it
    result = results(typed).get_best_result()
    assert Path(result.path).name == best["trial_id"]
    assert result.metrics is not None
    assert (result.metrics["epoch"], result.metrics["val_loss"]) == (best["epoch"], best["value"])
    assert result.checkpoint is not None
    assert Path(result.checkpoint.path).resolve() == Path(best["checkpoint"]).resolve()
    journal = JournalStorage(JournalFileBackend(str(directory / "study.journal")))
    study = optuna.load_study(study_name=directory.name, storage=journal)
    winner = {"trial": best["trial_id"], "epoch": best["epoch"], "val_loss": best["value"]}
    assert study.user_attrs["winner"] == winner
    assert (study.best_trial.user_attrs["trial"], study.best_value) == (
        best["trial_id"],
        best["value"],
    )
    card = (directory / "best" / "README.md").read_text()
    assert f"its epoch {best['epoch']} of 30" in card
    assert (directory / "best" / "encoder.safetensors").read_bytes() == (
        Path(best["checkpoint"]) / "encoder.safetensors"
    ).read_bytes()


EXPLODING = r"""
import torch
from transformers import Qwen2ForCausalLM

class ExplodingForCausalLM(Qwen2ForCausalLM):
    def __init__(self, config):
        super().__init__(config)
        self.model.register_forward_hook(self.explode, with_kwargs=True)

    def explode(self, module, args, kwargs, output):
        soft = kwargs.get("inputs_embeds")
        size = 0.0 if soft is None else float(soft.norm(dim=-1).max())
        if size > 10.0 and len(soft) == 4:
            raise RuntimeError("the device is\non fire: détecteur")
        if size > 10.0:
            output.last_hidden_state = output.last_hidden_state * float("nan")
        return output
"""


def make_exploding(llm: Path) -> None:
    """A model with code of its own: NaN for a large soft token, an exception in batches of four."""
    (llm / "exploding.py").write_text(EXPLODING, encoding="utf-8")
    config = json.loads((llm / "config.json").read_text())
    config["architectures"] = ["ExplodingForCausalLM"]
    config["auto_map"] = {"AutoModelForCausalLM": "exploding.ExplodingForCausalLM"}
    (llm / "config.json").write_text(json.dumps(config))


def test_a_trial_that_diverges_or_crashes_ends_alone(workplace: Path) -> None:
    make_exploding(workplace / "llm")
    (workplace / "space.yaml").write_text(
        "training.learning_rate: {type: choice, choices: [0.001, 0.3, 1.0]}\n"
        "training.batch_size: {type: choice, choices: [4, 8]}\n"
    )
    run(
        workplace, "launch", "--config", "sweep.yaml", "--name", "wild", "--num_trials", "6",
        "--set", "train.model.trust_remote_code=true", "--set", "search={type: random, seed: 1}",
    )  # fmt: skip
    trials = answer(workplace, "trials", "wild")
    assert all(math.isfinite(t["metrics"].get("val_loss", 0)) for t in trials)
    by_rate: dict[float, set[str]] = defaultdict(set)
    for trial in trials:
        by_rate[trial["params"]["training.learning_rate"]].add(trial["status"])
    assert by_rate[0.001] == {"finished"}
    assert "diverged" in by_rate[0.3] | by_rate[1.0]
    reasons = {t["message"] for t in trials if t["status"] == "failed"}
    assert reasons == {"RuntimeError: the device is on fire: détecteur"}
    messages = [t["message"] for t in trials if t["status"] == "diverged"]
    assert all(re.search(r"^(loss|val_loss|gradient norm) is (nan|inf)", m) for m in messages)


def losses(out: str) -> list[float]:
    return [float(x) for x in re.findall(r"Train Loss: ([\d.]+)", out)]


def test_two_workers_give_the_losses_of_one(workplace: Path) -> None:
    arguments = ("train", "--config", "train.yaml", "--output_dir")
    one = losses(run(workplace, *arguments, "one"))
    two = losses(run(workplace, *arguments, "two", "--workers", "2"))
    assert len(one) == 3
    assert two == pytest.approx(one, abs=1e-4)
    encoder = ResourceEncoder.from_pretrained(workplace / "two" / "checkpoint_000003")
    assert encoder.get_gate_value() != 0
