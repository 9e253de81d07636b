"""Frozen files of earlier releases: refused by every loader, migrated with an account."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.assets import make_earlier_files
from tests.conftest import ConfigMaker
from trainables.config import PretrainConfig
from trainables.errors import CheckpointError
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.frozen import FrozenLLM
from trainables.migration.checkpoint import REPORT_FILE, Migration, plan_migration
from trainables.models.earlier_files import read_earlier_file
from trainables.models.features import RESOURCES
from trainables.models.resource_encoder import ResourceEncoder
from trainables.training.batches import DeviceInputs
from trainables.training.checkpoint import load_checkpoint
from trainables.training.checkpoint_files import newest_whole
from trainables.training.pretraining import Pretraining

FILES = make_earlier_files.DIRECTORY
NAMES = ("gated.pt", "embedding_flat.pt", "embedding_nested.pt")
COMMAND = "python run_tune.py migrate checkpoint"


def rewritten(tmp_path: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of a frozen file, changed."""
    content = torch.load(FILES / name, weights_only=True)
    path = tmp_path / f"changed_{name}"
    torch.save(change(content) or content, path)
    return path


@pytest.fixture
def gated_config(make_config: ConfigMaker, tmp_path: Path) -> PretrainConfig:
    """The frozen gated file is for D = 8, and its LLM is not at hand."""
    return make_config(model__llm_model="some/where", model__num_attention_heads=2)


def planned(path: Path, config: PretrainConfig, out: Path = Path("out")) -> Migration:
    return plan_migration(read_earlier_file(path), config, out, lambda line: None)


def verbs(migration: Migration) -> dict[str, str]:
    return {change.what.split(" ")[0].split(":")[0]: change.verb for change in migration.changes}


@pytest.mark.parametrize("name", NAMES)
def test_every_loader_says_why_not_and_names_the_command(name: str, tmp_path: Path) -> None:
    path = FILES / name
    why = "earlier release" if name == "gated.pt" else "earlier architecture"
    loads: tuple[Callable[[], object], ...] = (
        lambda: ResourceEncoder.from_pretrained(path),
        lambda: load_checkpoint(path, None),  # type: ignore[arg-type]
        lambda: newest_whole(path),
    )
    for load in loads:
        with pytest.raises(CheckpointError, match=f"{why}.*{COMMAND} {path}"):
            load()


