"""The frozen LLM: loaded once, never trained, turned to by every training step."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    DynamicCache,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    masking_utils,
)

from trainables.config import ModelConfig, PretrainConfig
from trainables.errors import DataError
from trainables.llm.decoding import Decoder
from trainables.llm.loading import (
    hub_options,
    load_model,
    load_tokenizer,
    named,
    source_of,
    without_habits,
)
from trainables.llm.place.prefix import Prefix
from trainables.llm.place.prompt import NO_PROMPT, Prompt
from trainables.llm.place.sequences import Rows, Sequences, assemble, several
from trainables.llm.precision import llm_precision
from trainables.llm.tokens import check_encoded, encode, ready_tokenizer
from trainables.models.semantic_encoder import last_token_state

PROMPTS_PER_PASS = 128  # bounds the memory of a registry with thousands of tools
# What two computations of the same may differ by, as a share of what they tell apart.
SAME_PREFIX = 1e-5  # of the largest, in float32
ROUNDING = {torch.float32: 3e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def select_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def select_dtype(precision: str, device: torch.device) -> torch.dtype:
    """``auto``: what was measured faster on this device."""
    name = llm_precision(precision, device.type == "cuda")
    return torch.bfloat16 if name == "bf16" else torch.float32


def load_llm(config: PretrainConfig, device: torch.device | None = None) -> FrozenLLM:
    """A training's LLM in its precision, on ``device`` or on the one that this process has."""
    device = device or select_device()
    return FrozenLLM.load(config.model, device, select_dtype(config.training.precision, device))


