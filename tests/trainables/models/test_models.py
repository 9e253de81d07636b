"""Fusion, pooling, encoder: against naive versions and the properties that training relies on."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trainables.errors import CheckpointError
from trainables.models.embedding_attention import EmbeddingAttentionEncoder
from trainables.models.encoder import Encoder
from trainables.models.features import RESOURCES, FeatureStatistics, raw_features
from trainables.models.gated_fusion import GatedFusion, unit_rms
from trainables.models.resource_encoder import ResourceEncoder
from trainables.models.semantic_encoder import last_token_state

D, T, B = 32, 3, 5
FIGURE_VALUES = ("medium", 4, 16, 50, 8, 120.5)
NAMES = ("first", "second", "third")


def make_encoder(**options: object) -> ResourceEncoder:
    torch.manual_seed(0)
    return ResourceEncoder(NAMES, torch.randn(T, D), **options).eval()  # type: ignore[arg-type]


def some_input() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.tensor([0, 1, 2, 0, 1]), torch.randn(B, len(RESOURCES), generator=generator)


def naive_fusion(fusion: GatedFusion, semantic: Tensor, resource: Tensor) -> Tensor:
    """One batch row and one head at a time, by the textbook."""
    attention = fusion.cross_attention
    assert attention.in_proj_weight is not None
    w_q, w_k, w_v = attention.in_proj_weight.chunk(3)
    b_q, b_k, b_v = attention.in_proj_bias.chunk(3)
    size = D // attention.num_heads
    rows = []
    for e, tokens in zip(semantic, resource, strict=True):
        e = e / e.pow(2).mean().sqrt()
        heads = []
        for h in range(attention.num_heads):
            part = slice(h * size, (h + 1) * size)
            query = w_q[part] @ e + b_q[part]
            keys = tokens @ w_k[part].T + b_k[part]
            values = tokens @ w_v[part].T + b_v[part]
            heads.append(torch.softmax(keys @ query / size**0.5, dim=0) @ values)
        a = attention.out_proj(torch.cat(heads))
        a = a / a.pow(2).mean().sqrt()
        mixed = e + fusion.gate_alpha * a
        normed = (mixed - mixed.mean()) / (mixed.var(unbiased=False) + 1e-5).sqrt()
        rows.append(normed * fusion.layer_norm.weight + fusion.layer_norm.bias)
    return torch.stack(rows)


@pytest.mark.parametrize("heads", [1, 4])
def test_fusion_equals_the_naive_version(heads: int) -> None:
    torch.manual_seed(0)
    fusion = GatedFusion(D, heads, dropout=0.0, d_resource=D, normalize=True).eval()
    fusion.gate_alpha.data.fill_(0.7)
    semantic, resource = torch.randn(B, D), torch.randn(B, 7, D)
    torch.testing.assert_close(
        fusion(semantic, resource), naive_fusion(fusion, semantic, resource), rtol=1e-3, atol=1e-4
    )


def test_gate_starts_at_zero_and_lets_only_semantics_through() -> None:
    encoder = make_encoder()
    assert encoder.get_gate_value() == 0.0
    tools, features = some_input()
    semantic = encoder.semantic_encoder(tools)
    torch.testing.assert_close(
        encoder(tools, features), nn.functional.layer_norm(unit_rms(semantic), (D,))
    )


@pytest.mark.parametrize(("tokens", "matter"), [("features", True), ("summary", False)])
def test_heads_matter_only_with_several_resource_tokens(tokens: str, matter: bool) -> None:
    """The softmax over a single key is 1, whatever the heads."""
    outputs = []
    for heads in (1, 8):
        encoder = make_encoder(resource_tokens=tokens, num_attention_heads=heads)
        encoder.fusion.gate_alpha.data.fill_(0.5)
        outputs.append(encoder(*some_input()))
    assert torch.allclose(*outputs, atol=1e-6) is not matter


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("d_resource", [None, 24])
def test_every_trainable_parameter_gets_a_gradient(normalize: bool, d_resource: int | None) -> None:
    encoder = make_encoder(normalize=normalize, d_resource=d_resource)
    encoder.fusion.gate_alpha.data.fill_(0.5)
    encoder(*some_input()).pow(3).sum().backward()
    assert all(p.grad is not None for p in encoder.get_trainable_parameters())
    assert not encoder.semantic_encoder.tool_semantic_embeddings.requires_grad


def several(soft_tokens: int = 4, **options: object) -> ResourceEncoder:
    return make_encoder(num_soft_tokens=soft_tokens, num_attention_heads=4, **options)


@pytest.mark.parametrize("normalize", [True, False])
def test_several_soft_tokens_are_all_the_tool_while_the_gate_is_closed(normalize: bool) -> None:
    encoder = several(normalize=normalize)
    tools, features = some_input()
    soft = encoder(tools, features)
    assert soft.shape == (B, 4, D)
    alone = make_encoder(normalize=normalize)(tools, features)
    torch.testing.assert_close(soft, alone.unsqueeze(1).expand(B, 4, D))
    encoder.fusion.gate_alpha.data.fill_(0.5)
    opened = encoder(tools, features)
    apart = (opened[:, 1:] - opened[:, :1]).abs().amax(dim=(0, 2))
    assert apart.min() > 0.01, "two of them are the same"


def test_each_of_several_outputs_is_the_fusion_with_its_own_query_and_projection() -> None:
    torch.manual_seed(0)
    fusion = GatedFusion(D, 4, 0.0, D, normalize=True, num_outputs=3).eval()
    fusion.gate_alpha.data.fill_(0.7)
    fusion.slot_residuals.data.normal_()
    fusion.slot_biases.data.normal_()
    semantic, resource = torch.randn(B, D), torch.randn(B, 7, D)
    soft = fusion(semantic, resource)
    base = unit_rms(semantic)
    for s in range(3):
        query = (base + fusion.slot_queries[s]).unsqueeze(1)
        attended = fusion.cross_attention(query, resource, resource)[0].squeeze(1)
        attended = unit_rms(attended @ fusion.slot_projections[s].T + fusion.slot_biases[s])
        mixed = base + fusion.slot_residuals[s] + 0.7 * attended
        torch.testing.assert_close(soft[:, s], fusion.layer_norm(mixed))


@pytest.mark.parametrize("soft_tokens", [1, 3])
def test_the_mirror_changes_no_output(soft_tokens: int) -> None:
    encoder = several(soft_tokens)
    encoder.fusion.gate_alpha.data.fill_(0.5)
    before = encoder(*some_input())
    for parameter in encoder.mirrored:
        parameter.data.neg_()
    assert encoder.get_gate_value() == -0.5
    torch.testing.assert_close(encoder(*some_input()), before)


def test_every_parameter_of_several_soft_tokens_learns() -> None:
    encoder = several()
    encoder.fusion.gate_alpha.data.fill_(0.5)
    encoder(*some_input()).pow(3).sum().backward()
    still = [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not still


def test_one_soft_token_is_written_as_before_there_was_a_choice(tmp_path: Path) -> None:
    encoder = make_encoder()
    encoder.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "encoder.json").read_text())
    assert "prompt" not in config
    assert "num_soft_tokens" not in config["options"]
    assert not [name for name in encoder.state_dict() if "slot" in name]


def test_what_generate_takes_stands_between_the_parts_of_the_prompt(tmp_path: Path) -> None:
    statistics = FeatureStatistics((0.5,) * 6, (2.0,) * 6)
    encoder = several(3, feature_statistics=statistics)
    encoder.fusion.gate_alpha.data.fill_(0.5)
    encoder.prompt = ((5, 6), (7,))
    encoder.save_pretrained(tmp_path)
    loaded = Encoder.from_pretrained(tmp_path)
    assert loaded.prompt == encoder.prompt
    figures = dict(zip(RESOURCES, FIGURE_VALUES, strict=True))
    soft = loaded.encode("second", figures)
    assert soft.shape == (3, D)
    assert torch.equal(soft, encoder.encode("second", figures))
    llm = nn.Module()
    llm.table = nn.Embedding(9, D)  # type: ignore[assignment]
    llm.get_input_embeddings = lambda: llm.table  # type: ignore[assignment]
    rows = llm.table.weight
    expected = torch.cat([rows[5:7], soft, rows[7:8]])
    assert torch.equal(loaded.inputs_embeds(llm, "second", figures)[0], expected)


def test_the_earlier_name_of_the_embeddings_says_where_they_are() -> None:
    with pytest.raises(AttributeError, match=r"encoder\.semantic_encoder"):
        _ = make_encoder().semantic_embedding


@pytest.mark.parametrize("side", ["left", "right"])
def test_last_token_state_finds_the_last_real_token(side: str) -> None:
    hidden = torch.randn(3, 6, D)
    lengths = (6, 1, 4)
    mask = torch.zeros(3, 6, dtype=torch.long)
    expected = []
    for row, length in enumerate(lengths):
        real = range(length) if side == "right" else range(6 - length, 6)
        mask[row, list(real)] = 1
        expected.append(hidden[row, real[-1]])
    torch.testing.assert_close(last_token_state(hidden, mask), torch.stack(expected))


def test_features_are_logarithms_standardised_over_the_table() -> None:
    rows = [raw_features(dict(zip(RESOURCES, FIGURE_VALUES, strict=True)))]
    rows.append([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    matrix = torch.tensor(rows, dtype=torch.float64).numpy()
    assert rows[0][0] == 1.0
    assert rows[0][5] == pytest.approx(4.80, abs=0.01)
    standardised = FeatureStatistics.of(matrix).standardise(matrix)
    assert standardised.mean(axis=0) == pytest.approx(0, abs=1e-6)
    assert standardised.std(axis=0) == pytest.approx(1, abs=1e-5)


def test_a_feature_that_never_varies_stays_finite() -> None:
    matrix = torch.ones(4, 6, dtype=torch.float64).numpy()
    assert FeatureStatistics.of(matrix).standardise(matrix).tolist() == [[0.0] * 6] * 4


def test_from_pretrained_gives_the_same_encoder(tmp_path: Path) -> None:
    statistics = FeatureStatistics((0.5,) * 6, (2.0,) * 6)
    encoder = make_encoder(feature_statistics=statistics, num_attention_heads=4, d_resource=16)
    encoder.fusion.gate_alpha.data.fill_(0.3)
    encoder.save_pretrained(tmp_path)
    loaded = ResourceEncoder.from_pretrained(tmp_path)
    figures = dict(zip(RESOURCES, FIGURE_VALUES, strict=True))
    assert torch.equal(loaded.encode("second", figures), encoder.encode("second", figures))
    with pytest.raises(ValueError, match="did you mean `second`"):
        loaded.encode("secnd", figures)


def test_a_tool_is_found_by_its_name_in_either_unicode_form() -> None:
    statistics = FeatureStatistics((0.5,) * 6, (2.0,) * 6)
    names = ("first", "détecteur", "third")
    encoder = ResourceEncoder(names, torch.randn(T, D), feature_statistics=statistics).eval()
    figures = dict(zip(RESOURCES, FIGURE_VALUES, strict=True))
    decomposed = unicodedata.normalize("NFD", names[1])
    assert torch.equal(encoder.encode(decomposed, figures), encoder.encode(names[1], figures))


def test_reading_a_checkpoint_leaves_the_shared_embeddings_as_they_are() -> None:
    """They may be a view of the object store, which all trials of a machine read."""
    shared = torch.randn(T, D)
    before = shared.clone()
    encoder = ResourceEncoder(NAMES, shared)
    encoder.load_state_dict({k: torch.ones_like(v) for k, v in encoder.state_dict().items()})
    assert encoder.semantic_embeddings.eq(1).all()
    assert torch.equal(shared, before)


def test_from_pretrained_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"encoder\.json"):
        ResourceEncoder.from_pretrained(tmp_path)


def test_every_class_of_encoder_loads_what_the_directory_holds(tmp_path: Path) -> None:
    """The cards of exports name `ResourceEncoder` or, today, `Encoder`."""
    make_encoder().save_pretrained(tmp_path)
    for made in (Encoder, ResourceEncoder, EmbeddingAttentionEncoder):
        assert type(made.from_pretrained(tmp_path)) is ResourceEncoder
