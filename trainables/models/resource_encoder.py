"""The resource encoder: tool and resource figures in, one soft token for the LLM out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainables.errors import CheckpointError, did_you_mean
from trainables.models.earlier_files import refusal
from trainables.models.features import NUM_FEATURES, FeatureStatistics, raw_features
from trainables.models.gated_fusion import GatedFusion
from trainables.models.resource_mlp import ResourceMLP
from trainables.models.semantic_encoder import SemanticEncoder

ResourceTokens = Literal["features", "summary"]
WEIGHTS_FILE = "encoder.safetensors"
CONFIG_FILE = "encoder.json"
FORMAT_VERSION = 1


class FeatureTokenizer(nn.Module):
    """One token per feature, ``x_i * w_i + b_i``.

    The numerical tokenizer of FT-Transformer: Gorishniy et al., "Revisiting Deep Learning Models
    for Tabular Data", 2021, section 3.3.
    """

    def __init__(self, d_resource: int) -> None:
        super().__init__()
        bound = d_resource**-0.5
        self.weight = nn.Parameter(torch.empty(NUM_FEATURES, d_resource).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(NUM_FEATURES, d_resource).uniform_(-bound, bound))

    def forward(self, features: Tensor) -> Tensor:
        """features [B, R] -> [B, R, d_resource]."""
        return features.unsqueeze(-1) * self.weight + self.bias


class ResourceEncoder(nn.Module):
    """Semantic stream, resource stream and gated fusion.

    ``resource_tokens="features"`` gives the attention seven tokens (the MLP's summary and one per
    figure), ``"summary"`` the summary alone. ``d_resource=None`` means the hidden size D.
    """

    def __init__(
        self,
        tool_names: Sequence[str],
        tool_semantic_embeddings: Tensor,
        *,
        num_attention_heads: int = 8,
        dropout: float = 0.1,
        d_resource: int | None = None,
        resource_tokens: ResourceTokens = "features",
        normalize: bool = True,
        feature_statistics: FeatureStatistics | None = None,
    ) -> None:
        super().__init__()
        self.semantic_encoder = SemanticEncoder(tool_names, tool_semantic_embeddings)
        hidden_size = self.semantic_encoder.hidden_size
        width = hidden_size if d_resource is None else d_resource
        self.options: dict[str, Any] = {
            "num_attention_heads": num_attention_heads,
            "dropout": dropout,
            "d_resource": d_resource,
            "resource_tokens": resource_tokens,
            "normalize": normalize,
        }
        self.feature_statistics = feature_statistics
        self.resource_mlp = ResourceMLP(width, dropout)
        self.feature_tokenizer = FeatureTokenizer(width) if resource_tokens == "features" else None
        self.fusion = GatedFusion(hidden_size, num_attention_heads, dropout, width, normalize)

    def __getattr__(self, name: str) -> Any:
        if name == "semantic_embedding":
            raise AttributeError(
                "`semantic_embedding` belonged to an earlier architecture; the frozen embeddings "
                "are `encoder.semantic_encoder.tool_semantic_embeddings`"
            )
        return super().__getattr__(name)

    @property
    def hidden_size(self) -> int:
        return self.semantic_encoder.hidden_size

    @property
    def num_tools(self) -> int:
        return len(self.semantic_encoder.tool_names)

    def resource_tokens(self, features: Tensor) -> Tensor:
        """features [B, R] -> [B, S, d_resource] with S = 7 (features) or 1 (summary)."""
        summary = self.resource_mlp(features).unsqueeze(1)
        if self.feature_tokenizer is None:
            return summary
        return torch.cat([summary, self.feature_tokenizer(features)], dim=1)

    def forward(self, tool_index: Tensor, features: Tensor) -> Tensor:
        """tool_index [B], standardised features [B, R] -> soft tokens [B, D]."""
        return self.fusion(self.semantic_encoder(tool_index), self.resource_tokens(features))

    def get_trainable_parameters(self) -> list[nn.Parameter]:
        """Every parameter that training changes; the semantic stream has none."""
        return [p for p in self.parameters() if p.requires_grad]

    def get_gate_value(self) -> float:
        return float(self.fusion.gate_alpha.detach())

    def encode(self, tool: str, figures: Mapping[str, Any]) -> Tensor:
        """The soft token [D] of one tool with its six figures, in evaluation mode."""
        names = self.semantic_encoder.tool_names
        if tool not in names:
            hint = did_you_mean(tool, names) or f"; known: {', '.join(names)}"
            raise ValueError(f"tool `{tool}` is not in this encoder's registry{hint}")
        if self.feature_statistics is None:
            raise ValueError("this encoder carries no feature statistics; pass them when building")
        device = self.fusion.gate_alpha.device
        features = torch.from_numpy(self.feature_statistics.standardise([raw_features(figures)]))
        with torch.no_grad(), evaluating(self):
            index = torch.tensor([names.index(tool)], device=device)
            return self(index, features.to(device))[0]

    def save_pretrained(self, directory: str | Path) -> None:
        """Write weights and configuration so that ``from_pretrained`` finds all it needs."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        save_file(encoder_weights(self), directory / WEIGHTS_FILE)
        statistics = self.feature_statistics
        config = {
            "format_version": FORMAT_VERSION,
            "tool_names": list(self.semantic_encoder.tool_names),
            "hidden_size": self.hidden_size,
            "options": self.options,
            "feature_statistics": statistics.as_dict() if statistics else None,
        }
        (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> ResourceEncoder:
        """Load what ``save_pretrained``, a checkpoint or ``export`` wrote; in evaluation mode."""
        directory = Path(directory)
        if directory.is_file():
            raise refusal(directory)
        try:
            config = json.loads((directory / CONFIG_FILE).read_text())
            weights = load_file(directory / WEIGHTS_FILE)
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{directory}: no `{Path(error.filename or WEIGHTS_FILE).name}` here; give the "
                "directory of a checkpoint or of an export"
            ) from None
        if config["format_version"] != FORMAT_VERSION:
            raise CheckpointError(
                f"{directory}: format version {config['format_version']}, but this release reads "
                f"{FORMAT_VERSION}"
            )
        statistics = config["feature_statistics"]
        encoder = cls(
            config["tool_names"],
            weights["semantic_encoder.tool_semantic_embeddings"],
            feature_statistics=FeatureStatistics.from_dict(statistics) if statistics else None,
            **config["options"],
        )
        encoder.load_state_dict(weights)
        return encoder.eval()


def encoder_weights(encoder: ResourceEncoder) -> dict[str, Tensor]:
    """The state dict on the CPU, contiguous, ready for safetensors."""
    return {k: v.detach().cpu().contiguous() for k, v in encoder.state_dict().items()}


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block, the mode before it afterwards."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