def test_resuming_beside_earlier_files_names_the_command(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_text("no checkpoint")
    (tmp_path / "b.pt").write_bytes((FILES / "gated.pt").read_bytes())
    with pytest.raises(CheckpointError, match=f"{COMMAND} .*b.pt"):
        newest_whole(tmp_path)


def answers() -> tuple[Tensor, Tensor, Tensor]:
    recorded = json.loads((FILES / "gated_answers.json").read_text())
    return tuple(torch.tensor(recorded[key]) for key in ("tools", "figures", "outputs"))  # type: ignore[return-value]


def without_attention_biases(content: dict[str, Any]) -> None:
    weights = content["encoder_state_dict"]
    assert not weights["fusion.cross_attention.in_proj_bias"].all()
    for name in ("in_proj_bias", "out_proj.bias"):
        del weights[f"fusion.cross_attention.{name}"]


def negated(content: dict[str, Any]) -> None:
    for name in ("gate_alpha", "cross_attention.out_proj.weight", "cross_attention.out_proj.bias"):
        content["encoder_state_dict"][f"fusion.{name}"] *= -1


def prefixed(content: dict[str, Any]) -> None:
    weights = content["encoder_state_dict"]
    content["encoder_state_dict"] = {f"module._orig_mod.{k}": v for k, v in weights.items()}


def bare(content: dict[str, Any]) -> Any:
    return content["encoder_state_dict"]


def separate(content: dict[str, Any]) -> None:
    weights = content["encoder_state_dict"]
    joined = weights.pop("fusion.cross_attention.in_proj_weight")
    for part, tensor in zip("qkv", joined.chunk(3), strict=True):
        weights[f"fusion.cross_attention.{part}_proj_weight"] = tensor


def with_numpy_scalars(content: dict[str, Any]) -> None:
    content.update(best_loss=np.float64(1.5), metrics={"loss": np.float32(1.6)})


SAME_FUNCTION = [lambda content: None, negated, prefixed, bare, separate, with_numpy_scalars]


@pytest.mark.parametrize("change", SAME_FUNCTION)
def test_the_gated_encoder_answers_as_it_did(
    change: Callable[[dict[str, Any]], Any], gated_config: PretrainConfig, tmp_path: Path
) -> None:
    path = rewritten(tmp_path, "gated.pt", change)
    planned(path, gated_config).write(tmp_path / "out")
    encoder = ResourceEncoder.from_pretrained(tmp_path / "out")
    tools, figures, outputs = answers()
    assert (encoder(tools, figures) - outputs).abs().max() < 1e-5
    assert encoder.get_gate_value() > 0.01, "the frozen gate is open"
    assert encoder.options["resource_tokens"] == "summary"
    assert not encoder.options["normalize"]
    assert encoder.encode("r", dict.fromkeys(RESOURCES, 1) | {"input_size": "small"}).shape == (8,)


def test_the_account_of_a_gated_file_is_complete(
    gated_config: PretrainConfig, tmp_path: Path
) -> None:
    migration = planned(FILES / "gated.pt", gated_config)
    found = verbs(migration)
    weights = read_earlier_file(FILES / "gated.pt").weights
    kept = [n for n in weights if not n.startswith("semantic_encoder.llm_model")]
    assert [found[name] for name in kept] == ["carried"] * len(kept)
    assert found["semantic_encoder.llm_model"] == "left out"
    assert found["optimizer_state_dict"] == found["scheduler_state_dict"] == "left out"
    assert [found[n] for n in ("epoch", "global_step", "best_loss", "metrics")] == ["noted"] * 4
    assert (found["model.resource_tokens"], found["model.normalize"]) == ("set", "set")
    migration.write(tmp_path / "out")
    report = (tmp_path / "out" / REPORT_FILE).read_text()
    assert "does not say how the six figures were scaled" in report
    assert all(change.what in report for change in migration.changes)
    files = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert files == [REPORT_FILE, "encoder.json", "encoder.safetensors"]


@pytest.mark.parametrize("name", ["embedding_flat.pt", "embedding_nested.pt"])
def test_an_embedding_attention_file_is_retrained_from_its_mlp(
    name: str, make_config: ConfigMaker, llm: FrozenLLM, inputs: SharedInputs, tmp_path: Path
) -> None:
    config = make_config(training__num_epochs=1)
    out = tmp_path / "out"
    migration = planned(FILES / name, config, out)
    assert verbs(migration)["semantic_embedding"] == "left out"
    assert verbs(migration)["fusion_attention"] == "left out"
    migration.write(out)
    report = (out / REPORT_FILE).read_text()
    assert "Retraining is recommended" in report
    encoder = ResourceEncoder.from_pretrained(out)
    old = read_earlier_file(FILES / name).weights
    for key, tensor in encoder.resource_mlp.state_dict().items():
        assert torch.equal(tensor, old[f"resource_mlp.{key}"].float())
    torch.testing.assert_close(
        encoder.semantic_encoder.tool_semantic_embeddings, torch.from_numpy(inputs.tool_embeddings)
    )
    assert encoder.get_gate_value() == 0.0
    pretraining = Pretraining(config, DeviceInputs(inputs, llm.device), llm)
    assert load_checkpoint(newest_whole(out), pretraining.run) == []
    assert torch.equal(
        pretraining.run.encoder.resource_mlp.fc1.weight, encoder.resource_mlp.fc1.weight
    )
    (report_of_epoch,) = pretraining.reports()
    assert report_of_epoch.epoch == 1


def test_biases_that_were_switched_off_become_zeros(
    gated_config: PretrainConfig, tmp_path: Path
) -> None:
    path = rewritten(tmp_path, "gated.pt", without_attention_biases)
    assert verbs(planned(path, gated_config))["fusion.cross_attention.in_proj_bias"] == "filled"


def edit(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        weights = content["encoder_state_dict"]
        weights.pop(name, None) if value is None else weights.update({name: value})

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit("fusion.layer_norm.weight", None), "has no `fusion.layer_norm.weight`"),
        (edit("fusion.extra.weight", torch.ones(2)), "has `fusion.extra.weight`, which this"),
        (edit("resource_mlp.fc1.weight", torch.ones(512, 4)), r"\[512, 4\], but \[512, 6\]"),
        (edit("resource_mlp.fc1.weight", None), "no `resource_mlp.fc1.weight`"),
        (edit("fusion.gate_alpha", None), "of no earlier encoder"),
        (
            edit("semantic_encoder.tool_semantic_embeddings", torch.ones(2, 8)),
            "of 2 tools, but `data.tool_registry` lists 3",
        ),
        (lambda content: [1, 2], "holds a list"),
        (lambda content: content.update(args=Path("x")), r"more than tensors.*pathlib"),
        (lambda content: content.update(encoder=content["encoder_state_dict"]), None),
        (
            lambda content: {
                "a": content["encoder_state_dict"],
                "b": content["encoder_state_dict"],
            },
            "below a., b.",
        ),
    ],
)
def test_what_cannot_be_migrated_is_refused(
    change: Callable[[dict[str, Any]], Any],
    message: str | None,
    gated_config: PretrainConfig,
    tmp_path: Path,
) -> None:
    path = rewritten(tmp_path, "gated.pt", change)
    if message is None:
        assert verbs(planned(path, gated_config))["encoder"] == "left out"
        return
    with pytest.raises(CheckpointError, match=message):
        planned(path, gated_config)


def test_another_hidden_size_is_refused(make_config: ConfigMaker) -> None:
    with pytest.raises(CheckpointError, match=r"hidden size of 8, but that of .* is 32"):
        planned(FILES / "gated.pt", make_config(model__num_attention_heads=2))
    with pytest.raises(CheckpointError, match=r"fc2.weight` has the shape \[32, 512\], but \[16"):
        planned(FILES / "embedding_flat.pt", make_config(model__d_resource=16))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"{}"])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"old\.pt"):
        read_earlier_file(path)
    with pytest.raises(CheckpointError, match="is a file; give the directory"):
        ResourceEncoder.from_pretrained(path)
