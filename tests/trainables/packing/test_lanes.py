"""Lanes: runs beside each other train as if alone, whatever happens to their neighbours."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.conftest import ConfigMaker
from trainables.config import PretrainConfig
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.frozen import FrozenLLM
from trainables.llm.place.prompt import NO_PROMPT, Prompt
from trainables.llm.place.sequences import Rows
from trainables.packing.lane_plan import plan_lanes
from trainables.packing.lanes import Lanes, serve
from trainables.packing.memory import Footprint, free_bytes
from trainables.packing.protocol import Assignment, Command
from trainables.training.batches import DeviceInputs
from trainables.training.checkpoint import load_checkpoint
from trainables.training.checkpoint_files import checkpoints, read_meta
from trainables.training.diagnosis import Finding
from trainables.training.pretraining import Pretraining
from trainables.training.reports import Report

PLENTY = 2.0**40
HUGE_NORM = 1e3


@pytest.fixture(params=["alone", "prompted"])
def device_inputs(
    request: pytest.FixtureRequest, llm: FrozenLLM, inputs: SharedInputs
) -> DeviceInputs:
    """Soft tokens with nothing around them, and with a prompt before and after them."""
    if request.param == "prompted":
        inputs = replace(inputs, prompt_before=np.array([40, 41, 42]), prompt_after=np.array([9]))
    return DeviceInputs(inputs, llm.device)


def make_lanes(
    llm: FrozenLLM,
    inputs: DeviceInputs,
    together: bool = False,
    budget: float = PLENTY,
    late: Finding | None = None,
) -> Lanes:
    footprint = Footprint(llm, inputs)
    return Lanes(llm, inputs, footprint, together=together, budget=budget, late=late)


def drive(
    lanes: Lanes,
    configs: dict[str, PretrainConfig],
    directory: Path,
    decide: Callable[[str, Report], bool] = lambda key, report: True,
) -> dict[str, list[Report]]:
    """All reports by key; ``decide`` says after each whether the run goes on."""
    found: dict[str, list[Report]] = {key: [] for key in configs}
    for key, config in configs.items():
        (directory / key).mkdir(exist_ok=True)
        lanes.assign(key, Assignment(config, str(directory / key)))
    while lanes.busy:
        for key, report in lanes.work():
            found[key].append(report)
            if report.last:
                continue
            if decide(key, report):
                lanes.go_on(key)
            else:
                lanes.release(key)
    return found


def series(reports: list[Report]) -> list[float]:
    return [loss for report in reports for loss in getattr(report, "series", {}).get("loss", [])]


def alone(config: PretrainConfig, inputs: DeviceInputs, llm: FrozenLLM) -> list[float]:
    return series(list(Pretraining(config, inputs, llm).reports()))


@pytest.fixture
def different(make_config: ConfigMaker) -> dict[str, PretrainConfig]:
    """Runs that differ in everything that can be searched."""
    return {
        "a": make_config(training__seed=1, training__batch_size=4, model__dropout=0.3),
        "b": make_config(training__seed=2, model__num_attention_heads=8, model__d_resource=16),
        "c": make_config(
            training__seed=3, model__resource_tokens="summary", model__normalize=False
        ),
        "d": make_config(
            training__learning_rate=1e-2,
            training__gate_lr_multiplier=2.0,
            training__weight_decay=0.1,
            training__max_grad_norm=None,
            training__scheduler="linear",
            training__warmup_ratio=0.2,
            training__batch_size=24,
        ),
        "e": make_config(training__seed=4, model__architecture="embedding_attention"),
        "f": make_config(training__seed=5, model__num_soft_tokens=3, training__batch_size=6),
    }


def test_in_turn_every_run_is_bit_equal_to_the_run_alone(
    different: dict[str, PretrainConfig],
    device_inputs: DeviceInputs,
    llm: FrozenLLM,
    tmp_path: Path,
) -> None:
    found = drive(make_lanes(llm, device_inputs), different, tmp_path)
    for key, config in different.items():
        assert [r.status for r in found[key]] == ["running", "running", "finished"]
        assert series(found[key]) == alone(config, device_inputs, llm)


def test_together_every_run_is_within_a_ten_thousandth_of_the_run_alone(
    different: dict[str, PretrainConfig],
    device_inputs: DeviceInputs,
    llm: FrozenLLM,
    tmp_path: Path,
) -> None:
    found = drive(make_lanes(llm, device_inputs, together=True), different, tmp_path)
    for key, config in different.items():
        assert series(found[key]) == pytest.approx(alone(config, device_inputs, llm), rel=1e-4)


def troubled(llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    """The LLM gives NaN for a soft token that is too large, or raises."""
    whole = llm.joint_losses

    def joint_losses(groups: Sequence[Rows], prompt: Prompt = NO_PROMPT) -> torch.Tensor:
        bad = torch.cat([rows.soft.detach().norm(dim=-1) for rows in groups]) > HUGE_NORM
        counts = torch.cat([rows.counts for rows in groups])
        if trouble == "exception" and bad.any():
            raise RuntimeError("the device is on fire")
        losses = whole(groups, prompt)
        if trouble == "memory" and bad.any():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return losses * torch.where(bad.repeat_interleave(counts), float("nan"), 1.0)

    monkeypatch.setattr(llm, "joint_losses", joint_losses)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    ("trouble", "outcome"),
    [("nan", "diverged"), ("exception", "failed"), ("memory", "out of memory")],
)
def test_a_neighbour_in_trouble_changes_nothing(
    trouble: str,
    outcome: str,
    together: bool,
    make_config: ConfigMaker,
    device_inputs: DeviceInputs,
    llm: FrozenLLM,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = make_config(model__dropout=0.3)
    expected = alone(good, device_inputs, llm)
    troubled(llm, monkeypatch, trouble)
    lanes = make_lanes(llm, device_inputs, together)

    def spoil(key: str, report: Report) -> bool:
        if key == "bad":
            lane = lanes._lanes["bad"]
            lane.run.encoder.fusion.layer_norm.weight.data.fill_(HUGE_NORM)
        return True

    configs = {"bad": make_config(training__seed=5), "good": good}
    found = drive(lanes, configs, tmp_path, spoil)
    assert [report.status for report in found["bad"]] == ["running", outcome]
    assert found["bad"][-1].epoch == 1, "the figures are those of the last whole epoch"
    tolerance = 1e-4 if together else 0.0
    assert series(found["good"]) == pytest.approx(expected, rel=tolerance)


def test_a_run_that_is_stopped_leaves_the_others_alone(
    make_config: ConfigMaker, device_inputs: DeviceInputs, llm: FrozenLLM, tmp_path: Path
) -> None:
    good = make_config(model__dropout=0.3)
    configs = {"stopped": make_config(training__seed=5), "good": good}
    lanes = make_lanes(llm, device_inputs)
    found = drive(lanes, configs, tmp_path, lambda key, report: key == "good")
    assert len(found["stopped"]) == 1
    assert series(found["good"]) == alone(good, device_inputs, llm)


def test_a_run_moves_to_other_lanes_by_its_checkpoint(
    make_config: ConfigMaker, device_inputs: DeviceInputs, llm: FrozenLLM, tmp_path: Path
) -> None:
    config = make_config(model__dropout=0.3)
    lanes = make_lanes(llm, device_inputs)
    (first,) = drive(lanes, {"x": config}, tmp_path, lambda key, report: False)["x"]
    others = make_lanes(llm, device_inputs)
    others.assign("y", Assignment(config, str(tmp_path / "x"), first.checkpoint))
    rest: list[Report] = []
    while others.busy:
        for key, report in others.work():
            rest.append(report)
            others.go_on(key)
    assert series([first, *rest]) == alone(config, device_inputs, llm)
    assert len(read_meta(Path(rest[-1].checkpoint))["history"]) == 3


def test_a_run_takes_over_the_weights_of_another_with_other_hyperparameters(
    make_config: ConfigMaker, device_inputs: DeviceInputs, llm: FrozenLLM, tmp_path: Path
) -> None:
    donor = make_config(training__seed=7)
    (first,) = drive(
        make_lanes(llm, device_inputs), {"x": donor}, tmp_path, lambda key, report: False
    )["x"]
    heir = Pretraining(make_config(training__learning_rate=0.005), device_inputs, llm).run
    load_checkpoint(Path(first.checkpoint), heir, inherited=True)
    assert heir.encoder.get_gate_value() == first.metrics["gate_alpha"]
    assert (heir.epoch, heir.config.training.learning_rate) == (1, 0.005)


def test_the_first_report_after_a_take_over_has_the_epochs_before(
    make_config: ConfigMaker, device_inputs: DeviceInputs, llm: FrozenLLM, tmp_path: Path
) -> None:
    config = make_config(training__num_epochs=4)
    lanes = make_lanes(llm, device_inputs)
    donor = drive(lanes, {"x": config}, tmp_path, lambda key, report: report.epoch < 2)["x"]
    heir = make_config(training__num_epochs=4, training__learning_rate=0.005)
    (tmp_path / "y").mkdir()
    last = donor[-1].checkpoint
    lanes.assign("y", Assignment(heir, str(tmp_path / "y"), last, inherited=True))
    found: list[Report] = []
    while lanes.busy:
        for key, report in lanes.work():
            found.append(report)
            lanes.go_on(key)
    assert [report.epoch for report in found] == [3, 4]
    lineage = found[0].lineage
    assert [row["val_loss"] for row in lineage] == [report.metrics["val_loss"] for report in donor]
    assert not found[1].lineage, "told once"


def test_a_checkpoint_never_replaces_one_of_the_same_epoch(
    make_config: ConfigMaker, device_inputs: DeviceInputs, llm: FrozenLLM, tmp_path: Path
) -> None:
    for _ in range(2):
        drive(make_lanes(llm, device_inputs), {"x": make_config()}, tmp_path, lambda key, r: False)
    names = sorted(path.name for path in (tmp_path / "x").iterdir())
    assert names == ["checkpoint_000001", "checkpoint_000001_1"]


def test_what_can_never_fit_is_refused_and_the_others_train(
    make_config: ConfigMaker, device_inputs: DeviceInputs, llm: FrozenLLM, tmp_path: Path
) -> None:
    footprint = Footprint(llm, device_inputs)
    small, large = make_config(training__batch_size=2), make_config(training__batch_size=40)
    budget = footprint.state(small) + footprint.step(small) * 1.01
    lanes = make_lanes(llm, device_inputs, budget=budget)
    found = drive(lanes, {"large": large, "small": small}, tmp_path)
    assert found["large"][0].status == "out of memory"
    assert "batch_size 40" in found["large"][0].message
    assert found["small"][-1].status == "finished"


def test_what_cannot_be_built_ends_alone(
    make_config: ConfigMaker, device_inputs: DeviceInputs, llm: FrozenLLM, tmp_path: Path
) -> None:
    configs = {"bad": make_config(model__num_attention_heads=5), "good": make_config()}
    found = drive(make_lanes(llm, device_inputs), configs, tmp_path)
    assert [report.status for report in found["bad"]] == ["failed"]
    assert found["good"][-1].status == "finished"


def test_what_does_not_fit_yet_waits_for_a_lane(
    make_config: ConfigMaker, device_inputs: DeviceInputs, llm: FrozenLLM, tmp_path: Path
) -> None:
    footprint = Footprint(llm, device_inputs)
    config = make_config(training__num_epochs=1)
    budget = 1.5 * footprint.state(config) + footprint.step(config)
    lanes = make_lanes(llm, device_inputs, together=True, budget=budget)
    order: list[str] = []
    for key in "ab":
        (tmp_path / key).mkdir()
        lanes.assign(key, Assignment(config, str(tmp_path / key)))
    while lanes.busy:
        assert len(lanes._lanes) <= 1
        order += [key for key, _ in lanes.work()]
    assert order == ["a", "b"]


def test_the_measured_need_of_a_step_grows_with_the_batch_and_is_no_less_than_what_is_kept(
    make_config: ConfigMaker, device_inputs: DeviceInputs, llm: FrozenLLM
) -> None:
    footprint = Footprint(llm, device_inputs)
    one, many = (footprint.step(make_config(training__batch_size=size)) for size in (1, 10))
    assert many == pytest.approx(10 * one)
    layers, hidden, length = 2, 32, device_inputs.token_ids.shape[-1]
    assert one > 4 * layers * hidden * length, "at least one activation per layer and token"
    encoder_bytes = 16 * sum(
        p.numel() for p in Pretraining(make_config(), device_inputs, llm).run.encoder.parameters()
    )
    assert footprint.state(make_config()) == pytest.approx(encoder_bytes, rel=0.2)


def test_lanes_are_planned_by_device_and_memory(
    make_config: ConfigMaker, device_inputs: DeviceInputs, llm: FrozenLLM
) -> None:
    footprint, config = Footprint(llm, device_inputs), make_config()
    lane = footprint.state(config) + footprint.step(config)
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert plan_lanes(None, config, cpu, footprint, PLENTY).lanes == 2
    assert not plan_lanes(None, config, cpu, footprint, PLENTY).together
    assert plan_lanes(None, config, gpu, footprint, 5.5 * lane).lanes == 5
    assert plan_lanes(None, config, gpu, footprint, PLENTY).lanes == 16
    assert plan_lanes(3, config, gpu, footprint, lane).lanes == 3


def test_free_memory_is_a_share_of_the_machine() -> None:
    assert 2**26 < free_bytes(torch.device("cpu")) < 2**50


class ScriptedLink:
    """Says what a test has written down, one list per question, then that it is over."""

    def __init__(self, script: list[list[Command]]) -> None:
        self.script = script
        self.waits: list[bool] = []
        self.sent: list[tuple[str, Report, float]] = []
        self.paces: list[float] = []

    def receive(self, wait: bool) -> list[Command]:
        self.waits.append(wait)
        if self.script:
            return self.script.pop(0)
        return [Command("close")] if wait else []

    def send(self, key: str, report: Report, seconds_in_steps: float) -> None:
        self.sent.append((key, report, seconds_in_steps))

    def pace(self, seconds_per_row: float) -> None:
        self.paces.append(seconds_per_row)


def test_a_host_trains_until_it_is_told_to_close(
    make_config: ConfigMaker, device_inputs: DeviceInputs, llm: FrozenLLM, tmp_path: Path
) -> None:
    config = make_config(training__num_epochs=2)
    (tmp_path / "a").mkdir()
    assignment = Assignment(config, str(tmp_path / "a"))
    link = ScriptedLink([[Command("assign", "a", assignment)]])
    lanes = make_lanes(llm, device_inputs)
    serve(lanes, link)
    assert [(key, r.epoch, r.status) for key, r, _ in link.sent] == [("a", 1, "running")]
    assert link.waits[0], "an idle host waits to be told"
    assert link.waits[-1], "the run has reported, and waits for the decision"
    assert 0 < link.sent[0][2] == lanes.seconds_in_steps


def test_a_host_tells_its_pace_once_by_ten_steps_after_the_first(
    make_config: ConfigMaker,
    device_inputs: DeviceInputs,
    llm: FrozenLLM,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([0.0, 100.0, *(100.0 + step // 2 * 8.0 for step in range(1, 200))])
    own = SimpleNamespace(perf_counter=lambda: next(clock), time=time.time)  # nobody else's clock
    monkeypatch.setattr("trainables.packing.lanes.time", own)
    (tmp_path / "a").mkdir()
    assignment = Assignment(make_config(training__batch_size=2), str(tmp_path / "a"))
    link = ScriptedLink([[Command("assign", "a", assignment)]])
    serve(make_lanes(llm, device_inputs), link)
    assert link.paces == [4.0]


def test_nothing_in_an_assignment_needs_torch(make_config: ConfigMaker) -> None:
    assignment = Assignment(make_config(), "somewhere")
    assert replace(assignment, checkpoint="there").config == assignment.config


def test_a_stuck_gate_ends_a_run_in_a_lane_as_it_does_alone(
    make_config: ConfigMaker, device_inputs: DeviceInputs, llm: FrozenLLM, tmp_path: Path
) -> None:
    stuck = make_config(training__learning_rate=1e-5, training__stop_stuck_gates=True)
    configs = {"stuck": stuck, "other": make_config(training__seed=1)}
    found = drive(make_lanes(llm, device_inputs), configs, tmp_path)
    assert [r.status for r in found["stuck"]] == ["stopped early"]
    assert "gate_lr_multiplier" in found["stuck"][0].message
    assert series(found["stuck"]) == alone(stuck, device_inputs, llm)
    assert series(found["other"]) == alone(configs["other"], device_inputs, llm)
    assert found["stuck"][0].checkpoint


def test_a_late_initialisation_is_told_with_the_first_report_alone(
    make_config: ConfigMaker, device_inputs: DeviceInputs, llm: FrozenLLM, tmp_path: Path
) -> None:
    late = Finding("slow_initialisation", "initialisation took 100 s")
    lanes = make_lanes(llm, device_inputs, late=late)
    found = drive(lanes, {"a": make_config(), "b": make_config(training__seed=1)}, tmp_path)
    told = [f.id for reports in found.values() for r in reports for f in r.findings]
    assert told.count("slow_initialisation") == 1


def test_read_files_do_not_count_as_taken_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.packing.memory.CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    (tmp_path / "memory.current").write_text(f"{2**30}\n")
    (tmp_path / "memory.stat").write_text(f"anon {2**28}\ninactive_file {2**29}\n")
    assert free_bytes(torch.device("cpu")) == 2**29


def test_of_one_epoch_the_checkpoint_made_last_is_the_newest(tmp_path: Path) -> None:
    names = ["checkpoint_000001", *(f"checkpoint_000001_{i}" for i in range(1, 12))]
    for name in sorted(names):
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == names
