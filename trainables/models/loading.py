"""An encoder from its directory, whichever architecture it has."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file

from trainables.errors import CheckpointError
from trainables.models.earlier_files import refusal
from trainables.models.embedding_attention import EmbeddingAttentionEncoder
from trainables.models.encoder import (
    CONFIG_FILE,
    FORMAT_VERSION,
    PROMPT_PARTS,
    WEIGHTS_FILE,
    Encoder,
)
from trainables.models.features import FeatureStatistics
from trainables.models.resource_encoder import ResourceEncoder

# Files without the key are of the only architecture there was.
FIRST_ARCHITECTURE = ResourceEncoder.architecture


def load_encoder(directory: Path) -> Encoder:
    """See ``Encoder.from_pretrained``."""
    if directory.is_file():
        raise refusal(directory)
    try:
        config = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
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
    made = _architecture(config.get("architecture", FIRST_ARCHITECTURE), directory)
    statistics = config["feature_statistics"]
    encoder = made(
        config["tool_names"],
        weights[made.semantic_entry],
        feature_statistics=FeatureStatistics.from_dict(statistics) if statistics else None,
        **config["options"],
    )
    encoder.load_state_dict(weights)
    before, after = (tuple(config.get("prompt", {}).get(part, ())) for part in PROMPT_PARTS)
    encoder.prompt = (before, after)
    return encoder.eval()


def _architecture(
    name: str, directory: Path
) -> type[ResourceEncoder] | type[EmbeddingAttentionEncoder]:
    match name:
        case ResourceEncoder.architecture:
            return ResourceEncoder
        case EmbeddingAttentionEncoder.architecture:
            return EmbeddingAttentionEncoder
    raise CheckpointError(f"{directory}: `architecture` is {name!r}, which this release has not")
