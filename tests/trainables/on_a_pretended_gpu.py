"""Everything that a GPU's process does, on a GPU that is not there: ``python -m`` this, for a JSON.

In a process of its own, because pretending lasts. The same runs are made on the CPU first.
"""

from __future__ import annotations

import ast
import contextlib
import json
import math
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import CodeType, FrameType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from ray.train import ScalingConfig

from tests.conftest import write_data, write_llm
from tests.pretend_gpu import CUDA, WAITS, pretended
from trainables.config import PretrainConfig, parse_config
from trainables.errors import DivergedError
from trainables.inputs.checked_data import read_data
from trainables.inputs.preparing import prepare_inputs
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.frozen import FrozenLLM, free_device_memory, load_llm, select_device
from trainables.packing.lanes import Lanes, serve
from trainables.packing.memory import Footprint
from trainables.packing.protocol import Assignment, Board, Command, HostFacts
from trainables.training.batches import DeviceInputs
from trainables.training.reports import Report, from_plain
from trainables.training.run import Run
from trainables.training.startup_time import expected_initialisation
from trainables.training.step import train_step
from trainables.workers import dedicated, host

ROOT = Path(__file__).parents[2]
PLENTY = 2.0**40
LANES = {
    "one": {"training__seed": 1, "training__batch_size": 4, "model__dropout": 0.3},
    "two": {
        "training__seed": 2,
        "model__num_soft_tokens": 2,
        "training__field_accuracy_samples": 2,
    },
    "three": {"training__seed": 3, "model__resource_tokens": "summary"},
}


class Scene:
    """A tiny LLM, its data, and the runs to be made."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._llm, self._data = write_llm(directory / "llm"), write_data(directory / "data")

    def config(self, **values: Any) -> PretrainConfig:
        mapping: dict[str, dict[str, Any]] = {
            "model": {
                "llm_model": str(self._llm),
                "cache_dir": str(self.directory / "hub"),
                "num_attention_heads": 4,
                "num_soft_tokens": 1,
                "prompt": {"before": "ab", "after": "c"},
            },
            "data": {
                "tool_registry": str(self._data / "tools.json"),
                "profiling_data": str(self._data / "profiling.csv"),
            },
            "training": {
                "batch_size": 8,
                "num_epochs": 2,
                "precision": "fp32",
                "field_accuracy_samples": 0,
            },
        }
        for dotted, value in values.items():
            section, key = dotted.split("__")
            mapping[section][key] = value
        return parse_config(mapping, source="scene", base=self.directory)

    def assignments(self, place: str) -> dict[str, Assignment]:
        found = {}
        for key, values in LANES.items():
            directory = self.directory / place / key
            directory.mkdir(parents=True)
            found[key] = Assignment(self.config(**values), str(directory))
        return found


class Line:
    """Who hands out the runs: all at once, one epoch after the other, then the end."""

    def __init__(self, assignments: dict[str, Assignment]) -> None:
        self.reports: dict[str, list[Report]] = {key: [] for key in assignments}
        self.facts: HostFacts | None = None
        self.error: Exception | None = None
        self._commands = [Command("assign", key, run) for key, run in assignments.items()]
        self._inputs: SharedInputs | None = None

    def receive(self, wait: bool) -> list[Command]:
        commands, self._commands = self._commands, []
        if not commands and wait:
            commands = [Command("close")]
        return commands

    def send(self, key: str, report: Report, seconds_in_steps: float) -> None:
        self.reports[key].append(report)
        if not report.last:
            self._commands += [Command("save"), Command("go_on", key)]

    def saved(self) -> None:
        """Nothing waits for it."""

    def pace(self, seconds_per_row: float) -> None:
        """Nobody asks."""

    def join(self, facts: HostFacts) -> None:
        self.facts = facts

    def cannot_start(self, error: Exception) -> None:
        self.error = error

    def ask(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """As the board of a fleet whose first host prepares the inputs."""
        if method is Board.share:
            (self._inputs,) = arguments
            return None
        return self._inputs and [self._inputs]

    def losses(self) -> dict[str, list[float]]:
        return {
            key: [
                loss for report in reports for loss in getattr(report, "series", {}).get("loss", ())
            ]
            for key, reports in self.reports.items()
        }

    def figures(self) -> dict[str, list[Any]]:
        """What the evaluation has found after each epoch, the decoding's at the end."""
        names = ("val_loss", "semantic_retention", "field_accuracy")
        return {
            key: [[report.metrics.get(name) for name in names] for report in reports]
            for key, reports in self.reports.items()
        }


