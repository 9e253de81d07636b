"""Greedy decoding after a soft token: the definition, and transformers' own where it agrees."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerBase

from trainables.llm.loading import quiet

WRITTEN = 6  # tokens of the texts on which transformers' way is tried


class Decoder:
    """Writes the likeliest token after the other, B soft tokens at a time.

    ``embed`` is the model's input layer. ``rounding`` is the share of the logits' standard
    deviation by which two computations of the same may differ.
    """

    def __init__(
        self,
        model: nn.Module,
        embed: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        rounding: float,
    ) -> None:
        table: Any = embed.weight
        self._model: Any = model
        self._table = table
        self._embed = embed
        self._rounding = rounding
        own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        end = own if tokenizer.eos_token_id is None else tokenizer.eos_token_id
        ids = [] if end is None else [end] if isinstance(end, int) else list(end)
        self._end = torch.tensor(ids, dtype=torch.long, device=table.device)
        # A copy of an LLM may have fewer rows than its tokenizer has tokens.
        filler = tokenizer.pad_token_id or 0
        self._filler = filler if filler < len(table) else 0

    @torch.no_grad()
    def continuations(self, soft: Tensor, max_new_tokens: int) -> Tensor:
        """Inputs [B, P, D] -> ids [B, at most so many], with padding behind a text's end."""
        way = self._generate if self._generates else self._generate_plainly
        return way(soft.to(self._table), max_new_tokens)

    @cached_property
    def _generates(self) -> bool:
        """Whether transformers' way gives what the definition gives.

        Some families' takes no embeddings, or loses count of positions or rows. Found out on two
        short texts, by the choices and not by what rounding changes.
        """
        shape = (2, 1, self._table.shape[1])
        soft = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        soft = soft.to(self._table)
        try:
            written = self._generate(soft, WRITTEN)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # noqa: BLE001 - then the definition decodes
            return False
        inputs = torch.cat([soft, self._embed(written[:, :-1])], dim=1)
        logits = self._model(inputs_embeds=inputs, use_cache=False).logits.float()
        behind = logits.amax(dim=-1) - logits.gather(2, written.unsqueeze(2)).squeeze(2)
        ended = torch.isin(written, self._end).cumsum(dim=1)
        behind[:, 1:].masked_fill_(ended[:, :-1] > 0, 0.0)  # what stands there is no choice
        return bool((behind <= self._rounding * logits.std(dim=-1)).all())

    def _generate(self, soft: Tensor, max_new_tokens: int) -> Tensor:
        settings = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            pad_token_id=self._filler,
            eos_token_id=self._end.tolist() or None,
        )
        with quiet():
            return self._model.generate(
                inputs_embeds=soft.clone(),
                attention_mask=torch.ones(soft.shape[:2], dtype=torch.long, device=soft.device),
                generation_config=settings,
            )

    def _generate_plainly(self, soft: Tensor, max_new_tokens: int) -> Tensor:
        """The definition: a whole pass for each token."""
        over = torch.zeros(len(soft), dtype=torch.bool, device=soft.device)
        written = torch.empty(len(soft), 0, dtype=torch.long, device=soft.device)
        inputs = soft
        while written.shape[1] < max_new_tokens and not over.all():
            # A copy, because some models scale what they are given in its place.
            logits = self._model(inputs_embeds=inputs.clone(), use_cache=False).logits[:, -1]
            chosen = logits.argmax(dim=-1).masked_fill(over, self._filler)
            written = torch.cat([written, chosen[:, None]], dim=1)
            over |= torch.isin(chosen, self._end)
            inputs = torch.cat([inputs, self._embed(chosen[:, None])], dim=1)
        return written
