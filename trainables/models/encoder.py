"""What every encoder has, whatever its architecture: streams, soft tokens, a form on disk."""

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
PROMPT_PARTS = ("before", "after")


class Encoder(nn.Module, ABC):
    """A frozen semantic stream and a resource stream, fused into S soft tokens.

    ``forward(tool_index [B], standardised features [B, R])`` gives soft tokens [B, S, D], or
    [B, D] where S is 1. ``gate`` is the fusion's scalar gate; an architecture without one has a
    constant 0 there. ``prompt`` has the token ids before and after the soft tokens with which the
    encoder was trained, both empty where nothing stood around them.
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
        self.prompt: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())

    @property
    @abstractmethod
    def semantic_embeddings(self) -> Tensor:
        """The frozen embedding of every tool, [T, D]."""

    @property
    def mirrored(self) -> tuple[Tensor, ...]:
        """The parameters that can change their sign together without changing the function."""
        return ()

    @property
    def residuals(self) -> tuple[nn.Parameter, ...]:
        """What each of several soft tokens adds for itself; it begins at 0."""
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
        """The soft tokens [S, D] of one tool with its six figures, in evaluation mode.

        [D] where S is 1.
        """
        place = self._place_of(tool)
        if self.feature_statistics is None:
            raise ValueError("this encoder carries no feature statistics; pass them when building")
        device = self.semantic_embeddings.device
        features = torch.from_numpy(self.feature_statistics.standardise([raw_features(figures)]))
        with torch.no_grad(), evaluating(self):
            index = torch.tensor([place], device=device)
            return self(index, features.to(device))[0]

    @torch.no_grad()
    def inputs_embeds(self, llm: nn.Module, tool: str, figures: Mapping[str, Any]) -> Tensor:
        """What ``llm.generate(inputs_embeds=...)`` takes to write about a tool with its figures.

        ``llm`` is the causal LM of transformers that the encoder was trained against. [1, P, D]:
        the soft tokens of ``encode`` where they stood in training, between the prompt's parts.
        """
        embed: nn.Module = llm.get_input_embeddings()  # type: ignore[operator]
        table: Any = embed.weight
        soft = self.encode(tool, figures).reshape(1, -1, self.hidden_size).to(table)
        before, after = (
            [embed(torch.tensor([ids], device=table.device))] if ids else [] for ids in self.prompt
        )
        return torch.cat([*before, soft, *after], dim=1)

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
        if any(self.prompt):
            config["prompt"] = dict(zip(PROMPT_PARTS, map(list, self.prompt), strict=True))
        (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")


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
