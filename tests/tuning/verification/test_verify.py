"""``verify``: all in order as shipped, and each sabotage turns exactly its own line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import write_data
from trainables.config import DEFAULT_CONFIG, load_config
from trainables.llm import frozen
from trainables.models.gated_fusion import GatedFusion
from trainables.models.semantic_encoder import SemanticEncoder
from trainables.training import run, step
from tuning.cli import main
from tuning.commands.verify import MODULES
from tuning.verification.run import CHECKS, verify

PARTS = ("semantic_encoder", "resource_mlp", "gated_fusion", "encoder", "loss", "checkpoint")
Patch = pytest.MonkeyPatch


def lines(modules: Sequence[str]) -> list[str]:
    said: list[str] = []
    holds = verify(modules, load_config(DEFAULT_CONFIG), said.append)
    assert holds == all(line.startswith("✓") for line in said[:-1])
    return said


def after_init(patch: Patch, cls: type, change: Callable[[Any], None]) -> None:
    original = cls.__init__  # type: ignore[misc]

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        change(self)

    patch.setattr(cls, "__init__", init)


def open_gate(patch: Patch) -> None:
    after_init(patch, GatedFusion, lambda fusion: fusion.gate_alpha.data.fill_(0.5))


def trainable_semantics(patch: Patch) -> None:
    def change(stream: SemanticEncoder) -> None:
        table = stream.tool_semantic_embeddings
        del stream.tool_semantic_embeddings
        stream.tool_semantic_embeddings = nn.Parameter(table.clone())

    after_init(patch, SemanticEncoder, change)


def first_token(patch: Patch) -> None:
    patch.setattr(frozen, "last_token_state", lambda hidden, mask: hidden[:, 0])


def gate_stays_below(patch: Patch) -> None:
    patch.setattr(run, "keep_gate_upward", lambda encoder, optimizer: None)


def gate_turned_alone(patch: Patch) -> None:
    patch.setattr(
        run, "keep_gate_upward", lambda encoder, optimizer: encoder.fusion.gate_alpha.data.abs_()
    )


def resources_ignored(patch: Patch) -> None:
    original = GatedFusion.forward

    def forward(self: GatedFusion, semantic: Tensor, resource: Tensor) -> Tensor:
        constant = torch.linspace(-1, 1, resource.numel() // len(resource))
        return original(self, semantic, constant.view(resource.shape[1:]).expand_as(resource))

    patch.setattr(GatedFusion, "forward", forward)


def llm_trainable(patch: Patch) -> None:
    after_init(patch, frozen.FrozenLLM, lambda llm: llm.model.requires_grad_(True))


def mean_over_padding(patch: Patch) -> None:
    original = step._backward

    def backward(runs: Any, batches: Any, llm: Any, shard: Any) -> list[Tensor]:
        means = original(runs, batches, llm, shard)
        shares = [batch.counts.sum() / batch.token_ids.numel() for batch in batches]
        return [mean * share for mean, share in zip(means, shares, strict=True)]

    patch.setattr(step, "_backward", backward)


SABOTAGES = [
    (open_gate, "gated_fusion", "the gate starts at 0", "α starts at 0.5; make `gate_alpha` of"),
    (trainable_semantics, "semantic_encoder", "nothing in it", "trainable: tool_semantic_emb"),
    (first_token, "semantic_encoder", "the last real token", "take the hidden state at the last"),
    (gate_stays_below, "gated_fusion", "an α that has gone", "α is -0.3 after a step from -0.3"),
    (gate_turned_alone, "gated_fusion", "an α that has gone", "the output after turning α differs"),
    (resources_ignored, "gated_fusion", "other resources give", "give the same output; take keys"),
    (llm_trainable, "loss", "the LLM is frozen", "of the LLM's tensors are trainable; call"),
    (mean_over_padding, "loss", "a step's loss is the mean", "padding must not count"),
]


@pytest.mark.parametrize(
    ("sabotage", "module", "claim", "found"), SABOTAGES, ids=[s[0].__name__ for s in SABOTAGES]
)
def test_each_sabotage_turns_exactly_its_line(
    sabotage: Callable[[Patch], None],
    module: str,
    claim: str,
    found: str,
    monkeypatch: Patch,
) -> None:
    sabotage(monkeypatch)
    *checks, total = lines(PARTS)
    (wrong,) = (line for line in checks if line.startswith("✗"))
    assert wrong.startswith(f"✗ {module:<16} {claim}")
    assert found in wrong
    assert total.startswith(f"{len(checks) - 1} of {len(checks)} checks hold")


def test_a_part_that_breaks_down_is_one_line_among_others(monkeypatch: Patch) -> None:
    def forward(self: GatedFusion, semantic: Tensor, resource: Tensor) -> Tensor:
        raise RuntimeError("mat1 and mat2\nshapes cannot be multiplied")

    monkeypatch.setattr(GatedFusion, "forward", forward)
    *checks, _ = lines(["resource_mlp", "gated_fusion"])
    assert [line[0] for line in checks] == ["✓", "✓", "✓", "✗", "✗", "✗", "✗"]
    assert all("\n" not in line for line in checks)
    assert "RuntimeError: mat1 and mat2 shapes" in checks[3]


def test_all_is_in_order_as_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", *(name for name in MODULES if name != "object_store")]) == 0
    *checks, total = capsys.readouterr().out.splitlines()
    assert all(line.startswith("✓ ") for line in checks)
    assert total.startswith(f"{len(checks)} of {len(checks)} checks hold")
    assert len(checks) == sum(map(len, CHECKS.values())) - len(CHECKS["object_store"])
    assert tuple(CHECKS) == MODULES


def test_llm_and_data_are_those_of_the_configuration(
    tmp_path: Path, llm_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(tmp_path)
    settings = {
        "model.llm_model": llm_dir,
        "model.cache_dir": tmp_path / "hub",
        "model.num_attention_heads": 5,
        "data.tool_registry": tmp_path / "tools.json",
        "data.profiling_data": tmp_path / "missing.csv",
    }
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    assert main(["verify", "data", "llm", *sets]) == 1
    llm, heads, loaded, registry, table, _ = capsys.readouterr().out.splitlines()
    assert "hidden size 32" in llm
    assert heads.startswith("✗ llm")
    assert "is 5, but must divide the LLM's hidden size 32: 1, 2, 4" in heads
    assert loaded.startswith("✓")
    assert "3 tools" in registry
    assert "missing.csv: no such file" in table


def test_a_misspelt_module_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "gated_fusoin"]) == 2
    assert "(did you mean `gated_fusion`?)" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_the_object_store_gives_back_what_was_put(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "object_store"]) == 0
    assert capsys.readouterr().out.startswith("✓ object_store")