def on_cpu(scene: Scene) -> dict[str, Any]:
    """What it must come to."""
    llm = FrozenLLM.load(scene.config().model, torch.device("cpu"), torch.float32)
    inputs = DeviceInputs(
        prepare_inputs(llm, read_data(scene.config()), None, scene.config().model), llm.device
    )
    line = Line(scene.assignments("cpu"))
    footprint = Footprint(llm, inputs)
    serve(Lanes(llm, inputs, footprint, together=True, budget=PLENTY), line)
    lane = scene.config(model__num_soft_tokens=2)
    bytes_of_lane = [footprint.state(lane), footprint.step(lane)]
    return {"losses": line.losses(), "figures": line.figures(), "lane": bytes_of_lane}


@contextlib.contextmanager
def as_worker(device_of: Callable[[], torch.device] = lambda: CUDA) -> Iterator[None]:
    """What Ray tells the only worker of a run."""
    context = SimpleNamespace(
        get_local_world_size=lambda: 1,
        get_world_size=lambda: 1,
        get_node_rank=lambda: 0,
        get_world_rank=lambda: 0,
    )
    with (
        patch("ray.train.get_context", lambda: context),
        patch("ray.train.get_checkpoint", lambda: None),
        patch("ray.train.torch.get_device", device_of),
        patch("trainables.workers.host.get_inputs", lambda reference: reference),
        patch("trainables.workers.dedicated.get_inputs", lambda reference: reference),
    ):
        yield


def packed(scene: Scene, assignments: dict[str, Assignment]) -> Line:
    """A host's process from its start to its end."""
    line = Line(assignments)
    settings = host.HostSettings(scene.config(), None, line, lanes=None, hosts=1)  # type: ignore[arg-type]
    with as_worker(), patch("trainables.workers.host.SwitchboardLink", lambda board: line):
        host.host_worker({"settings": settings})
    if line.error is not None:
        raise line.error
    return line


def alone(scene: Scene, inputs: SharedInputs) -> list[float]:
    """A worker of a dedicated trial; its losses."""
    reports: list[Any] = []
    config = scene.config(**LANES["two"])
    settings = dedicated.WorkerSettings(config, inputs, checkpoint=None)  # type: ignore[arg-type]
    with (
        as_worker(),
        patch("ray.train.report", lambda plain, checkpoint=None: reports.append(plain)),
    ):
        dedicated.train_worker({"settings": settings})
    return [loss for plain in reports for loss in from_plain(plain).series["loss"]]


def waits_of_a_step(scene: Scene, llm: FrozenLLM, inputs: DeviceInputs) -> dict[str, Any]:
    """What the host waits for while it launches a joint step; what it copies without waiting."""
    runs = [Run(scene.config(**values), inputs) for values in LANES.values()]
    for run in runs:
        run.begin_epoch()
    assert not train_step(runs, llm)  # what is made once is no part of a step
    WAITS.clear()
    assert not train_step(runs, llm)
    return {
        "lanes": len(runs),
        "reads": dict(WAITS.reads),
        "blocking_copies": dict(WAITS.blocking_copies),
        "copies": dict(WAITS.copies),
    }


