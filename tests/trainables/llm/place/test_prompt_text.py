"""The tokens around the soft tokens: from a text, from ids, from a model's own chat template."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerBase

from tests.conftest import VOCAB, byte_tokenizer
from trainables.config import PromptConfig
from trainables.errors import LLMError
from trainables.llm.place.prompt import NO_PROMPT, Prompt
from trainables.llm.place.prompt_text import REQUEST, make_prompt

TURNS = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
FIRST = 5


def tokenizer(template: str | None = None, bos: bool = False) -> PreTrainedTokenizerBase:
    made = byte_tokenizer()
    made.chat_template = template
    if bos:
        made.bos_token = made.convert_ids_to_tokens(FIRST)
    return made


def ids(text: str) -> tuple[int, ...]:
    return tuple(byte_tokenizer()(text, add_special_tokens=False)["input_ids"])


def test_auto_is_the_chat_template_split_where_the_user_would_say_the_configuration() -> None:
    made = make_prompt("auto", tokenizer(TURNS, bos=True), VOCAB)
    assert made == Prompt(ids(f"<user>{REQUEST}"), ids("</><assistant>"))


@pytest.mark.parametrize(
    "template",
    [
        None,
        "{{ raise_exception('no user here') }}",
        "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "{% for m in messages %}{{ m.role }}{% endfor %}",
        "{{ messages[7].content }}",
        "{% if %}",
    ],
    ids=["none", "raises", "twice", "changed", "absent", "another error", "no template"],
)
def test_without_a_template_that_can_be_split_it_is_the_first_token(template: str | None) -> None:
    assert make_prompt("auto", tokenizer(template, bos=True), VOCAB) == Prompt(before=(FIRST,))
    assert make_prompt("auto", tokenizer(template), VOCAB) == NO_PROMPT


def test_texts_and_ids_are_taken_as_they_are() -> None:
    assert make_prompt(None, tokenizer(TURNS), VOCAB) == NO_PROMPT
    given = PromptConfig(before="Tool:", after=[7, 8])
    made = make_prompt(given, tokenizer(TURNS, bos=True), VOCAB)
    assert made == Prompt(ids("Tool:"), (7, 8))
    assert make_prompt(made.as_config, tokenizer(), VOCAB) == made
    assert NO_PROMPT.as_config is None


def test_a_token_without_an_embedding_is_refused() -> None:
    with pytest.raises(LLMError, match=rf"`model.prompt` has the token {VOCAB}, but the LLM has"):
        make_prompt(PromptConfig(before=[VOCAB]), tokenizer(), VOCAB)
