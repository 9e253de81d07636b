"""Whether an encoder can be trained against an LLM, found out by doing what training does.

A few passes over a handful of tokens: losses and their gradients, the states of prompts, a text
written after a soft token. Each is compared with what it must equal, by the numbers themselves.

    python -m trainables.llm.probe    writes down what it finds out of the embedded LLM
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.config import ModelConfig, PretrainConfig
from trainables.errors import LLMError, UserError
from trainables.llm.decoding import WRITTEN
from trainables.llm.frozen import ROUNDING, FrozenLLM, select_device, select_dtype
from trainables.llm.loading import named, reason
from trainables.llm.verdict import Verdict, keep_verdict, known_verdict, ship_verdict

UNUSABLE = "an encoder cannot be trained against it"
LENGTH = 8  # tokens of the longest text that is tried
COMMON = 4  # of them, those with which every text begins
SAME = 0.01  # of the rounding in computations of other shapes
NO_GRADIENT = 1e-4  # of the largest one; what reaches a token through a mask is exactly 0
# A character for every byte that UTF-8 can have, most of them rare. A tokenizer with tokens for
# each of these falls back to bytes or to an unknown token, and so has some for any text.
RARE = tuple(
    chr(code)
    for code in (
        *range(0x21, 0x7F),
        *range(0x80, 0xC0),
        *range(0xC0, 0x800, 0x40),
        *(0x800, *range(0x1000, 0x10000, 0x1000)),
        *(0x10000, 0x40000, 0x80000, 0xC0000, 0x100000),
    )
)


def load_probed_llm(config: PretrainConfig, device: torch.device | None = None) -> FrozenLLM:
    """A training's LLM in its precision, as ``load_llm`` gives it, probed."""
    device = device or select_device()
    return load_probed(config.model, device, select_dtype(config.training.precision, device))


