"""How much memory there is and how much a run needs, measured before it starts."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from trainables.config import PretrainConfig
from trainables.llm.frozen import FrozenLLM
from trainables.llm.place.prompt import NO_PROMPT, Prompt
from trainables.llm.place.sequences import Rows
from trainables.training.batches import DeviceInputs
from trainables.training.run import make_encoder

BYTES_PER_PARAMETER = 16  # float32: the weight, its gradient, AdamW's two moments
MARGIN = 1.2  # allocators round up, and kernels need room to work in
PROBE_ROWS = (2, 4)  # two sizes, for the slope; small ones, as nothing is known yet
CGROUP = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int:
    """What this process could still take on the device, or of the machine's memory."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + reserved)
    meminfo = dict(
        line.split(":", 1)
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        if ":" in line
    )
    machine = int(meminfo["MemAvailable"].split()[0]) * 1024
    try:
        limit = int((CGROUP / "memory.max").read_text(encoding="utf-8"))
        used = int((CGROUP / "memory.current").read_text(encoding="utf-8"))
        statistics = dict(
            map(str.split, (CGROUP / "memory.stat").read_text(encoding="utf-8").splitlines())
        )
        used -= int(statistics.get("inactive_file", 0))  # read files that can be forgotten
    except (OSError, ValueError):  # no container, or one without a limit
        return machine
    return min(machine, limit - used)


class Footprint:
    """What a run of any configuration takes on this LLM and data, in bytes."""

    def __init__(self, llm: FrozenLLM, inputs: DeviceInputs) -> None:
        self._llm = llm
        self._inputs = inputs
        self._per_row: dict[int, float] = {}  # by the number of soft tokens

    def state(self, config: PretrainConfig) -> int:
        """What a run holds between its steps: encoder, gradients, optimiser."""
        with torch.device("meta"):
            encoder = make_encoder(config, self._inputs)
        parameters = sum(p.numel() for p in encoder.get_trainable_parameters())
        return BYTES_PER_PARAMETER * parameters + self._inputs.tool_embeddings.nbytes

    def step(self, config: PretrainConfig) -> float:
        """What a step takes on top, if all its texts were the longest."""
        soft_tokens = config.model.soft_tokens
        if soft_tokens not in self._per_row:
            measured = _activation_bytes_per_row(self._llm, self._inputs, soft_tokens)
            self._per_row[soft_tokens] = MARGIN * measured
        return config.training.batch_size * self._per_row[soft_tokens]


def _activation_bytes_per_row(llm: FrozenLLM, inputs: DeviceInputs, soft_tokens: int) -> float:
    """What one more row of a batch adds to a step, measured on the LLM with the sweep's prompt.

    The tensors kept for the backward pass are counted where they are kept, each storage once;
    the difference of two batch sizes leaves out whatever does not grow with the batch.
    """
    llm.around(inputs.prompt)  # once, and no part of a step
    # Counted, not read off the allocator: that would also see caches and other runs.
    small, large = (_saved_bytes(llm, rows, inputs, soft_tokens) for rows in PROBE_ROWS)
    return (large - small) / (PROBE_ROWS[1] - PROBE_ROWS[0])


def _saved_bytes(llm: FrozenLLM, rows: int, inputs: DeviceInputs, soft_tokens: int) -> int:
    length = int(inputs.token_ids.shape[-1])
    shape = (rows, soft_tokens, llm.hidden_size)
    soft = torch.zeros(shape, device=llm.device, requires_grad=True)
    ids = torch.zeros(rows, length, dtype=torch.int32, device=llm.device)
    group = Rows(soft, ids, torch.full((rows,), length))
    return kept_bytes(llm, group, inputs.prompt)


def kept_bytes(llm: FrozenLLM, group: Rows, prompt: Prompt = NO_PROMPT) -> int:
    """What the LLM keeps of these rows for the backward pass; its own weights are no part of it.

    Counted where it is kept, each storage once.
    """
    frozen = {p.untyped_storage().data_ptr() for p in llm.model.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in frozen:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = llm.joint_losses([group], prompt)
    del losses
    return sum(saved.values())
