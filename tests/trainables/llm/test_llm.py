"""The frozen LLM: losses against a naive version, no gradients inside, families and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import masking_utils

from tests.conftest import CPU, ConfigMaker, write_llm
from trainables.config import EMBEDDED_DIR
from trainables.errors import DataError, LLMError
from trainables.inputs.checked_data import read_data
from trainables.inputs.preparing import embed_tools, prepare_inputs
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.frozen import PROMPTS_PER_PASS, FrozenLLM
from trainables.llm.location import llm_fingerprint
from trainables.training.batches import DeviceInputs
from trainables.training.pretraining import Pretraining


def naive_loss(llm: FrozenLLM, soft: Tensor, tokens: Tensor) -> Tensor:
    """One text, unpadded, logits at every position."""
    embedded = llm.embed_tokens(tokens.unsqueeze(0))
    inputs = torch.cat([soft.reshape(1, 1, -1), embedded], dim=1)
    logits = llm.model(inputs_embeds=inputs).logits[0, :-1]
    return nn.functional.cross_entropy(logits, tokens.long(), reduction="sum")


def test_loss_of_a_padded_batch_equals_the_naive_loss(llm: FrozenLLM, inputs: SharedInputs) -> None:
    device_inputs = DeviceInputs(inputs, CPU)
    batch = device_inputs.batch(torch.tensor([0, 20, 40]), torch.tensor([0, 1, 3]))
    assert len(set(batch.counts.tolist())) > 1, "the batch must have padding"
    soft = torch.randn(3, llm.hidden_size, requires_grad=True)
    losses = llm.token_losses(soft, batch.token_ids, batch.counts)
    naive = [
        naive_loss(llm, s, t[:n])
        for s, t, n in zip(soft, batch.token_ids, batch.counts, strict=True)
    ]
    sums = torch.stack([part.sum() for part in losses.split(batch.counts.tolist())])
    torch.testing.assert_close(sums, torch.stack(naive), rtol=1e-4, atol=1e-3)
    gradient = torch.autograd.grad(losses.sum(), soft, retain_graph=True)[0]
    expected = torch.autograd.grad(torch.stack(naive).sum(), soft)[0]
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4)


def test_no_pass_looks_for_several_texts_in_a_row(
    llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait for a GPU in every step; outside, transformers finds its function again."""
    looked: list[Tensor] = []
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", looked.append)
    tokens = torch.tensor([[5, 6, 7]], dtype=torch.int32)
    llm.token_losses(torch.randn(1, llm.hidden_size), tokens, torch.tensor([3]))
    assert not looked
    llm.body(inputs_embeds=torch.randn(1, 3, llm.hidden_size), use_cache=False)
    assert looked, "transformers looks in another way now"


def test_no_gradient_reaches_the_llm(llm: FrozenLLM) -> None:
    soft = torch.randn(1, llm.hidden_size, requires_grad=True)
    tokens = torch.tensor([[5, 6, 7]], dtype=torch.int32)
    llm.token_losses(soft, tokens, torch.tensor([3])).sum().backward()
    assert soft.grad is not None
    assert all(p.grad is None and not p.requires_grad for p in llm.model.parameters())