def load_probed(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> FrozenLLM:
    """``FrozenLLM.load``, and then the probe; what was found out is kept below ``cache_dir``.

    Of an LLM that was probed before only the passes are tried again: another device and another
    precision have other numbers, but the same tokenizer.
    """
    llm = FrozenLLM.load(config, device, dtype)
    if known_verdict(config) is None:
        keep_verdict(config, probe(llm, config))
    else:
        check_passes(llm, config)
    return llm


def probe(llm: FrozenLLM, config: ModelConfig) -> Verdict:
    """Raises LLMError with the first thing that a training would stumble over, or do wrong by."""
    check_passes(llm, config)
    with named(config, UNUSABLE):
        llm.write(torch.zeros(2, llm.hidden_size), WRITTEN)
        return Verdict(
            hidden_size=llm.hidden_size, max_tokens=llm.max_tokens, any_text=_any_text(llm)
        )


def check_passes(llm: FrozenLLM, config: ModelConfig) -> None:
    """The probe's passes through the LLM; raises LLMError. They leave no trace."""
    devices = [llm.device] if llm.device.type == "cuda" else []
    with named(config, UNUSABLE), torch.random.fork_rng(devices=devices):
        found = problem(llm)
        if found:
            raise LLMError(f"`model.llm_model` is `{config.llm_model}`: {found}")


def problem(llm: FrozenLLM) -> str | None:
    """What is wrong with its passes, in words; None for an LLM that can be used."""
    if found := _weights(llm):
        return found
    try:
        trial = _Trial.of(llm)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a model's own code raises any kind
        return f"it does not take embeddings in the place of tokens: {reason(error)}"
    checks = (_states, _losses, _causality, _token_ids)
    return next((found for check in checks if (found := check(llm, trial))), None)


@dataclass(frozen=True)
class _Trial:
    """Texts after soft tokens, [4 rows]; the first soft token is a real token's embedding.

    The first and the second text are the same, whole; the third ends differently, the fourth is
    the beginning of all. ``losses`` are by text; ``reached`` is the size of the gradient that the
    second text's first COMMON losses have at each position, the soft token's first: [LENGTH].
    """

    ids: Tensor  # [1 + LENGTH], of the first, with the soft token's own
    soft: Tensor  # [4, D]
    losses: tuple[Tensor, ...]
    reached: Tensor

    @classmethod
    def of(cls, llm: FrozenLLM) -> _Trial:
        ids = torch.tensor(_some_ids(llm), device=llm.device)
        text = ids[1:]
        texts = text.repeat(4, 1)
        texts[2, COMMON:] = text[COMMON:].flip(0)
        texts[3, COMMON:] = 0
        counts = torch.tensor([LENGTH, LENGTH, LENGTH, COMMON])
        soft = _soft_tokens(llm, ids[0]).requires_grad_()
        with _embeddings_kept(llm.embed_tokens) as embedded:
            losses = llm.token_losses(soft, texts.int(), counts).split(counts.tolist())
        found = torch.autograd.grad(
            losses[1][:COMMON].sum(), [soft, embedded[0]], materialize_grads=True
        )
        reached = torch.cat([found[0][1:2].float(), found[1][1].float()]).abs().amax(dim=-1)
        return cls(ids, soft.detach(), tuple(part.detach() for part in losses), reached)


def _some_ids(llm: FrozenLLM) -> list[int]:
    """1 + LENGTH tokens from the middle of the vocabulary: its ends are for tokens of other use."""
    rows = len(llm.embed_tokens.weight)  # type: ignore[arg-type]
    step = max(1, rows // (3 * (1 + LENGTH)))
    return [(rows // 3 + i * step) % rows for i in range(1 + LENGTH)]


def _soft_tokens(llm: FrozenLLM, first: Tensor) -> Tensor:
    """The embedding of ``first``, then three times one that no token has, of unit RMS: [4, D]."""
    with torch.no_grad():
        real = llm.embed_tokens(first[None]).float()
    other = torch.randn(1, llm.hidden_size, generator=torch.Generator().manual_seed(0))
    return torch.cat([real, other.expand(3, -1).to(real)])


@contextmanager
def _embeddings_kept(layer: nn.Module) -> Iterator[list[Tensor]]:
    """What the input layer gives inside the block, with a gradient of its own."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1]

    hook = layer.register_forward_hook(keep)
    try:
        yield kept
    finally:
        hook.remove()


def _weights(llm: FrozenLLM) -> str | None:
    for name, weight in llm.model.state_dict().items():
        if not torch.isfinite(weight).all():
            return (
                f"its weight `{name}` holds values that are not finite (NaN or infinite); take "
                "another copy of it"
            )
    return None


def _states(llm: FrozenLLM, trial: _Trial) -> str | None:
    """Width, and a prompt's state in a batch with a longer one."""
    long, short = trial.ids.tolist(), trial.ids[:COMMON].tolist()
    batch, alone = llm.states_of([long, short]), llm.states_of([short])
    if batch.shape[1] != llm.hidden_size:
        return (
            f"its input embeddings have the width {llm.hidden_size}, its last states "
            f"{batch.shape[1]}, but an encoder puts the one in the place of the other; give an "
            "LLM whose widths are equal"
        )
    if not torch.isfinite(batch).all():
        return _not_finite(llm, "the states of prompts")
    apart = (batch[1] - alone[0]).abs().max() / alone.abs().max().clamp_min(1e-12)
    if apart > ROUNDING[llm.dtype]:
        return f"a prompt's state in a padded batch is not its state alone (apart by {apart:.2g})"
    return None


def _losses(llm: FrozenLLM, trial: _Trial) -> str | None:
    if not all(torch.isfinite(part).all() for part in trial.losses):
        return _not_finite(llm, "the losses after a soft token")
    if not torch.isfinite(trial.reached).all():
        return _not_finite(llm, "the gradients of the losses")
    if not trial.reached[0] > 0:
        return "its losses do not depend on the soft token, so that nothing can be learnt"
    return None


def _causality(llm: FrozenLLM, trial: _Trial) -> str | None:
    later = trial.reached[COMMON:].max()  # the last of those tokens itself included
    first, other, short = (part[:COMMON] for part in trial.losses[1:])
    changed = max(_apart(llm, first, other), _apart(llm, first, short))
    if later > NO_GRADIENT * trial.reached.max() or changed > 1:
        return (
            "it is not causal: the losses of a text's first tokens change with the tokens after "
            "them; give a model that was made to continue texts (a decoder)"
        )
    return None


def _token_ids(llm: FrozenLLM, trial: _Trial) -> str | None:
    """Real tokens' embeddings must be to it what the tokens themselves are.

    One and the same pass but for them, so that no rounding differs. A text's losses in a batch
    are then held against those that it has alone.
    """
    ids = trial.ids[None]
    with torch.no_grad():
        by_ids = llm.model(input_ids=ids, use_cache=False).logits[0].float()
        embedded = llm.embed_tokens(ids).clone()
        put_in = llm.model(inputs_embeds=embedded, use_cache=False).logits[0].float()
    if (put_in - by_ids).abs().max() > SAME * ROUNDING[llm.dtype] * by_ids.std():
        return (
            "embeddings that are put in are not to it what its own tokens are: the same text has "
            "other logits with them"
        )
    alone = nn.functional.cross_entropy(by_ids[:-1], trial.ids[1:], reduction="none")
    if _apart(llm, trial.losses[0], alone) > 1:
        return "the losses of a text in a batch are not those that it has alone"
    return None


def _apart(llm: FrozenLLM, losses: Tensor, others: Tensor) -> float:
    """How far losses differ, in units of what rounding may explain."""
    rounding = losses.max() - losses.min() + 0.01 * losses.abs().max()
    return float((losses - others).abs().max() / (ROUNDING[llm.dtype] * rounding).clamp_min(1e-12))


def _not_finite(llm: FrozenLLM, what: str) -> str:
    dtype = str(llm.dtype).removeprefix("torch.")
    remedy = "take another copy"
    if llm.dtype != torch.float32:
        remedy = "set training.precision to fp32"
    return f"{what} are not finite in {dtype}; {remedy}"


def _any_text(llm: FrozenLLM) -> bool:
    """Whether its tokenizer has tokens for whatever is written."""
    try:
        llm.token_ids(RARE, special=False)
    except UserError:
        return False
    return True


if __name__ == "__main__":
    EMBEDDED_LLM = ModelConfig()
    ship_verdict(
        EMBEDDED_LLM,
        probe(FrozenLLM.load(EMBEDDED_LLM, torch.device("cpu"), torch.float32), EMBEDDED_LLM),
    )
