"""The parts of the GPU benchmark, on a CPU and a tiny LLM."""

from __future__ import annotations

import pytest
import torch

from benchmarks import gpu_lanes
from tests.conftest import CPU
from trainables.config import PretrainConfig, TrainingConfig
from trainables.training.batches import DeviceInputs
from trainables.training.run import Run


@pytest.mark.parametrize("joint", [True, False])
def test_every_run_makes_every_step(joint: bool) -> None:
    torch.manual_seed(0)
    llm = gpu_lanes.make_llm("tiny", CPU)
    steps = 2
    rows = gpu_lanes.BATCH_SIZE * steps
    inputs = DeviceInputs(gpu_lanes.make_inputs("tiny", rows), CPU)
    config = PretrainConfig(training=TrainingConfig(batch_size=gpu_lanes.BATCH_SIZE))
    runs = [Run(config, inputs) for _ in range(3)]
    groups = gpu_lanes.parts(runs, llm, joint)
    assert [len(group) for group in groups] == ([3] if joint else [1, 1, 1])
    for run in runs:
        run.start_epoch()
    gpu_lanes.make_steps(groups, llm, steps)
    assert [run.step for run in runs] == [steps] * 3
    assert all(run.series.tokens >= rows * gpu_lanes.SHORTEST for run in runs)


def test_flops_are_those_of_every_matrix_but_the_embeddings() -> None:
    shape = gpu_lanes.SHAPES["tiny"]
    d, hidden, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    per_layer = d * d * 2 + d * d // 2 * 2 + 3 * d * hidden  # q and o, k and v, the MLP
    expected = 4.0 * (layers * per_layer + d * shape["vocab_size"])
    assert gpu_lanes.flops_per_token(gpu_lanes.make_llm("tiny", CPU)) == expected


def test_the_utilisation_is_of_the_measured_rate() -> None:
    assert gpu_lanes.matmul_flops(64) > 0
    assert list(gpu_lanes.cases("7b", 16, 1)) == [
        "one trial",
        "16 lanes, joint steps",
        "16 lanes, in turn",
    ]
