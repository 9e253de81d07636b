"""Writes earlier_files/: ``python -m tests.assets.make_earlier_files``.

The two encoders are written out here as the earlier releases had them, independent of ours. The
gated one's answers to fixed figures are recorded beside its file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

DIRECTORY = Path(__file__).with_name("earlier_files")
TOOLS, VOCAB, RESOURCES = 3, 40, 6
D_GATED = 8
D_EMBEDDING = 32  # of the tests' small LLM


class EarlierResourceMLP(nn.Module):
    def __init__(self, d_resource: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(RESOURCES, 512)
        self.fc2 = nn.Linear(512, d_resource)

    def forward(self, figures: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(figures)))


class EmbeddingAttentionEncoder(nn.Module):
    """Mean of the tool name's input embeddings; both streams attend to each other; a norm."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.semantic_embedding = nn.Embedding(VOCAB, hidden_size)
        self.register_buffer("tool_token_ids", torch.randint(VOCAB, (TOOLS, 4)))
        self.resource_mlp = EarlierResourceMLP(hidden_size)
        self.fusion_attention = nn.MultiheadAttention(hidden_size, 4, batch_first=True)
        self.fusion_norm = nn.LayerNorm(hidden_size)

    def forward(self, tool: Tensor, figures: Tensor) -> Tensor:
        semantic = self.semantic_embedding(self.tool_token_ids[tool]).mean(dim=1)
        streams = torch.stack([semantic, self.resource_mlp(figures)], dim=1)
        attended, _ = self.fusion_attention(streams, streams, streams)
        return self.fusion_norm(streams + attended).mean(dim=1)


class EarlierSemanticEncoder(nn.Module):
    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.register_buffer("tool_semantic_embeddings", torch.randn(TOOLS, hidden_size))
        self.llm_model = nn.Sequential(nn.Embedding(VOCAB, 4), nn.Linear(4, VOCAB))


class EarlierGatedFusion(nn.Module):
    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.gate_alpha = nn.Parameter(torch.tensor([0.0]))
        self.cross_attention = nn.MultiheadAttention(hidden_size, 2, batch_first=True)
        self.layer_norm = nn.LayerNorm(hidden_size)

    def forward(self, semantic: Tensor, resource: Tensor) -> Tensor:
        query, key = semantic.unsqueeze(1), resource.unsqueeze(1)
        attended, _ = self.cross_attention(query, key, key)
        return self.layer_norm(semantic + self.gate_alpha * attended.squeeze(1))


class EarlierGatedEncoder(nn.Module):
    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.semantic_encoder = EarlierSemanticEncoder(hidden_size)
        self.resource_mlp = EarlierResourceMLP(hidden_size)
        self.fusion = EarlierGatedFusion(hidden_size)

    def forward(self, tool: Tensor, figures: Tensor) -> Tensor:
        semantic = self.semantic_encoder.tool_semantic_embeddings[tool]
        return self.fusion(semantic, self.resource_mlp(figures))


def trained(encoder: nn.Module, hidden_size: int) -> torch.optim.Optimizer:
    """A few steps, so that every weight has moved and the optimiser has a state."""
    parameters = [p for n, p in encoder.named_parameters() if "llm_model" not in n]
    optimizer = torch.optim.SGD(parameters, lr=0.3)
    target = torch.randn(TOOLS, hidden_size)
    for _ in range(20):
        optimizer.zero_grad()
        loss = (encoder(torch.arange(TOOLS), torch.randn(TOOLS, RESOURCES)) - target).pow(2).mean()
        loss.backward()
        optimizer.step()
    return optimizer


def nested(flat: dict[str, Tensor]) -> dict[str, Any]:
    """By module: {"resource_mlp": {"fc1.weight": ...}, ...}."""
    modules: dict[str, Any] = {}
    for name, tensor in flat.items():
        module, _, rest = name.partition(".")
        if rest:
            modules.setdefault(module, {})[rest] = tensor
        else:
            modules[module] = tensor
    return modules


def main() -> None:
    torch.manual_seed(0)
    DIRECTORY.mkdir(exist_ok=True)
    gated = EarlierGatedEncoder(D_GATED)
    optimizer = trained(gated, D_GATED)
    content = {
        "epoch": 12,
        "global_step": 340,
        "encoder_state_dict": gated.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler_state_dict": {"last_epoch": 340, "_last_lr": [0.001]},
        "best_loss": 1.52,
        "metrics": {"train_loss": 1.6, "gate_alpha": gated.fusion.gate_alpha.item()},
    }
    torch.save(content, DIRECTORY / "gated.pt")
    tools, figures = torch.tensor([0, 1, 2, 1]), torch.randn(4, RESOURCES)
    answers = gated.eval()(tools, figures)
    recorded = {key: t.tolist() for key, t in (("tools", tools), ("figures", figures))}
    text = json.dumps({**recorded, "outputs": answers.tolist()})
    (DIRECTORY / "gated_answers.json").write_text(text + "\n")
    earlier = EmbeddingAttentionEncoder(D_EMBEDDING)
    trained(earlier, D_EMBEDDING)
    weights = {k: v.half() if v.is_floating_point() else v for k, v in earlier.state_dict().items()}
    torch.save({"encoder_state_dict": weights, "epoch": 7}, DIRECTORY / "embedding_flat.pt")
    torch.save({"encoder_state_dict": nested(weights)}, DIRECTORY / "embedding_nested.pt")


if __name__ == "__main__":
    main()