def test_tool_states_do_not_depend_on_the_batch(llm: FrozenLLM) -> None:
    prompts = ["Tool: a", "Tool: something\nDescription: much longer than the other one"]
    together = llm.last_token_states(prompts)
    alone = torch.cat([llm.last_token_states([prompt]) for prompt in prompts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    ids = llm.tokenizer(prompts[0], return_tensors="pt")["input_ids"]
    by_hand = llm.model(ids, output_hidden_states=True).hidden_states[-1][0, -1]
    torch.testing.assert_close(together[0], by_hand, rtol=1e-4, atol=1e-5)


def test_reading_many_tools_can_be_interrupted(llm: FrozenLLM) -> None:
    passes: list[int] = []

    def interrupt() -> None:
        passes.append(1)
        if len(passes) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        llm.last_token_states(["Tool: a"] * (PROMPTS_PER_PASS + 1), interrupt)


@pytest.mark.parametrize(
    ("family", "shard"), [("qwen2", "20KB"), ("llama", "5GB"), ("gpt2", "5GB")]
)
def test_hugging_face_directories_train(
    family: str, shard: str, tmp_path: Path, make_config: ConfigMaker
) -> None:
    directory = write_llm(tmp_path / family, family, shard)
    shards = len(list(directory.glob("*.safetensors")))
    assert shards > 1 if family == "qwen2" else shards == 1
    config = make_config(
        model__llm_model=str(directory), training__learning_rate=0.01, training__num_epochs=4
    )
    llm = FrozenLLM.load(config.model, CPU, torch.float32)
    pretraining = Pretraining(config, prepare_inputs(llm, read_data(config)), llm)
    losses = [report.metrics["train_loss"] for report in pretraining.reports()]
    assert losses[-1] < losses[0] - 0.05


def test_logits_that_are_scaled_after_the_head_are_respected(tmp_path: Path) -> None:
    """Gemma 2 caps its logits; taking the head alone would be another loss."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, final_logit_softcapping=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(config)
    model.lm_head.weight.data.normal_()
    llm = FrozenLLM(model, tmp_path, {})
    soft, tokens = torch.randn(1, 32), torch.tensor([[5, 9, 7]], dtype=torch.int32)
    losses = llm.token_losses(soft, tokens, torch.tensor([3]))
    torch.testing.assert_close(losses.sum(), naive_loss(llm, soft[0], tokens[0]))


def test_an_id_that_cannot_be_had_says_how_to_get_it(
    make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = make_config(model__llm_model="nobody/no-such-model")
    with pytest.raises(LLMError, match="hf download nobody/no-such-model --cache-dir"):
        FrozenLLM.load(config.model, CPU, torch.float32)


def test_a_hub_cache_is_found_without_a_network(
    tmp_path: Path, make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    commit = "0" * 40
    repository = tmp_path / "cache" / "models--someone--tiny"
    write_llm(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    config = make_config(model__llm_model="someone/tiny", model__cache_dir=str(tmp_path / "cache"))
    assert FrozenLLM.load(config.model, CPU, torch.float32).hidden_size == 32


def test_embeddings_are_cached_by_weights_and_prompts(
    make_config: ConfigMaker, tmp_path: Path
) -> None:
    config = make_config()
    llm = FrozenLLM.load(config.model, CPU, torch.float32)
    tools = read_data(config).tools
    first = embed_tools(llm, config, tools, lambda line: None)
    said: list[str] = []
    llm.last_token_states = None  # type: ignore[assignment,method-assign]
    second = embed_tools(llm, config, tools, said.append)
    assert (first == second).all()
    assert len(said) == len(tools)
    assert all("cache" in line for line in said)
    with pytest.raises(TypeError):  # another description is another entry
        embed_tools(llm, config, tools[:2], said.append)


def test_fingerprint_follows_the_weights(tmp_path: Path) -> None:
    before = llm_fingerprint(write_llm(tmp_path / "a"))
    assert before == llm_fingerprint(write_llm(tmp_path / "b"))
    path = tmp_path / "b" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert before != llm_fingerprint(tmp_path / "b")


def test_the_embedded_llm_is_small() -> None:
    size = sum(path.stat().st_size for path in EMBEDDED_DIR.iterdir())
    assert size < 8 * 2**20


def test_a_description_longer_than_the_llm_reads_is_named(llm: FrozenLLM) -> None:
    llm.model.config.max_position_embeddings = 40
    with pytest.raises(DataError, match=r"`Tool: b` has \d+ tokens, but the LLM reads at most 40"):
        llm.last_token_states(["Tool: a", "Tool: b\n" + "very long " * 9])
