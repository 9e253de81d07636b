"""What an LLM's weight files say of themselves without being read: names and shapes."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from trainables.errors import LLMError

Shape = tuple[int, ...]
# (a single file, the index that stands for it where the weights are in several), as transformers
# looks for them.
FORMS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
# What the families of transformers call the module of their input embeddings.
INPUT_LAYERS = frozenset(
    "embed_in embed_tokens embedding embeddings input_embedding shared tok_embeddings "
    "token_embedding tokens_embed w word_embedding word_embeddings wte".split()
)


def missing_shards(directory: Path) -> list[str]:
    """The weight files that an index names and that are not in ``directory``."""
    for whole, index in FORMS:
        if (directory / whole).is_file():
            return []
        path = directory / index
        if path.is_file():
            try:
                named = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
                return sorted(name for name in named if not (directory / name).is_file())
            except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
                raise LLMError(
                    f"{path}: is not the index of weight files; is the copy complete?"
                ) from None
    return []


def embedding_shape(directory: Path) -> tuple[int, int] | None:
    """Rows and width of the input embeddings; None where the weights do not tell.

    They do not as pickled files, cut off, or where several tables could be meant.
    """
    found = {
        (shape[0], shape[1])
        for name, shape in _shapes(directory).items()
        if len(shape) == 2 and _is_input_layer(name)
    }
    return found.pop() if len(found) == 1 else None


def _is_input_layer(name: str) -> bool:
    *above, layer, leaf = ("", *name.split("."))
    in_a_layer = any(part.isdigit() for part in above)
    return leaf == "weight" and layer in INPUT_LAYERS and not in_a_layer


def _shapes(directory: Path) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for path in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                shapes |= {
                    name: tuple(file.get_slice(name).get_shape()) for name in list(file.keys())
                }
        except (OSError, SafetensorError):
            return {}
    return shapes
