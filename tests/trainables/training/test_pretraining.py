"""The training step and the loop: isolation, resume, orientation, endings, golden losses."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import CPU, ConfigMaker
from trainables.config import PretrainConfig
from trainables.errors import CheckpointError, DivergedError, OutOfMemoryError
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.frozen import FrozenLLM
from trainables.llm.place.prompt import Prompt
from trainables.metrics import METRIC_KEYS
from trainables.models.features import FeatureStatistics
from trainables.training.batches import DeviceInputs
from trainables.training.checkpoint import load_checkpoint, save_checkpoint
from trainables.training.checkpoint_files import META_FILE, best_checkpoint, newest_whole, prune
from trainables.training.evaluation import evaluate, field_accuracy
from trainables.training.optimisation import learning_rate_at
from trainables.training.pretraining import Pretraining
from trainables.training.run import Run
from trainables.training.step import Shard, train_step

GOLDEN = Path(__file__).parents[2] / "assets" / "golden_losses.json"


def make_run(config: PretrainConfig, inputs: SharedInputs) -> Run:
    run = Run(config, DeviceInputs(inputs, CPU))
    run.start_epoch()
    return run


def weights(run: Run) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in run.encoder.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def test_every_declared_metric_is_reported(
    make_config: ConfigMaker, llm: FrozenLLM, inputs: SharedInputs
) -> None:
    config = make_config(training__num_epochs=2, training__field_accuracy_samples=4)
    reports = list(Pretraining(config, inputs, llm).reports())
    assert set(reports[-1].metrics) == set(METRIC_KEYS)
    assert [r.last for r in reports] == [False, True]
    assert set(reports[0].series) == {"loss", "gate_alpha", "learning_rate"}
    for values in reports[0].series.values():
        assert len(values) == reports[0].metrics["step"]
    assert all(math.isfinite(value) for value in reports[-1].metrics.values())


def test_several_runs_in_one_step_train_as_if_alone(
    make_config: ConfigMaker, llm: FrozenLLM, inputs: SharedInputs
) -> None:
    """Runs that differ in everything that is searched; 1e-4, as a joint batch may round."""
    configs = [
        make_config(training__seed=1, training__batch_size=4, model__dropout=0.3),
        make_config(training__seed=2, model__num_attention_heads=8, model__d_resource=16),
        make_config(training__seed=3, model__resource_tokens="summary", model__normalize=False),
        make_config(training__seed=4, model__architecture="embedding_attention"),
    ]
    together = [make_run(config, inputs) for config in configs]
    alone = [make_run(config, inputs) for config in configs]
    for _ in range(4):
        train_step(together, llm)
        for run in alone:
            train_step([run], llm)
    for a, b in zip(together, alone, strict=True):
        assert a.series.column("loss") == pytest.approx(b.series.column("loss"), rel=1e-4)
        assert a.series.column("grad_norm") == pytest.approx(b.series.column("grad_norm"), rel=1e-3)


def test_a_neighbour_in_the_process_does_not_disturb_the_random_streams(
    make_config: ConfigMaker, llm: FrozenLLM, inputs: SharedInputs
) -> None:
    alone = make_run(make_config(model__dropout=0.4), inputs)
    beside = make_run(make_config(model__dropout=0.4), inputs)
    neighbour = make_run(make_config(model__dropout=0.4, training__seed=9), inputs)
    for _ in range(3):
        train_step([alone], llm)
    for _ in range(3):
        train_step([neighbour], llm)
        torch.rand(7)
        train_step([beside], llm)
    assert alone.series.column("loss") == beside.series.column("loss")
    assert equal(weights(alone), weights(beside))


def test_a_gate_learning_rate_of_zero_holds_alpha_at_zero(
    make_config: ConfigMaker, llm: FrozenLLM, inputs: SharedInputs
) -> None:
    run = make_run(make_config(training__gate_lr_multiplier=0), inputs)
    for _ in range(3):
        train_step([run], llm)
    assert run.series.column("gate_alpha") == [0.0] * 3


def test_weight_decay_never_touches_the_gate(
    make_config: ConfigMaker, inputs: SharedInputs
) -> None:
    run = make_run(make_config(training__weight_decay=0.5), inputs)
    by_parameter = {
        id(p): group["weight_decay"]
        for group in run.optimizer.param_groups
        for p in group["params"]
    }
    assert len(by_parameter) == len(run.encoder.get_trainable_parameters())
    assert by_parameter[id(run.encoder.fusion.gate_alpha)] == 0
    assert by_parameter[id(run.encoder.resource_mlp.fc1.weight)] == 0.5


def test_keeping_the_gate_upward_changes_only_its_sign(
    make_config: ConfigMaker,
    llm: FrozenLLM,
    inputs: SharedInputs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of all seeds would go downward; kept upward, they train on as they would have."""
    downward = 0
    for seed in range(8):
        config = make_config(training__seed=seed, model__dropout=0.2)
        kept, free = make_run(config, inputs), make_run(config, inputs)
        for _ in range(5):
            train_step([kept], llm)
        with monkeypatch.context() as patch:
            patch.setattr("trainables.training.run.keep_gate_upward", lambda *arguments: None)
            for _ in range(5):
                train_step([free], llm)
        downward += min(free.series.column("gate_alpha")) < 0
        assert kept.series.column("loss") == free.series.column("loss")
        assert kept.series.column("gate_alpha") == [
            abs(alpha) for alpha in free.series.column("gate_alpha")
        ]
    assert 0 < downward < 8


