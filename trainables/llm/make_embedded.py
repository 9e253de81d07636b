"""Makes the embedded LLM: a small Qwen2 that one soft token can steer.

    python -m trainables.llm.make_embedded OUT_DIR [--steps 7000] [--seed 0]
    python -m trainables.llm.probe    # once it lies in the package

A language model trained on text alone cannot be steered by a single vector. This one also sees
samples whose first position is a vector: the unit-RMS state it gave the tool's own prompt, plus a
random amount of a unit-RMS code of the six figures from a projector that is thrown away. Text and
figures are invented (``invented_text``), never the shipped table.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from trainables.data.templates import TEMPLATES, describe, format_resources
from trainables.llm import invented_text
from trainables.models.features import RESOURCES
from trainables.models.gated_fusion import unit_rms
from trainables.models.semantic_encoder import last_token_state

VOCAB_SIZE = 1024
HIDDEN_SIZE = 128
LAYERS = 4
TOOLS_PER_STEP = 16
TEXTS_PER_TOOL = 4
CHARACTERS = "0123456789.abcdefghijklmnopqrstuvwxyz"
MAX_CHARACTERS = 6
NO_TARGET = -100


def make_tokenizer(rng: random.Random) -> PreTrainedTokenizerFast:
    """Byte-level BPE with single digits, fitted on invented prompts and target texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=["<|pad|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tools = [invented_text.tool(rng) for _ in range(8000)]
    texts = [t.prompt for t in tools]
    for t in tools:
        template = rng.randrange(len(TEMPLATES))
        texts.append(describe(t.name, invented_text.figures(rng), template))
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>"
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN_SIZE,
        intermediate_size=352,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        attn_implementation="eager",
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return Qwen2ForCausalLM(config)


class FigureProjector(nn.Module):
    """The throw-away code of six written figures: a vector per (figure, place, character)."""

    def __init__(self) -> None:
        super().__init__()
        slots = len(RESOURCES) * MAX_CHARACTERS * (len(CHARACTERS) + 1)
        self.characters = nn.EmbeddingBag(slots, 256, mode="sum")
        nn.init.normal_(self.characters.weight, std=0.3)
        self.out = nn.Sequential(
            nn.LayerNorm(256), nn.Linear(256, 512), nn.GELU(), nn.Linear(512, HIDDEN_SIZE)
        )

    def forward(self, slots: Tensor) -> Tensor:
        """slots [B, 6 * MAX_CHARACTERS] -> [B, D]."""
        return self.out(self.characters(slots))


def figure_slots(written: dict[str, str]) -> list[int]:
    slots = []
    for i, name in enumerate(RESOURCES):
        for place, character in enumerate(written[name][:MAX_CHARACTERS].ljust(MAX_CHARACTERS)):
            code = CHARACTERS.find(character) + 1
            slots.append((i * MAX_CHARACTERS + place) * (len(CHARACTERS) + 1) + code)
    return slots


@dataclass
class Batch:
    """P prompts of tools [P, Lp]; B texts [B, L], each of the tool ``owner`` [B]."""

    prompts: Tensor
    prompt_mask: Tensor
    texts: Tensor
    text_mask: Tensor
    owner: Tensor
    slots: Tensor


def make_batch(rng: random.Random, tokenizer: PreTrainedTokenizerFast) -> Batch:
    tools = [invented_text.tool(rng) for _ in range(TOOLS_PER_STEP)]
    owner = [i for i in range(TOOLS_PER_STEP) for _ in range(TEXTS_PER_TOOL)]
    figures = [invented_text.figures(rng) for _ in owner]
    texts = [
        describe(tools[i].name, f, rng.randrange(len(TEMPLATES))) + tokenizer.eos_token
        for i, f in zip(owner, figures, strict=True)
    ]
    prompts = tokenizer([t.prompt for t in tools], padding=True, return_tensors="pt")
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    slots = torch.tensor([figure_slots(format_resources(f)) for f in figures])
    return Batch(
        prompts["input_ids"], prompts["attention_mask"],
        encoded["input_ids"], encoded["attention_mask"], torch.tensor(owner), slots,
    )  # fmt: skip


def batch_loss(
    model: Qwen2ForCausalLM, projector: FigureProjector, batch: Batch
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the steered texts, and of the prompts as plain text."""
    hidden = model.model(input_ids=batch.prompts, use_cache=False).last_hidden_state
    prompt_targets = batch.prompts.masked_fill(batch.prompt_mask == 0, NO_TARGET)
    prompt_logits = model.lm_head(hidden[:, :-1]).float()
    prompt_loss = nn.functional.cross_entropy(
        prompt_logits.flatten(0, 1), prompt_targets[:, 1:].flatten(), ignore_index=NO_TARGET
    )
    semantic = unit_rms(last_token_state(hidden, batch.prompt_mask).float())[batch.owner]
    code = unit_rms(projector(batch.slots))
    count = len(batch.owner)
    alpha = torch.empty(count, 1).uniform_(0.3, 1.2) * (torch.rand(count, 1) > 0.1)
    soft = nn.functional.layer_norm(semantic + alpha * code, (HIDDEN_SIZE,)).unsqueeze(1)
    inputs = torch.cat([soft, model.get_input_embeddings()(batch.texts[:, :-1])], dim=1)
    hidden = model.model(inputs_embeds=inputs, use_cache=False).last_hidden_state
    targets = batch.texts.masked_fill(batch.text_mask == 0, NO_TARGET)
    real = targets != NO_TARGET
    losses = nn.functional.cross_entropy(
        model.lm_head(hidden[real]).float(), targets[real], reduction="none"
    )
    return losses.mean(), prompt_loss


def make(out: Path, steps: int, seed: int, learning_rate: float) -> None:
    torch.manual_seed(seed)
    rng = random.Random(seed)
    tokenizer = make_tokenizer(rng)
    model, projector = make_model(tokenizer), FigureProjector()
    parameters = [*model.parameters(), *projector.parameters()]
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, vocabulary {len(tokenizer)}")
    optimizer = torch.optim.AdamW(
        parameters, lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=steps, pct_start=0.05
    )
    start = time.perf_counter()
    sums = torch.zeros(2)
    for step in range(1, steps + 1):
        with torch.autocast("cpu", torch.bfloat16):
            loss, prompt_loss = batch_loss(model, projector, make_batch(rng, tokenizer))
        (loss + 0.2 * prompt_loss).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        sums += torch.stack([loss.detach(), prompt_loss.detach()])
        if step % 100 == 0:
            rate = step / (time.perf_counter() - start)
            steered, text = (sums / 100).tolist()
            sums.zero_()
            left = (steps - step) / rate / 60
            losses = f"steered {steered:.4f} text {text:.4f}"
            print(f"step {step}/{steps} {losses}, about {left:.1f} min left", flush=True)
        if step % 1000 == 0 or step == steps:
            save(out, model, tokenizer)


def save(out: Path, model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """bfloat16 weights: half the size, and what training uses on recent CPUs and GPUs."""
    state = {k: v.to(torch.bfloat16) for k, v in model.state_dict().items()}
    model.save_pretrained(out, state_dict=state)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning_rate", type=float, default=3e-3)
    options = parser.parse_args()
    make(options.out, options.steps, options.seed, options.learning_rate)
