"""Makes a larger LLM of the embedded one: twice its hidden size, the same function on text.

    python -m benchmarks.wider_llm OUT_DIR [--seed 0]

Every hidden dimension stands there twice, and what reads it has its weights split between the
two: Net2WiderNet, Chen, Goodfellow and Shlens, "Net2Net", 2016, section 2.3. The split is uneven
by random amounts that cancel where both are equal, as they are for text; a soft token's 2 x D
numbers are free, so that an encoder meets another LLM: another D, other parameters.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from trainables.config import EMBEDDED_DIR

UNEVEN = 0.5  # spread of the split's random part, in spreads of the weights
READ = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight", "up_proj.weight")
WRITE = ("o_proj.weight", "down_proj.weight")


def widen(out: Path, seed: int) -> None:
    """Write the wider LLM with its tokenizer to ``out``."""
    torch.manual_seed(seed)
    narrow = AutoModelForCausalLM.from_pretrained(EMBEDDED_DIR, dtype=torch.float32)
    old = narrow.config
    wide = Qwen2ForCausalLM(
        Qwen2Config(
            **{
                **old.to_dict(),
                "hidden_size": 2 * old.hidden_size,
                "head_dim": old.hidden_size // old.num_attention_heads,
                "tie_word_embeddings": False,
            }
        )
    )
    state = {name: _widened(name, tensor) for name, tensor in narrow.state_dict().items()}
    wide.load_state_dict(state)
    _check_same_function(narrow, wide)
    wide.save_pretrained(out)
    AutoTokenizer.from_pretrained(EMBEDDED_DIR).save_pretrained(out)


def _widened(name: str, tensor: Tensor) -> Tensor:
    if name.endswith(READ) or name == "lm_head.weight":  # [out, D] -> [out, 2 D]
        uneven = UNEVEN * tensor.std() * torch.randn_like(tensor)
        return torch.cat([tensor / 2 + uneven, tensor / 2 - uneven], dim=1)
    if name.endswith(WRITE):  # [D, in] -> [2 D, in]
        return torch.cat([tensor, tensor])
    if name == "model.embed_tokens.weight":  # [vocabulary, D] -> [vocabulary, 2 D]
        return torch.cat([tensor, tensor], dim=1)
    if name.endswith("norm.weight"):
        return torch.cat([tensor, tensor])
    return tensor  # the biases of queries, keys and values


@torch.no_grad()
def _check_same_function(narrow: torch.nn.Module, wide: torch.nn.Module) -> None:
    ids = torch.arange(2, 66).unsqueeze(0)
    difference = (narrow(ids).logits - wide(ids).logits).abs().max()
    assert difference < 1e-3, f"the wider LLM's logits differ by {difference}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    widen(options.out, options.seed)


if __name__ == "__main__":
    main()
