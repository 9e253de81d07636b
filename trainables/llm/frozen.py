"""The frozen LLM: loaded once, never trained, turned to by every training step."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    masking_utils,
)
from transformers.utils import logging as transformers_logging

from trainables.config import EMBEDDED, EMBEDDED_DIR, ModelConfig, PretrainConfig
from trainables.errors import DataError, LLMError
from trainables.llm.location import check_available
from trainables.llm.precision import llm_precision
from trainables.models.semantic_encoder import last_token_state

PROMPTS_PER_PASS = 128  # bounds the memory of a registry with thousands of tools


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
    """A causal LM that turns soft tokens into losses; gradients pass through, none stay."""

    def __init__(
        self, model: nn.Module, source: Path | str, tokenizer_options: dict[str, Any]
    ) -> None:
        # eval() as well: dropout in the frozen LLM would be noise that nothing learns from.
        self.model = model.eval().requires_grad_(False)
        self.source = source
        self._tokenizer_options = tokenizer_options
        self.body: nn.Module = model.base_model  # type: ignore[assignment]
        self.head: nn.Module = model.get_output_embeddings()  # type: ignore[operator]
        self.embed_tokens: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
        if self.device.type == "cuda":
            # It makes a plan for every new shape, for 0.1 s, and the texts have many lengths.
            torch.backends.cuda.enable_cudnn_sdp(False)
        self._head_is_linear = self._head_gives_the_logits()

    @classmethod
    def load(cls, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> FrozenLLM:
        """Load by name: ``embedded``, a directory, or a hub id through ``cache_dir``."""
        check_available(config)
        source: Path | str = EMBEDDED_DIR if config.llm_model == EMBEDDED else config.llm_model
        hub = {"cache_dir": config.cache_dir, "trust_remote_code": config.trust_remote_code}
        transformers_logging.disable_progress_bar()
        # Measured on CPU: the backward of the fused kernel in bf16 is slower than the plain one.
        attention = "eager" if device.type == "cpu" else "sdpa"
        try:
            model = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, attn_implementation=attention, **hub
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise LLMError(
                f"`model.llm_model` is `{config.llm_model}`: no causal LM could be loaded: {error}"
            ) from None
        return cls(model.to(device), source, hub)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    @property
    def hidden_size(self) -> int:
        return int(self.model.config.get_text_config().hidden_size)  # type: ignore[union-attr,operator]

    @property
    def max_tokens(self) -> int:
        """The longest sequence that the model has positions for."""
        config = self.model.config.get_text_config()  # type: ignore[union-attr,operator]
        return int(getattr(config, "max_position_embeddings", None) or sys.maxsize)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.source, **self._tokenizer_options)
        except (OSError, ValueError, KeyError) as error:
            raise LLMError(f"{self.source}: no tokenizer could be loaded: {error}") from None
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        tokenizer.padding_side = "right"
        return tokenizer

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
            texts = list(prompts[start : start + PROMPTS_PER_PASS])
            batch = self.tokenizer(texts, padding=True, return_tensors="pt").to(self.device)
            mask = batch["attention_mask"]
            if mask.shape[1] > self.max_tokens:
                longest = texts[int(mask.sum(dim=1).argmax())].splitlines()[0]
                raise DataError(
                    f"the description of `{longest}` has {mask.shape[1]} tokens, but the LLM reads "
                    f"at most {self.max_tokens}; shorten it"
                )
            output = self.body(input_ids=batch["input_ids"], attention_mask=mask, use_cache=False)
            states.append(last_token_state(output.last_hidden_state, mask).float().cpu())
        return torch.cat(states)

    @torch.no_grad()
    def mean_input_embeddings(self, texts: Sequence[str]) -> Tensor:
        """Each text's mean over its tokens of the input layer alone, float32 [len(texts), D]."""
        ids = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        vectors = [self.embed_tokens(torch.tensor(i, device=self.device)) for i in ids]
        return torch.stack([vector.float().mean(dim=0).cpu() for vector in vectors])

    def token_losses(self, soft_tokens: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
        """Cross-entropy of every real target token after its soft token.

        soft_tokens [B, D], token_ids [B, L] right-padded, counts [B] real tokens per row, on the
        CPU -> [sum(counts)] in row order, float32. Padding stands behind every real token, so that
        the causal mask already hides it.
        """
        if not len(counts):  # a worker without a share of a small last batch
            return soft_tokens.sum().expand(0)
        length = int(token_ids.shape[1])
        real = (torch.arange(length) < counts.unsqueeze(1)).flatten().nonzero().squeeze(1)
        if token_ids.is_cuda:  # only from pinned memory does a copy not wait
            real = real.pin_memory()
        real = real.to(token_ids.device, non_blocking=True)
        targets = token_ids.flatten()[real].long()
        texts = self.embed_tokens(token_ids[:, :-1])
        inputs = torch.cat([soft_tokens.to(texts.dtype).unsqueeze(1), texts], dim=1)
        with _one_text_per_row():
            if self._head_is_linear:
                hidden = self.body(inputs_embeds=inputs, use_cache=False).last_hidden_state
                logits = self.head(hidden.flatten(0, 1)[real])
            else:
                output = self.model(inputs_embeds=inputs, use_cache=False)
                logits = output.logits.flatten(0, 1)[real]
        return nn.functional.cross_entropy(logits.float(), targets, reduction="none")

    @torch.no_grad()
    def write(self, soft_tokens: Tensor, max_new_tokens: int) -> list[str]:
        """Greedy continuations of soft tokens [B, D], as text."""
        ids = self.model.generate(  # type: ignore[operator]
            inputs_embeds=soft_tokens.to(self.dtype).unsqueeze(1),
            attention_mask=torch.ones(len(soft_tokens), 1, dtype=torch.long, device=self.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
        )
        return self.tokenizer.batch_decode(ids, skip_special_tokens=True)

    @torch.no_grad()
    def _head_gives_the_logits(self) -> bool:
        """Some models scale or cap their logits after the head; those go the long way."""
        ids = torch.zeros(1, 2, dtype=torch.long, device=self.device)
        hidden = self.body(input_ids=ids, use_cache=False).last_hidden_state
        if hidden.shape[-1] != getattr(self.head, "in_features", hidden.shape[-1]):
            return False
        logits = self.model(input_ids=ids, use_cache=False).logits
        return torch.allclose(self.head(hidden).float(), logits.float(), rtol=1e-3, atol=1e-3)


logging.getLogger("transformers.generation").setLevel(logging.ERROR)
