"""The earlier architecture: its fusion by the textbook, its frozen stream, its life as a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.conftest import CPU, ConfigMaker
from trainables.config import PretrainConfig
from trainables.errors import CheckpointError
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.frozen import FrozenLLM
from trainables.models.embedding_attention import EmbeddingAttentionEncoder
from trainables.models.features import RESOURCES, FeatureStatistics
from trainables.models.resource_encoder import ResourceEncoder
from trainables.training.batches import DeviceInputs
from trainables.training.checkpoint import load_checkpoint, save_checkpoint
from trainables.training.pretraining import Pretraining
from trainables.training.run import Run
from trainables.training.step import train_step

D, T, B = 32, 3, 5
NAMES = ("first", "second", "third")


def make_encoder(heads: int = 4) -> EmbeddingAttentionEncoder:
    torch.manual_seed(0)
    statistics = FeatureStatistics((0.5,) * 6, (2.0,) * 6)
    return EmbeddingAttentionEncoder(
        NAMES, torch.randn(T, D), num_attention_heads=heads, feature_statistics=statistics
    ).eval()


def some_input() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.tensor([0, 1, 2, 0, 1]), torch.randn(B, len(RESOURCES), generator=generator)


def naive(encoder: EmbeddingAttentionEncoder, tool: int, features: Tensor) -> Tensor:
    """One row, one head, one of both tokens at a time."""
    attention, norm = encoder.fusion_attention, encoder.fusion_norm
    tokens = [encoder.semantic_embedding.weight[tool], encoder.resource_mlp(features)]
    w_q, w_k, w_v = attention.in_proj_weight.chunk(3)
    b_q, b_k, b_v = attention.in_proj_bias.chunk(3)
    size = D // attention.num_heads
    summed = torch.zeros(D)
    for token in tokens:
        heads = []
        for h in range(attention.num_heads):
            part = slice(h * size, (h + 1) * size)
            query = w_q[part] @ token + b_q[part]
            scores = [(w_k[part] @ t + b_k[part]) @ query / size**0.5 for t in tokens]
            values = [w_v[part] @ t + b_v[part] for t in tokens]
            weights = torch.softmax(torch.stack(scores), dim=0)
            heads.append(weights[0] * values[0] + weights[1] * values[1])
        summed = summed + token + attention.out_proj(torch.cat(heads))
    mean = summed / 2
    normed = (mean - mean.mean()) / (mean.var(unbiased=False) + norm.eps).sqrt()
    return normed * norm.weight + norm.bias


@pytest.mark.parametrize("heads", [1, 4])
def test_the_fusion_equals_the_naive_version(heads: int) -> None:
    encoder = make_encoder(heads)
    tools, features = some_input()
    rows = [naive(encoder, int(t), f) for t, f in zip(tools, features, strict=True)]
    torch.testing.assert_close(encoder(tools, features), torch.stack(rows), rtol=1e-4, atol=1e-5)


def test_heads_matter() -> None:
    one, eight = (make_encoder(heads)(*some_input()) for heads in (1, 8))
    assert not torch.allclose(one, eight, atol=1e-4)


def test_everything_but_the_semantic_stream_is_trained() -> None:
    encoder = make_encoder()
    encoder(*some_input()).pow(3).sum().backward()
    untrained = {name for name, p in encoder.named_parameters() if p.grad is None}
    assert untrained == {"semantic_embedding.weight"}
    assert not encoder.has_gate
    assert encoder.get_gate_value() == 0.0


def test_its_weights_have_the_names_of_earlier_checkpoints() -> None:
    modules = {name.split(".")[0] for name in make_encoder().state_dict()}
    assert modules == {"semantic_embedding", "resource_mlp", "fusion_attention", "fusion_norm"}


def test_a_name_is_the_mean_of_its_tokens_in_the_input_layer(llm: FrozenLLM) -> None:
    names = ["r", "grep_logs"]
    table = llm.embed_tokens.weight
    expected = [
        sum(table[i] for i in ids) / len(ids)
        for ids in (llm.tokenizer(name, add_special_tokens=False)["input_ids"] for name in names)
    ]
    torch.testing.assert_close(llm.mean_input_embeddings(names), torch.stack(expected))


def test_from_pretrained_knows_the_architecture(tmp_path: Path) -> None:
    encoder = make_encoder()
    encoder.save_pretrained(tmp_path)
    loaded = ResourceEncoder.from_pretrained(tmp_path)
    assert isinstance(loaded, EmbeddingAttentionEncoder)
    figures = dict(zip(RESOURCES, ("medium", 4, 16, 50, 8, 120.5), strict=True))
    assert torch.equal(loaded.encode("second", figures), encoder.encode("second", figures))


@pytest.fixture
def config(make_config: ConfigMaker) -> PretrainConfig:
    return make_config(model__architecture="embedding_attention", model__dropout=0.2)


def test_no_gradient_and_no_change_reaches_llm_or_semantic_stream(
    config: PretrainConfig, llm: FrozenLLM, inputs: SharedInputs
) -> None:
    run = Run(config, DeviceInputs(inputs, CPU))
    run.start_epoch()
    before = {k: v.clone() for k, v in run.encoder.state_dict().items()}
    for _ in range(3):
        assert train_step([run], llm) == {}
    assert all(p.grad is None for p in llm.model.parameters())
    same = {k for k, v in run.encoder.state_dict().items() if torch.equal(v, before[k])}
    assert same == {"semantic_embedding.weight"}
    assert run.series.column("gate_alpha") == run.series.column("gate_grad_norm") == [0.0] * 3


def test_resume_is_bit_equal_to_never_having_stopped(
    config: PretrainConfig, llm: FrozenLLM, inputs: SharedInputs, tmp_path: Path
) -> None:
    expected = [r.series["loss"] for r in Pretraining(config, inputs, llm).reports()]
    first = Pretraining(config, inputs, llm)
    next(first.reports())
    path = save_checkpoint(tmp_path, first.run, [])
    second = Pretraining(config, inputs, llm)
    load_checkpoint(path, second.run)
    assert [r.series["loss"] for r in second.reports()] == expected[1:]


def test_a_checkpoint_of_the_other_architecture_is_refused(
    config: PretrainConfig, make_config: ConfigMaker, inputs: SharedInputs, tmp_path: Path
) -> None:
    path = save_checkpoint(tmp_path, Run(config, DeviceInputs(inputs, CPU)), [])
    gated = Run(make_config(model__dropout=0.2), DeviceInputs(inputs, CPU))
    with pytest.raises(CheckpointError, match=r"`model\.architecture` = 'embedding_attention'"):
        load_checkpoint(path, gated)
