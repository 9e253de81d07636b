"""One trial with the step of a first version: nothing but library defaults.

python -m benchmarks.alternatives.straightforward_step --workload DIRECTORY [--fp32]

Every text is padded to 128 positions, an attention mask given, the model called with labels, so
that it makes logits at every position; everything runs under bf16 autocast (or not, ``--fp32``).
Encoder, batches, targets, dropout, schedule and clipping are the project's, so that the loss
curves can be compared.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils import clip_grad_norm_
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from benchmarks.workload import Workload, all_batches
from trainables.config import EMBEDDED, EMBEDDED_DIR, PretrainConfig
from trainables.llm.frozen import select_device
from trainables.training.batches import Batch, DeviceInputs
from trainables.training.optimisation import learning_rate_at, set_learning_rate
from trainables.training.run import Run

LENGTH = 128  # positions, the soft token among them
NO_TARGET = -100  # what transformers leaves out of its loss


def load_model(config: PretrainConfig, device: torch.device) -> nn.Module:
    transformers_logging.disable_progress_bar()
    name = config.model.llm_model
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED_DIR if name == EMBEDDED else name)
    return model.to(device).eval().requires_grad_(False)


def make_optimizer(run: Run) -> torch.optim.AdamW:
    """The project's groups, because they are part of what is trained; the rest is AdamW's own."""
    keys = ("params", "weight_decay", "lr_multiplier")
    groups = [{k: g[k] for k in keys if k in g} for g in run.optimizer.param_groups]
    return torch.optim.AdamW(groups, lr=run.config.training.learning_rate)


def text_loss(model: nn.Module, soft_tokens: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy of the real target tokens, by the model's own loss."""
    ids = pad(batch.token_ids, (0, LENGTH - 1 - batch.token_ids.shape[1])).long()
    real = torch.arange(LENGTH - 1, device=ids.device) < batch.counts.to(ids.device).unsqueeze(1)
    texts = model.get_input_embeddings()(ids)  # type: ignore[operator]
    return model(
        inputs_embeds=torch.cat([soft_tokens.to(texts.dtype).unsqueeze(1), texts], dim=1),
        attention_mask=pad(real.long(), (1, 0), value=1),
        labels=pad(ids.masked_fill(~real, NO_TARGET), (1, 0), value=NO_TARGET),
    ).loss


def train(
    config: PretrainConfig,
    inputs: DeviceInputs,
    batches: list[Batch],
    model: nn.Module,
    autocast: bool,
) -> list[float]:
    """Train one trial; the loss of every step."""
    training = config.training
    run = Run(config, inputs)
    optimizer = make_optimizer(run)
    parameters = run.encoder.get_trainable_parameters()
    losses = []
    for step, batch in enumerate(batches):
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=autocast):
            loss = text_loss(model, run.soft_tokens(batch), batch)
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(parameters, training.max_grad_norm or math.inf)
        set_learning_rate(optimizer, learning_rate_at(step, len(batches), training))
        optimizer.step()
        losses.append(loss.item())
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workload", type=Path, required=True, metavar="DIRECTORY")
    parser.add_argument("--fp32", action="store_true", help="without autocast")
    options = parser.parse_args()
    workload = Workload.open(options.workload)
    device = select_device()
    inputs = DeviceInputs(workload.inputs, device)
    model = load_model(workload.config, device)
    batches = all_batches(workload.config, inputs)
    start = time.perf_counter()
    losses = train(workload.config, inputs, batches, model, not options.fp32)
    print(json.dumps({"seconds": time.perf_counter() - start, "losses": losses}))


if __name__ == "__main__":
    main()
