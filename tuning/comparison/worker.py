"""A process of a comparison: the start measured stage by stage, then one training to its end."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainables.config import PretrainConfig
from trainables.errors import TrialEndedError
from trainables.files import write_text
from trainables.inputs.cache import find_inputs
from trainables.inputs.checked_data import read_data
from trainables.inputs.find_or_prepare import find_or_prepare
from trainables.inputs.preparing import prepare_inputs
from trainables.llm.frozen import free_device_memory, load_llm, select_device
from trainables.models.encoder import evaluating
from trainables.training.batches import DeviceInputs
from trainables.training.pretraining import Pretraining, set_determinism
from trainables.training.run import Run
from tuning.comparison.jobs import FINISHED, GATED, Job, Trained, progress_path, result_path


class Stages:
    """Seconds by stage, one after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def end(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now


def fill_cache(config: PretrainConfig, threads: int) -> None:
    """The shared inputs prepared once, so that every job finds them."""
    torch.set_num_threads(threads)
    find_or_prepare(config, on_gpu=select_device().type == "cuda")


def train_job(job: Job, directory: Path) -> None:
    """Train, and leave the result in ``directory``."""
    torch.set_num_threads(job.threads)
    config, device = job.config, select_device()
    set_determinism(config.training.deterministic, device)
    if job.timed:  # what every process pays once: modules, the file cache
        load_llm(config, device)
        free_device_memory()
    begun, cpu_begun = time.perf_counter(), time.process_time()
    pretraining, cached = start_from_cache(config, device)
    result = _train(pretraining, progress_path(directory, job))
    measured: dict[str, Any] = {
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": time.process_time() - cpu_begun,
        "load": os.getloadavg()[0],
    }
    if job.timed:
        measured |= {"cached": cached, "cold": start_without_cache(config, device)}
    result = result.model_copy(update=measured)
    write_text(result_path(directory, job), result.model_dump_json(indent=1) + "\n")


def start_from_cache(
    config: PretrainConfig, device: torch.device
) -> tuple[Pretraining, dict[str, float]]:
    """Ready for the first step, with the shared inputs from the cache; seconds by stage."""
    stages = Stages()
    llm = load_llm(config, device)
    stages.end("LLM")
    inputs = find_inputs(config, device.type == "cuda")
    if inputs is None:
        raise RuntimeError("the cache of the shared inputs was emptied meanwhile")
    stages.end("inputs")
    pretraining = Pretraining(config, DeviceInputs(inputs, device), llm)
    stages.end("encoder")
    return pretraining, stages.seconds


def start_without_cache(config: PretrainConfig, device: torch.device) -> dict[str, float]:
    """Seconds by stage until the first step could be made, with only what this architecture needs.

    The gated one needs the LLM's forward pass over every tool's prompt, the earlier one the rows
    of its input layer for the tools' names.
    """
    stages = Stages()
    llm = load_llm(config, device)
    stages.end("LLM")
    data = read_data(config)
    stages.end("data")
    llm.tokenizer([tool.prompt for tool in data.tools])  # loaded with its first use
    stages.end("tokenizer")
    if config.model.architecture == GATED:
        semantic = llm.last_token_states([tool.prompt for tool in data.tools])
    else:
        semantic = llm.mean_input_embeddings([tool.name for tool in data.tools])
    stages.end("semantic stream")
    inputs = prepare_inputs(llm, data, semantic.numpy())
    stages.end("texts")
    Pretraining(config, DeviceInputs(inputs, device), llm)
    stages.end("encoder")
    return stages.seconds


def _train(pretraining: Pretraining, progress: Path) -> Trained:
    run = pretraining.run
    history: list[dict[str, float]] = []
    first_loss: float | None = None
    outcome, message = FINISHED, ""
    progress.write_text("", encoding="utf-8")
    try:
        for report in pretraining.reports():
            rates = sum(report.series["learning_rate"])
            history.append({**report.metrics, "rate_sum": rates})
            first_loss = report.series["loss"][0] if first_loss is None else first_loss
            with progress.open("a", encoding="utf-8") as file:
                file.write(".")
    except TrialEndedError as error:
        outcome, message = error.status, error.message
    semantic, resource = stream_rms(run) if outcome == FINISHED else (None, None)
    return Trained(
        config=run.config,
        outcome=outcome,
        message=message,
        seconds=0,
        cpu_seconds=0,
        load=0,
        cold={},
        cached={},
        history=history,
        first_loss=first_loss,
        trainable_parameters=sum(p.numel() for p in run.encoder.get_trainable_parameters()),
        semantic_rms=semantic,
        resource_rms=resource,
    )


def stream_rms(run: Run) -> tuple[float, float]:
    """Root mean squares of both streams on the held-out rows, before the fusion."""
    rows = run.inputs.val_rows.to(run.inputs.device)
    with torch.no_grad(), evaluating(run.encoder):
        semantic = run.encoder.semantic_embeddings[run.inputs.tool_index[rows]]
        resource = run.encoder.resource_mlp(run.inputs.features[rows])
    return _rms(semantic), _rms(resource)


def _rms(x: Tensor) -> float:
    return float(x.pow(2).mean().sqrt())