def diverged(scene: Scene, llm: FrozenLLM, inputs: DeviceInputs) -> dict[str, Any]:
    """A run whose numbers are none, beside one that is all right."""
    bad, other = (Run(scene.config(training__seed=seed), inputs) for seed in (1, 2))
    for run in (bad, other):
        run.begin_epoch()
    assert not train_step([bad, other], llm)
    before = [p.detach().clone() for p in bad.encoder.parameters()]
    bad.encoder.register_forward_hook(lambda module, args, output: output * math.nan)
    ended = train_step([bad, other], llm)
    same = all(
        a.inner.equal(b.inner)  # type: ignore[attr-defined]
        for a, b in zip(before, (p.detach() for p in bad.encoder.parameters()), strict=True)
    )
    try:
        bad.check_finite()
        said = ""
    except DivergedError as error:
        said = str(error)
    other.check_finite()
    return {"ended": len(ended), "unchanged": same, "said": said, "other": other.step}


def backend_of_workers(scene: Scene, inputs: SharedInputs) -> str:
    """What several GPUs of one training would talk through."""
    settings = dedicated.WorkerSettings(scene.config(), inputs)  # type: ignore[arg-type]
    gpus = ScalingConfig(num_workers=2, use_gpu=True)
    with patch("trainables.workers.dedicated.scaling_config", lambda workers: gpus):
        trainer = dedicated.make_trainer(
            settings, name="run", storage_path=str(scene.directory), workers=2, callbacks=()
        )
    return str(trainer.backend_config.backend)


class Conditions:
    """The conditions in ``trainables`` that ask for the device, and which of them were asked."""

    def __init__(self) -> None:
        self.all = {
            (str(path), node.lineno)
            for path in (ROOT / "trainables").rglob("*.py")
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if _asks_for_device(node)
        }
        self.asked: set[tuple[str, int]] = set()
        self._files = {path for path, _ in self.all}
        self._known: dict[CodeType, bool] = {}

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        sys.settrace(self._trace)
        threading.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]

    @property
    def missing(self) -> list[str]:
        left = sorted(self.all - self.asked)
        return [f"{Path(path).relative_to(ROOT)}:{line}" for path, line in left]

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if code not in self._known:
            self._known[code] = code.co_filename in self._files
        return self._line if self._known[code] else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        self.asked.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line


def _asks_for_device(node: ast.AST) -> bool:
    if isinstance(node, ast.Compare):
        text = ast.unparse(node)
        return "device.type" in text or (".type ==" in text and "'cuda'" in text)
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) == "torch.cuda.is_available"
    tested = isinstance(node, ast.IfExp | ast.If)
    return tested and ast.unparse(node.test) in ("self._on_gpu", "on_gpu", "scaling.use_gpu")  # type: ignore[attr-defined]


def main() -> None:
    torch.set_num_threads(1)
    conditions = Conditions()
    with tempfile.TemporaryDirectory() as place:
        scene = Scene(Path(place))
        told: dict[str, Any] = {"cpu": on_cpu(scene)}
        with pretended(), conditions.watched():
            line = packed(scene, scene.assignments("gpu"))
            told["gpu"] = {"losses": line.losses(), "figures": line.figures()}
            assert line.facts is not None
            told["plan"] = line.facts.reason
            begun = {
                key: Assignment(run.config, run.directory, line.reports[key][0].checkpoint)
                for key, run in scene.assignments("again").items()
            }
            told["going_on"] = packed(scene, begun).losses()
            llm = load_llm(scene.config())
            told["selected"] = str(select_device())
            shared = line.ask(Board.inputs)[0]
            told["alone"] = alone(scene, shared)
            inputs = DeviceInputs(shared, llm.device)
            footprint, lane = Footprint(llm, inputs), scene.config(model__num_soft_tokens=2)
            told["lane"] = [footprint.state(lane), footprint.step(lane)]
            told["waits"] = waits_of_a_step(scene, llm, inputs)
            told["diverged"] = diverged(scene, llm, inputs)
            told["nccl"] = backend_of_workers(scene, shared)
            told["startup"] = asdict(
                expected_initialisation(scene.config(), ["a tool"], on_gpu=True)
            )
            free_device_memory()
    told["conditions"], told["missing"] = len(conditions.all), conditions.missing
    print(json.dumps(told))


if __name__ == "__main__":
    main()