def free_device_memory() -> None:
    """Give back what this process no longer uses of the GPU; other processes need it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def _one_text_per_row() -> Iterator[None]:
    """Inside the block transformers does not look for several texts packed into one row.

    It looks in the positions, which it makes itself and which count up from 0, and every forward
    pass waits for the device to tell it so.
    """
    look = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = lambda position_ids: None
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = look


class FrozenLLM:
    """A causal LM that turns soft tokens into losses; gradients pass through, none stay.

    D is the width of its input embeddings.
    """

    def __init__(
        self, model: nn.Module, source: Path | str, tokenizer_options: dict[str, Any]
    ) -> None:
        # eval() as well: dropout in the frozen LLM would be noise that nothing learns from.
        self.model = model.eval().requires_grad_(False)
        self.source = source
        self._tokenizer_options = tokenizer_options
        self._prefixes: dict[tuple[int, ...], Prefix | None] = {}
        self.body = _body(model)
        self.head: nn.Module | None = model.get_output_embeddings()  # type: ignore[operator]
        self.embed_tokens: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
        self.vocabulary, self.hidden_size = map(int, self.embed_tokens.weight.shape)
        without_habits(model)
        if self.device.type == "cuda":
            # It makes a plan for every new shape, for 0.1 s, and the texts have many lengths.
            torch.backends.cuda.enable_cudnn_sdp(False)
        self._head_is_linear = self._head_gives_the_logits()

    @classmethod
    def load(cls, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> FrozenLLM:
        """Load by name: ``embedded``, a directory, or a hub id through ``cache_dir``."""
        model = load_model(config, device, dtype)
        with named(config, "is no causal LM that an encoder can be trained against"):
            return cls(model, source_of(config), hub_options(config))

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    @property
    def max_tokens(self) -> int:
        """The longest sequence that the model has positions for."""
        config = self.model.config.get_text_config()  # type: ignore[union-attr,operator]
        return int(getattr(config, "max_position_embeddings", None) or sys.maxsize)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its own; every id that it gives of itself has a row in the input embeddings."""
        tokenizer = load_tokenizer(self.source, self._tokenizer_options)
        return ready_tokenizer(tokenizer, self.vocabulary, self.source)

    def token_ids(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Each text's tokens; ``special``: with those that the tokenizer puts around a text.

        Raises DataError for a text without tokens, LLMError for a token without an embedding.
        """
        encoded = encode(self.tokenizer, texts, special, self.source)
        check_encoded(texts, encoded, self.vocabulary, self.source)
        return encoded

    def prompt_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """As ``token_ids``; raises DataError for a prompt that is longer than the LLM reads."""
        encoded = self.token_ids(prompts)
        for prompt, ids in zip(prompts, encoded, strict=True):
            if len(ids) > self.max_tokens:
                raise DataError(
                    f"the description of `{prompt.splitlines()[0]}` has {len(ids)} tokens, but the "
                    f"LLM reads at most {self.max_tokens}; shorten it"
                )
        return encoded

    @torch.no_grad()
    def last_token_states(
        self, prompts: Sequence[str], interrupt: Callable[[], None] = lambda: None
    ) -> Tensor:
        """The last layer's state at each prompt's last real token, float32 [len(prompts), D].

        ``interrupt`` is called before each pass, and may raise.
        """
        states = []
        for start in range(0, len(prompts), PROMPTS_PER_PASS):
            interrupt()
            part = prompts[start : start + PROMPTS_PER_PASS]
            states.append(self.states_of(self.prompt_ids(part)))
        return torch.cat(states)

    @torch.no_grad()
    def states_of(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """The last layer's state at the last token of each sequence, float32 [B, D], on the CPU."""
        rows = [torch.tensor(row) for row in sequences]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.device)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        places = torch.arange(ids.shape[1], device=self.device)
        mask = (places < lengths.unsqueeze(1)).long()
        output = self.body(input_ids=ids, attention_mask=mask, use_cache=False)
        return last_token_state(output.last_hidden_state, mask).float().cpu()

    @torch.no_grad()
    def mean_input_embeddings(self, texts: Sequence[str]) -> Tensor:
        """Each text's mean over its tokens of the input layer alone, float32 [len(texts), D]."""
        ids = self.token_ids(texts, special=False)
        vectors = [self.embed_tokens(torch.tensor(i, device=self.device)) for i in ids]
        return torch.stack([vector.float().mean(dim=0).cpu() for vector in vectors])

    def token_losses(
        self, soft_tokens: Tensor, token_ids: Tensor, counts: Tensor, prompt: Prompt = NO_PROMPT
    ) -> Tensor:
        """Cross-entropy of every real target token after its soft tokens.

        soft_tokens [B, S, D] or [B, D], token_ids [B, L] right-padded, counts [B] real tokens per
        row, on the CPU -> [sum(counts)] in row order, float32.
        """
        return self.joint_losses([Rows(soft_tokens, token_ids, counts)], prompt)

    def joint_losses(self, groups: Sequence[Rows], prompt: Prompt = NO_PROMPT) -> Tensor:
        """As ``token_losses``, of several runs' rows in one pass; their S may differ."""
        groups = [group for group in groups if len(group.counts)] or list(groups[:1])
        if not len(groups[0].counts):  # a worker without a share of a small last batch
            return groups[0].soft.sum().expand(0)
        prefix = self._prefix(prompt.before)
        before = () if prefix else prompt.before
        rows = assemble(groups, self.embed_tokens, before, prompt.after)
        past = prefix.for_rows(len(rows.inputs)) if prefix else None
        return self._losses(rows, past)

    def _losses(self, rows: Sequences, past: DynamicCache | None) -> Tensor:
        given: dict[str, Any] = {"inputs_embeds": rows.inputs, "use_cache": past is not None}
        if past is not None:
            given["past_key_values"] = past
        with _one_text_per_row():
            if self._head_is_linear and self.head is not None:
                hidden = self.body(**given).last_hidden_state
                logits = self.head(rows.at_places(hidden))
            else:
                logits = rows.at_places(self.model(**given).logits)
        return nn.functional.cross_entropy(logits.float(), rows.targets, reduction="none")

    def remember(self, prompt: Prompt) -> None:
        """Read what stands before the soft tokens now, not in the first step."""
        self._prefix(prompt.before)

    def _prefix(self, ids: tuple[int, ...]) -> Prefix | None:
        """What is remembered of the tokens before the soft tokens; None to read them each time."""
        if not ids:
            return None
        if ids not in self._prefixes:
            self._prefixes = {ids: self._read_prefix(ids)}  # of one sweep at a time
        return self._prefixes[ids]

    def _read_prefix(self, ids: tuple[int, ...]) -> Prefix | None:
        """Only where losses and gradients are those of the whole sequence."""
        try:
            prefix = Prefix.read(self.body, torch.tensor(ids, device=self.device))
            if prefix is None or not self._same_with(prefix, ids):
                return None
        except torch.OutOfMemoryError:
            raise
        except Exception:  # noqa: BLE001 - a model's own code raises any kind
            return None
        return prefix

    def _same_with(self, prefix: Prefix, ids: tuple[int, ...]) -> bool:
        generator = torch.Generator().manual_seed(0)
        shape = (2, 3, self.hidden_size)
        soft = torch.randn(shape, generator=generator).to(self.device)
        texts = torch.randint(self.vocabulary, (2, 5), generator=generator).to(self.device)
        group = Rows(soft.requires_grad_(), texts, torch.tensor([5, 3]))
        found = []
        for before, past in ((ids, None), ((), prefix.for_rows(2))):
            with torch.enable_grad():
                losses = self._losses(assemble([group], self.embed_tokens, before, ()), past)
                found.append((losses, *torch.autograd.grad(losses.sum(), [group.soft])))
        tolerance = SAME_PREFIX if self.dtype == torch.float32 else ROUNDING[self.dtype]
        return all(
            bool((whole - part).abs().max() <= tolerance * whole.abs().max())
            for whole, part in zip(*found, strict=True)
        )

    @cached_property
    def _decoder(self) -> Decoder:
        return Decoder(self.model, self.embed_tokens, self.tokenizer, ROUNDING[self.dtype])

    @torch.no_grad()
    def inputs_embeds(self, soft_tokens: Tensor, prompt: Prompt = NO_PROMPT) -> Tensor:
        """Soft tokens [B, S, D] or [B, D] between the prompt's parts, as the LLM reads them.

        [B, before + S + after, D] in the LLM's precision: what ``generate`` takes.
        """
        soft = several(soft_tokens).to(self.device)
        parts = [
            self.embed_tokens(torch.tensor([ids], device=self.device)).expand(len(soft), -1, -1)
            if ids
            else None
            for ids in (prompt.before, prompt.after)
        ]
        dtype = next((part.dtype for part in parts if part is not None), self.dtype)
        whole = [parts[0], soft.to(dtype), parts[1]]
        return torch.cat([part for part in whole if part is not None], dim=1)

    def continuations(
        self, soft_tokens: Tensor, max_new_tokens: int, prompt: Prompt = NO_PROMPT
    ) -> Tensor:
        """Greedy continuations of soft tokens [B, S, D] or [B, D], after the prompt around them.

        As ids [B, at most ``max_new_tokens``].
        """
        return self._decoder.continuations(self.inputs_embeds(soft_tokens, prompt), max_new_tokens)

    def write(
        self, soft_tokens: Tensor, max_new_tokens: int, prompt: Prompt = NO_PROMPT
    ) -> list[str]:
        """As ``continuations``, as text."""
        ids = self.continuations(soft_tokens, max_new_tokens, prompt)
        return self.tokenizer.batch_decode(ids, skip_special_tokens=True)

    @torch.no_grad()
    def _head_gives_the_logits(self) -> bool:
        """Some models scale or cap their logits after the head, or the states before it.

        Those go the long way. In one pass what the body and the head say is exchanged for numbers
        that no such change leaves as they are: neither rounding nor zeros can hide it.
        """
        if not isinstance(self.head, nn.Linear):
            return False
        given: dict[str, Tensor] = {}
        taken: dict[str, Tensor] = {}

        def after_body(body: nn.Module, inputs: Any, output: Any) -> None:
            if hasattr(output, "last_hidden_state"):
                given["states"] = _numbers_like(output.last_hidden_state)
                output.last_hidden_state = given["states"].clone()

        def after_head(head: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            taken["states"], given["logits"] = inputs[0], _numbers_like(output)
            return given["logits"].clone()

        hooks = (
            self.body.register_forward_hook(after_body),
            self.head.register_forward_hook(after_head),
        )
        try:
            ids = torch.zeros(1, 2, dtype=torch.long, device=self.device)
            taken["logits"] = self.model(input_ids=ids, use_cache=False).logits
        finally:
            for hook in hooks:
                hook.remove()
        return all(
            name in given
            and name in taken
            and torch.equal(given[name].float(), taken[name].float())
            for name in ("states", "logits")
        )


def _numbers_like(tensor: Tensor) -> Tensor:
    return torch.linspace(-99, 99, tensor.numel(), device=tensor.device).view_as(tensor).to(tensor)


def _body(model: Any) -> nn.Module:
    """The model without its head, which some families keep under another name than they say."""
    if model.base_model is not model:
        return model.base_model
    return next((m for m in model.children() if isinstance(m, PreTrainedModel)), model)
