"""What every encoder has, whatever its architecture: streams, a soft token, a form on disk."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from trainables.errors import did_you_mean
from trainables.models.features import FeatureStatistics, raw_features
from trainables.models.resource_mlp import ResourceMLP
from trainables.names import comparable

WEIGHTS_FILE = "encoder.safetensors"
CONFIG_FILE = "encoder.json"
FORMAT_VERSION = 1


class Encoder(nn.Module, ABC):
    """A frozen semantic stream and a resource stream, fused into one soft token.

    ``forward(tool_index [B], standardised features [B, R])`` gives soft tokens [B, D]. ``gate`` is
    the fusion's scalar gate; an architecture without one has a constant 0 there.
    """

    architecture: ClassVar[str]
    semantic_entry: ClassVar[str]  # the frozen embeddings' name in the state dict
    gate: Tensor
    resource_mlp: ResourceMLP

    def __init__(
        self,
        tool_names: Sequence[str],
        options: dict[str, Any],
        feature_statistics: FeatureStatistics | None,
    ) -> None:
        super().__init__()
        self.tool_names = tuple(tool_names)
        self.options = options
        self.feature_statistics = feature_statistics

    @property
    @abstractmethod
    def semantic_embeddings(self) -> Tensor:
        """The frozen embedding of every tool, [T, D]."""

    @property
    def mirrored(self) -> tuple[Tensor, ...]:
        """The parameters that can change their sign together without changing the function."""
        return ()

    @property
    def has_gate(self) -> bool:
        return self.gate.requires_grad

    @property
    def hidden_size(self) -> int:
        return self.semantic_embeddings.shape[1]

    @property
    def num_tools(self) -> int:
        return len(self.tool_names)

    def get_trainable_parameters(self) -> list[nn.Parameter]:
        """Every parameter that training changes; the semantic stream has none."""
        return [p for p in self.parameters() if p.requires_grad]

    def get_gate_value(self) -> float:
        return float(self.gate.detach())

    def encode(self, tool: str, figures: Mapping[str, Any]) -> Tensor:
        """The soft token [D] of one tool with its six figures, in evaluation mode."""
        place = self._place_of(tool)
        if self.feature_statistics is None:
            raise ValueError("this encoder carries no feature statistics; pass them when building")
        device = self.semantic_embeddings.device
        features = torch.from_numpy(self.feature_statistics.standardise([raw_features(figures)]))
        with torch.no_grad(), evaluating(self):
            index = torch.tensor([place], device=device)
            return self(index, features.to(device))[0]

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> Encoder:
        """Load what ``save_pretrained``, a checkpoint or ``export`` wrote; in evaluation mode.

        The directory says which architecture it is; every subclass loads all of them, because the
        cards of earlier exports name one of them. Raises CheckpointError for what is not there.
        """
        from trainables.models.loading import load_encoder  # which imports the architectures

        return load_encoder(Path(directory))

    def _place_of(self, tool: str) -> int:
        """In the registry; a name in another Unicode form is the same name."""
        names = list(self.tool_names)
        if tool not in names:
            tool, names = comparable(tool), list(map(comparable, names))
        if tool not in names:
            hint = did_you_mean(tool, names) or f"; known: {', '.join(names)}"
            raise ValueError(f"tool `{tool}` is not in this encoder's registry{hint}")
        return names.index(tool)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write weights and configuration so that ``from_pretrained`` finds all it needs."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        save_file(encoder_weights(self), directory / WEIGHTS_FILE)
        statistics = self.feature_statistics
        config = {
            "format_version": FORMAT_VERSION,
            "architecture": self.architecture,
            "tool_names": list(self.tool_names),
            "hidden_size": self.hidden_size,
            "options": self.options,
            "feature_statistics": statistics.as_dict() if statistics else None,
        }
        (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def encoder_weights(encoder: Encoder) -> dict[str, Tensor]:
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