@pytest.mark.parametrize("epochs_before", [1, 2])
def test_resume_is_bit_equal_to_never_having_stopped(
    epochs_before: int,
    make_config: ConfigMaker,
    llm: FrozenLLM,
    inputs: SharedInputs,
    tmp_path: Path,
) -> None:
    config = make_config(model__dropout=0.2, training__num_epochs=4)
    straight = Pretraining(config, inputs, llm)
    expected = [report.series["loss"] for report in straight.reports()]
    first = Pretraining(config, inputs, llm)
    history: list[dict[str, Any]] = []
    for report in first.reports():
        history.append(report.metrics)
        if report.epoch == epochs_before:
            break
    path = save_checkpoint(tmp_path, first.run, history)
    second = Pretraining(config, inputs, llm)
    assert load_checkpoint(path, second.run) == history
    rest = [report.series["loss"] for report in second.reports()]
    assert rest == expected[epochs_before:]
    assert equal(weights(second.run), weights(straight.run))


@pytest.mark.parametrize("steps_before", [1, 4, 7])
def test_a_run_goes_on_bit_for_bit_in_the_middle_of_an_epoch(
    steps_before: int,
    make_config: ConfigMaker,
    llm: FrozenLLM,
    inputs: SharedInputs,
    tmp_path: Path,
) -> None:
    config = make_config(model__dropout=0.2, training__num_epochs=3)
    straight = Pretraining(config, inputs, llm)
    expected = [report.series["loss"] for report in straight.reports()]
    assert len(expected[0]) > 1
    first = Pretraining(config, inputs, llm)
    history: list[dict[str, Any]] = []
    while first.run.step < steps_before:
        first.run.begin_epoch()
        train_step([first.run], llm)
        if not first.run.in_epoch:
            history.append(first.end_epoch().metrics)
    path = save_checkpoint(tmp_path, first.run, history)
    second = Pretraining(config, inputs, llm)
    assert load_checkpoint(path, second.run) == history
    rest = [report.series["loss"] for report in second.reports()]
    assert rest == expected[len(history) :]
    assert equal(weights(second.run), weights(straight.run))


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "meta"])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(
    damage: str,
    make_config: ConfigMaker,
    llm: FrozenLLM,
    inputs: SharedInputs,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pretraining = Pretraining(make_config(training__num_epochs=2), inputs, llm)
    paths = [save_checkpoint(tmp_path, pretraining.run, []) for _ in pretraining.reports()]
    victim = paths[-1] / (META_FILE if damage == "meta" else "optimizer.safetensors")
    content = victim.read_bytes()
    match damage:
        case "truncate" | "meta":
            victim.write_bytes(content[: len(content) // 2])
        case "flip":
            victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "remove":
            victim.unlink()
    assert newest_whole(tmp_path) == paths[0]
    assert str(paths[-1]) in caplog.text


def test_a_checkpoint_of_other_hyperparameters_is_refused(
    make_config: ConfigMaker, llm: FrozenLLM, inputs: SharedInputs, tmp_path: Path
) -> None:
    path = save_checkpoint(tmp_path, make_run(make_config(), inputs), [])
    run = make_run(make_config(training__learning_rate=0.5), inputs)
    with pytest.raises(CheckpointError, match=r"training\.learning_rate"):
        load_checkpoint(path, run)


def test_pruning_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    paths = [tmp_path / f"checkpoint_{i:06d}" for i in range(5)]
    for path in paths:
        path.mkdir()
    prune(tmp_path, 2, best=paths[1])
    assert sorted(tmp_path.iterdir()) == [paths[1], *paths[3:]]


def test_divergence_ends_the_trial_before_the_update(
    make_config: ConfigMaker, llm: FrozenLLM, inputs: SharedInputs
) -> None:
    run = make_run(make_config(), inputs)
    train_step([run], llm)
    run.encoder.resource_mlp.fc2.bias.data[0] = float("nan")
    before = weights(run)
    with pytest.raises(DivergedError, match=r"step 2 \(learning_rate") as caught:
        raise train_step([run], llm)[run]
    after = weights(run)
    assert all(torch.equal(before[k].nan_to_num(), after[k].nan_to_num()) for k in before)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.step, again.status, str(again)) == (2, "diverged", str(caught.value))


def test_running_out_of_memory_is_told_as_such(
    make_config: ConfigMaker,
    llm: FrozenLLM,
    inputs: SharedInputs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretraining = Pretraining(make_config(), inputs, llm)

    def no_memory(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(llm, "joint_losses", no_memory)
    with pytest.raises(OutOfMemoryError, match=r"batch_size 8.*2\.00 GiB"):
        next(pretraining.reports())


def test_target_loss_ends_the_training(
    make_config: ConfigMaker, llm: FrozenLLM, inputs: SharedInputs
) -> None:
    config = make_config(training__target_loss=100.0)
    reports = list(Pretraining(config, inputs, llm).reports())
    assert [(r.epoch, r.last) for r in reports] == [(1, True)]


@pytest.mark.parametrize("scheduler", ["cosine", "linear", "constant"])
def test_learning_rate_warms_up_and_follows_its_schedule(
    scheduler: str, make_config: ConfigMaker
) -> None:
    training = make_config(
        training__scheduler=scheduler, training__warmup_ratio=0.1, training__learning_rate=0.2
    ).training
    rates = [learning_rate_at(step, 100, training) for step in range(100)]
    assert rates[:10] == pytest.approx([0.02 * (i + 1) for i in range(10)])
    middle, last = {"cosine": (0.1, 6e-5), "linear": (0.1, 0.00222), "constant": (0.2, 0.2)}[
        scheduler
    ]
    assert rates[55] == pytest.approx(middle, rel=1e-6)
    assert rates[-1] == pytest.approx(last, rel=0.02)


def test_shards_cover_a_batch_once() -> None:
    for size in (1, 5, 16):
        parts = [Shard(rank, 3).of(size) for rank in range(3)]
        rows = [i for part in parts for i in range(size)[part]]
        assert rows == list(range(size))


def test_retention_is_one_without_resources(
    make_config: ConfigMaker, llm: FrozenLLM, inputs: SharedInputs
) -> None:
    _, retention = evaluate(make_run(make_config(), inputs), llm)
    assert retention == pytest.approx(1.0, abs=0.05)  # the layer norm only removes the mean


def test_field_accuracy_counts_figures_of_the_written_sentence(
    make_config: ConfigMaker,
    llm: FrozenLLM,
    inputs: SharedInputs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from trainables.data.templates import TEMPLATES
    from trainables.models.features import RESOURCES

    def write(soft: torch.Tensor, limit: int, prompt: Prompt) -> list[str]:
        """All right, then two figures wrong, then no sentence at all."""
        sentences = []
        for i, truth in enumerate(inputs.written_figures[: len(soft)]):
            said = dict(zip(RESOURCES, truth, strict=True))
            if i == 1:
                said |= {"gpu_sm": "1", "latency_ms": "77777"}
            text = TEMPLATES[i % 4].format(tool="grep_logs", **said)
            sentences.append("nothing of use" if i == 2 else text)
        return sentences

    monkeypatch.setattr(llm, "write", write)
    run = make_run(make_config(), inputs)
    count = len(inputs.val_rows)
    assert count >= 3
    assert field_accuracy(run, llm, 99) == pytest.approx((6 * count - 2 - 6) / (6 * count))


def test_golden_losses(make_config: ConfigMaker) -> None:
    """The embedded LLM, the shipped data, fp32: five steps as they always were."""
    from trainables.inputs.checked_data import read_data
    from trainables.inputs.preparing import prepare_inputs

    config = make_config(
        model__llm_model="embedded",
        model__num_attention_heads=8,
        data__tool_registry="default",
        data__profiling_data="default",
    )
    embedded = FrozenLLM.load(config.model, CPU, torch.float32)
    run = make_run(config, prepare_inputs(embedded, read_data(config)))
    for _ in range(5):
        train_step([run], embedded)
    golden = json.loads(GOLDEN.read_text())
    assert run.series.column("loss") == pytest.approx(golden["loss"], rel=2e-3)
    assert run.series.column("gate_alpha") == pytest.approx(golden["gate_alpha"], rel=2e-2)


def test_a_worker_without_a_share_of_the_batch_still_takes_part(
    make_config: ConfigMaker, llm: FrozenLLM, inputs: SharedInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last batch may be smaller than the number of workers."""
    run = make_run(make_config(training__batch_size=1), inputs)
    sent: list[int] = []
    monkeypatch.setattr(
        "trainables.training.step._sum_over_workers", lambda tensors: sent.append(len(tensors))
    )
    train_step([run], llm, Shard(rank=0, size=2))  # rows 0 to 0 of 1
    assert run.series.column("loss") == [0.0]
    assert sent == [1 + len(run.encoder.get_trainable_parameters())]


def test_a_checkpoint_of_other_data_is_refused(
    make_config: ConfigMaker, llm: FrozenLLM, inputs: SharedInputs, tmp_path: Path
) -> None:
    path = save_checkpoint(tmp_path, make_run(make_config(), inputs), [])
    other_tools = replace(inputs, tool_embeddings=inputs.tool_embeddings[::-1] * 3)
    with pytest.raises(CheckpointError, match="other tools or another LLM"):
        load_checkpoint(path, make_run(make_config(), other_tools))
    other_table = replace(inputs, statistics=FeatureStatistics((0.0,) * 6, (1.0,) * 6))
    with pytest.raises(CheckpointError, match="another profiling table"):
        load_checkpoint(path, make_run(make_config(), other_table))


def test_a_damaged_checkpoint_is_replaced_when_its_epoch_comes_again(
    make_config: ConfigMaker, llm: FrozenLLM, inputs: SharedInputs, tmp_path: Path
) -> None:
    run = make_run(make_config(), inputs)
    path = save_checkpoint(tmp_path, run, [{"val_loss": 1.0}])
    (path / META_FILE).write_text("{")
    assert best_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, run, [{"val_loss": 1.0}])
    assert newest_whole(tmp_path) == best_checkpoint(tmp_path) == path
