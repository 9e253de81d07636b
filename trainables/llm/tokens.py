"""From texts to the ids of their tokens, each of which must have an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from trainables.errors import DataError, LLMError
from trainables.llm.loading import quiet, reason

MAX_SHOWN = 80  # characters of a text in a message
TOGETHER = "give a tokenizer and weights that belong together"


def ready_tokenizer(
    tokenizer: PreTrainedTokenizerBase, vocabulary: int, source: Path | str
) -> PreTrainedTokenizerBase:
    """With a token for padding; raises LLMError if one of its own has no embedding."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    for kind in ("pad", "eos"):
        number = getattr(tokenizer, f"{kind}_token_id")
        if number is not None and number >= vocabulary:
            name = getattr(tokenizer, f"{kind}_token")
            raise LLMError(
                f"{source}: the tokenizer's {kind} token `{name}` has the id {number}, but the LLM "
                f"has embeddings for {vocabulary} tokens; {TOGETHER}"
            )
    tokenizer.padding_side = "right"
    return tokenizer


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], special: bool, source: Path | str
) -> list[list[int]]:
    """Each text's tokens; raises DataError for a text that the tokenizer does not read."""
    try:
        with quiet():
            return tokenizer(list(texts), add_special_tokens=special)["input_ids"]
    except Exception as error:  # noqa: BLE001 - some kinds raise at what they do not know
        if len(texts) > 1:  # which one?
            return [ids for text in texts for ids in encode(tokenizer, [text], special, source)]
        raise DataError(
            f"`{_shown(texts[0])}` cannot be read by the tokenizer of the LLM ({source}): "
            f"{reason(error)}; write it in other characters, or take another `model.llm_model`"
        ) from None


def check_encoded(
    texts: Sequence[str], encoded: Sequence[Sequence[int]], vocabulary: int, source: Path | str
) -> None:
    """Raises DataError for a text without tokens, LLMError for a token without an embedding."""
    for text, ids in zip(texts, encoded, strict=True):
        if not ids:
            raise DataError(
                f"`{_shown(text)}` has no tokens: the tokenizer of the LLM ({source}) knows none "
                "of its characters; write it in others, or take another `model.llm_model`"
            )
        if max(ids) >= vocabulary:
            raise LLMError(
                f"{source}: the tokenizer gives `{_shown(text)}` the token id {max(ids)}, but the "
                f"LLM has embeddings for {vocabulary} tokens; {TOGETHER}"
            )


def _shown(text: str) -> str:
    first = next(iter(text.splitlines()), "")
    return first if len(first) <= MAX_SHOWN else f"{first[:MAX_SHOWN]}..."
