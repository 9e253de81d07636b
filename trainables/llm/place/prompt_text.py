"""From a text, or from a model's own chat template, to the tokens around the soft tokens."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from trainables.config import PromptConfig
from trainables.errors import LLMError
from trainables.llm.loading import quiet
from trainables.llm.place.prompt import NO_PROMPT, Prompt

# What a user would ask; its end is the place of the soft tokens.
REQUEST = "Describe this configuration: "
SENTINEL = "\u2042soft-tokens\u2042"


def make_prompt(
    wanted: PromptConfig | str | None, tokenizer: PreTrainedTokenizerBase, vocabulary: int
) -> Prompt:
    """The prompt of ``model.prompt``; ids are taken as they are, so that nothing is made twice.

    ``auto``: the chat template with a user's turn that ends at the soft tokens, then the
    assistant's; where there is none or it cannot be split, the token that begins a text, if the
    tokenizer has one. Raises LLMError for a token that has no embedding.
    """
    if wanted is None:
        return NO_PROMPT
    if isinstance(wanted, PromptConfig):
        prompt = Prompt(_ids(wanted.before, tokenizer), _ids(wanted.after, tokenizer))
    else:
        prompt = _of_template(tokenizer) or _of_first_token(tokenizer)
    if len(prompt) and max(prompt.before + prompt.after) >= vocabulary:
        raise LLMError(
            f"`model.prompt` has the token {max(prompt.before + prompt.after)}, but the LLM has "
            f"embeddings for {vocabulary} tokens; give another prompt"
        )
    return prompt


def _ids(part: str | list[int], tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    if not isinstance(part, str):
        return tuple(part)
    if not part:
        return ()
    with quiet():
        return tuple(tokenizer(part, add_special_tokens=False)["input_ids"])


def _of_template(tokenizer: PreTrainedTokenizerBase) -> Prompt | None:
    """None without a template, and where the sentinel does not come out of it just once."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    turn = {"role": "user", "content": REQUEST + SENTINEL}
    try:
        with quiet():
            text = tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
            before, after = str(text).split(SENTINEL)
            prompt = Prompt(_ids(before, tokenizer), _ids(after, tokenizer))
    except Exception:  # noqa: BLE001 - a template is a program of the model's own
        return None
    return prompt if prompt.before and prompt.after else None


def _of_first_token(tokenizer: PreTrainedTokenizerBase) -> Prompt:
    first = tokenizer.bos_token_id
    return NO_PROMPT if first is None else Prompt(before=(int(first),))
