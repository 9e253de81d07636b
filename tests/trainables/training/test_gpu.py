"""What only a GPU can show; ``python -m pytest -m gpu``."""

from __future__ import annotations

import math

import pytest
import torch

from tests.conftest import ConfigMaker
from trainables.errors import DivergedError
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.frozen import FrozenLLM
from trainables.training.batches import DeviceInputs
from trainables.training.run import Run
from trainables.training.step import train_step

pytestmark = pytest.mark.gpu
LANES = 4


@pytest.fixture
def llm(make_config: ConfigMaker) -> FrozenLLM:
    return FrozenLLM.load(make_config().model, torch.device("cuda"), torch.float32)


def make_runs(make_config: ConfigMaker, inputs: SharedInputs, llm: FrozenLLM) -> list[Run]:
    """Several in their first epoch, as many steps behind them as warm a device up."""
    shared = DeviceInputs(inputs, llm.device)
    runs = [Run(make_config(training__seed=seed), shared) for seed in range(LANES)]
    for run in runs:
        run.start_epoch()
    for _ in range(2):
        assert not train_step(runs, llm)
    return runs


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_no_step_waits_for_the_device(
    make_config: ConfigMaker, inputs: SharedInputs, llm: FrozenLLM
) -> None:
    runs = make_runs(make_config, inputs, llm)
    try:
        torch.cuda.set_sync_debug_mode("error")
        ended = train_step(runs, llm)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert not ended
    assert all(math.isfinite(run.series.column("loss")[-1]) for run in runs)


def test_a_diverged_run_changes_nothing_after_and_disturbs_nobody(
    make_config: ConfigMaker, inputs: SharedInputs, llm: FrozenLLM
) -> None:
    bad, *others = make_runs(make_config, inputs, llm)
    before = [p.detach().clone() for p in bad.encoder.parameters()]
    bad.encoder.register_forward_hook(lambda module, args, output: output * math.nan)
    assert not train_step([bad, *others], llm), "nobody can see it without waiting"
    with pytest.raises(DivergedError, match="loss is nan at step 3"):
        bad.check_finite()
    assert all(torch.equal(a, b) for a, b in zip(before, bad.encoder.parameters(), strict=True))
    for run in others:
        run.check_finite()
