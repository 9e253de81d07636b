"""What the LLM remembers of the tokens before the soft tokens: the same losses, fewer positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import CPU
from tests.trainables.llm.test_families import written
from trainables.llm.frozen import FrozenLLM
from trainables.llm.place.prefix import Prefix
from trainables.llm.place.prompt import Prompt
from trainables.llm.place.sequences import Rows

BEFORE = tuple(range(40, 70))
PROMPT = Prompt(before=BEFORE, after=(50, 51))
REMEMBERED = ["gpt2", "llama", "qwen2", "gemma2", "gemma3_text", "gpt_neox"]
READ_EACH_TIME = ["mamba", "bamba", "rwkv"]


def some_llm(family: str, directory: Path) -> FrozenLLM:
    return FrozenLLM.load(written(family, directory), CPU, torch.float32)


def some_rows(llm: FrozenLLM) -> Rows:
    generator = torch.Generator().manual_seed(0)
    soft = torch.randn(3, 2, llm.hidden_size, generator=generator).requires_grad_()
    ids = torch.randint(300, (3, 6), generator=generator)
    return Rows(soft, ids, torch.tensor([6, 2, 4]))


def losses_and_gradient(llm: FrozenLLM, rows: Rows) -> tuple[Tensor, Tensor]:
    losses = llm.joint_losses([rows], PROMPT)
    (gradient,) = torch.autograd.grad(losses.sum(), [rows.soft])
    return losses.detach(), gradient


def positions_read(llm: FrozenLLM, rows: Rows) -> int:
    seen: list[int] = []

    def see(module: Any, arguments: Any, given: dict[str, Any]) -> None:
        seen.append(given["inputs_embeds"].shape[1])

    hook = llm.body.register_forward_pre_hook(see, with_kwargs=True)
    try:
        llm.joint_losses([rows], PROMPT)
    finally:
        hook.remove()
    (found,) = seen
    return found


@pytest.mark.parametrize("family", REMEMBERED)
def test_a_step_begins_at_the_first_soft_token(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = some_llm(family, tmp_path)
    rows = some_rows(llm)
    remembered = losses_and_gradient(llm, rows)
    again = losses_and_gradient(llm, rows)
    assert all(map(torch.equal, remembered, again)), "a step has left its trace"
    assert positions_read(llm, rows) == 2 + 2 + 5
    monkeypatch.setattr(llm, "_prefix", lambda ids: None)
    whole = losses_and_gradient(llm, rows)
    assert positions_read(llm, rows) == 30 + 2 + 2 + 5
    for one, other in zip(remembered, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", READ_EACH_TIME)
def test_what_remembers_otherwise_reads_the_whole_sequence(family: str, tmp_path: Path) -> None:
    llm = some_llm(family, tmp_path)
    assert positions_read(llm, some_rows(llm)) == 30 + 2 + 2 + 5


def test_a_model_with_which_the_losses_would_be_others_reads_the_whole_sequence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = some_llm("llama", tmp_path)
    whole = Prefix.for_rows

    def spoilt(self: Prefix, rows: int) -> Any:
        cache = whole(self, rows)
        cache.layers[1].values = cache.layers[1].values * 1.01
        return cache

    monkeypatch.setattr(Prefix, "for_rows", spoilt)
    assert positions_read(llm, some_rows(llm)) == 30 + 2 + 2 + 5


def test_its_tensors_are_shared_by_all_rows(tmp_path: Path) -> None:
    llm = some_llm("llama", tmp_path)
    prefix = Prefix.read(llm.body, torch.tensor(BEFORE))
    assert prefix is not None
    one, many = prefix.for_rows(1), prefix.for_rows(64)
    for layer, other in zip(one.layers, many.layers, strict=True):
        assert other.keys.shape[0] == 64
        assert other.keys.untyped_storage().data_ptr() == layer.keys.untyped_storage().data_ptr()
