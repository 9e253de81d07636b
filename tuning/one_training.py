"""The command ``train``: one encoder, with numbered stages, a progress bar and checkpoints."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from trainables.config import PretrainConfig, as_begun, load_config
from trainables.errors import DivergedError, GateStuckError, OutOfMemoryError, UserError
from trainables.files import check_writable, new_directory
from trainables.inputs.cache import unread_prompts
from trainables.inputs.checked_data import describe_split
from trainables.inputs.find_or_prepare import FROM_CACHE, find_or_prepare
from trainables.inputs.preparing import check_length, say_tools
from trainables.inputs.shared_inputs import SharedInputs
from trainables.llm.frozen import FrozenLLM, free_device_memory, select_device
from trainables.llm.location import check_heads
from trainables.llm.probe import load_probed_llm
from trainables.statuses import Status
from trainables.training.batches import DeviceInputs
from trainables.training.checkpoint import save_checkpoint
from trainables.training.checkpoint_files import (
    best_checkpoint,
    checkpoint_path,
    checkpoints,
    newest_whole,
    prune,
    read_meta,
)
from trainables.training.pretraining import Pretraining
from trainables.training.reports import Ending, EpochReport, Report
from trainables.training.run import Run
from trainables.training.startup_time import announce, lateness
from tuning.checks import check_train
from tuning.monitors.wandb import WandbProcess, run_config
from tuning.terminal import duration

if TYPE_CHECKING:  # it loads Ray, which one worker does without
    from tuning.execution.finding_ray import FoundRay

KEEP_CHECKPOINTS = 2  # beside the best: the one before is used where the last one is damaged
FIGURES_SECONDS = 0.5
BEGUN_WITH = (("data", "split"), ("model", "prompt"), ("model", "num_soft_tokens"))
ENDINGS = {error.status: error for error in (DivergedError, GateStuckError, OutOfMemoryError)}


def train(
    path: Path,
    overrides: Sequence[str],
    resume: bool,
    log_wandb: bool,
    workers: int = 1,
    ray: FoundRay | None = None,
) -> None:
    """Train one encoder to its end, here or by ``workers`` on ``ray``.

    Raises UserError for input that cannot be used, before anything is created, and
    TrialEndedError if the training ends before its time.
    """
    config = load_config(path, overrides)
    out = Path(config.logging.output_dir)
    starting_point = newest_whole(out) if resume else None
    config = _as_it_began(starting_point, config)
    data = check_train(config)
    if starting_point is None:
        _check_new(out)
    if workers < 1:
        raise UserError(f"--workers is {workers}, but must be at least 1")
    if ray is not None and ray.remark:
        print(ray.remark)
    print(f"[1/5] Configuration and data: {len(data.tools)} tools, {len(data.rows)} rows")
    for remark in describe_split(config.data, data):
        print(f"      {remark}")
    print(f"[2/5] Semantic encoder: frozen LLM {config.model.llm_model}", flush=True)
    start = time.perf_counter()
    device = select_device()
    on_gpu = device.type == "cuda"
    prompts = unread_prompts(config, on_gpu)
    announce(config, prompts, on_gpu, partial(print, flush=True))
    llm = load_probed_llm(config, device)
    check_heads(config.model.num_attention_heads, llm.hidden_size, "`model.num_attention_heads`")
    inputs, origin = find_or_prepare(config, on_gpu, llm=llm, say=print)
    check_length(inputs, config.model.soft_tokens, llm.max_tokens)
    if origin == FROM_CACHE:
        say_tools(inputs.tool_names, "cache", print)
    pretraining = Pretraining(config, DeviceInputs(inputs, device), llm)
    _describe_encoder(pretraining.run, time.perf_counter() - start)
    if late := lateness(config, start, prompts, on_gpu):
        print(f"      {late.id}: {late.text}")
    _describe_texts(inputs, config.model.soft_tokens)
    _describe_optimisation(pretraining.run, llm, workers)
    if starting_point is not None:
        pretraining.resume(starting_point)
        print(f"      going on from {starting_point}")
    print(f"[5/5] Training, checkpoints in {out}", flush=True)
    done = pretraining.run.epoch
    if ray is None:
        reports: Iterator[Report] = _reports_here(pretraining, out)
    else:
        del pretraining, llm
        free_device_memory()
        reports = _reports_of_workers(ray, config, inputs, workers, out, starting_point)
    wandb = _start_wandb(config, inputs) if log_wandb else None
    try:
        _follow(reports, config, done, wandb)
    finally:
        if wandb is not None:
            wandb.close()
    print(f"best checkpoint: {best_checkpoint(out)}")


def _check_new(out: Path) -> None:
    """A training never mixes its checkpoints with another one's."""
    if checkpoints(out):
        raise UserError(
            f"{out} already holds checkpoints; go on with --resume, or give another --output_dir"
        )
    check_writable(out, "--output_dir")


def _as_it_began(starting_point: Path | None, config: PretrainConfig) -> PretrainConfig:
    """A training that goes on keeps what decides its rows and the place of its soft tokens."""
    if starting_point is None:
        return config
    begun = PretrainConfig.model_validate(as_begun(read_meta(starting_point)["config"]))
    for section, key in BEGUN_WITH:
        before, now = (getattr(getattr(c, section), key) for c in (begun, config))
        if before == now:
            continue
        # Nothing was chosen where the configuration has `auto`.
        if (section, key) != ("model", "prompt") or now != "auto":
            value = begun.model_dump()[section][key]
            said = value if isinstance(value, str) else json.dumps(value)
            print(f"`{section}.{key}` stays `{said}`, with which the training began")
        part = getattr(config, section).model_copy(update={key: before})
        config = config.model_copy(update={section: part})
    return config


def _describe_encoder(run: Run, seconds: float) -> None:
    encoder = run.encoder
    trainable = sum(p.numel() for p in encoder.get_trainable_parameters())
    print(f"      embeddings: {encoder.semantic_embeddings.shape}")
    print(f"      number of tools: {encoder.num_tools}")
    print(f"      hidden size: {encoder.hidden_size}")
    print(f"      trainable parameters: {trainable:,}")
    if encoder.has_gate:
        print(f"      Gate alpha initialized to: {encoder.get_gate_value():.6f}")
    print(f"      ready after {seconds:.1f} s")


def _describe_texts(inputs: SharedInputs, soft_tokens: int) -> None:
    templates, longest = inputs.token_ids.shape[1:]
    print(
        f"[3/5] Target texts: {len(inputs.train_rows)} for training, {len(inputs.val_rows)} held "
        f"out, {templates} templates, at most {longest} tokens"
    )
    before, after = len(inputs.prompt.before), len(inputs.prompt.after)
    tokens = "1 soft token" if soft_tokens == 1 else f"{soft_tokens} soft tokens"
    around = f", between {before} and {after} tokens of `model.prompt`" if before + after else ""
    print(f"      after {tokens}{around}")


def _describe_optimisation(run: Run, llm: FrozenLLM, workers: int) -> None:
    training = run.config.training
    print(
        f"[4/5] Optimisation: {run.total_steps} steps of {training.batch_size}, learning rate "
        f"{training.learning_rate:g} (gate x {training.gate_multiplier:g}), "
        f"{training.scheduler}; {llm.device}, LLM in {str(llm.dtype).removeprefix('torch.')}, "
        f"{workers} worker{'s' if workers > 1 else ''}"
    )


def _reports_here(pretraining: Pretraining, out: Path) -> Iterator[EpochReport]:
    """Train in this process, with a bar per step and a checkpoint per epoch."""
    run = pretraining.run
    with tqdm(
        total=run.total_steps, initial=run.step, unit="step", dynamic_ncols=True, disable=None
    ) as bar:
        shown = 0.0

        def show(run: Run) -> None:
            nonlocal shown
            bar.update()
            if time.monotonic() - shown < FIGURES_SECONDS:  # reading them waits for the device
                return
            shown = time.monotonic()
            losses, alpha = run.series.column("loss"), run.encoder.get_gate_value()
            bar.set_postfix_str(
                f"loss {losses[-1]:.4f}, avg_loss {sum(losses) / len(losses):.4f}, "
                f"lr {run.series.learning_rate[-1]:.2e}, α {alpha:.4f}",
                refresh=False,
            )

        pretraining.on_step = show
        for report in pretraining.reports():
            save_checkpoint(out, run, pretraining.history)
            prune(out, KEEP_CHECKPOINTS, best_checkpoint(out))
            yield report


def _reports_of_workers(
    ray: FoundRay,
    config: PretrainConfig,
    inputs: SharedInputs,
    workers: int,
    out: Path,
    start: Path | None,
) -> Iterator[Report]:
    """Train in several Ray Train workers; their checkpoints are brought to ``out``."""
    from trainables.workers.dedicated import WorkerSettings
    from trainables.workers.object_store import put_inputs
    from tuning.execution.cluster import check_slots, ray_cluster
    from tuning.execution.mailbox import open_mailbox
    from tuning.execution.train_run import TrainRun

    with ray_cluster(ray, out / "logs" / "ray.log") as cluster:
        check_slots(cluster, workers, "--workers")
        settings = WorkerSettings(config, put_inputs(inputs), str(start) if start else None)
        train_runs = (out / "train_runs").absolute()
        run = TrainRun(settings, "train", train_runs, workers, open_mailbox())
        try:
            for report, checkpoint in run.reports():
                if checkpoint is not None:
                    target = checkpoint_path(out, report.epoch)
                    shutil.rmtree(target, ignore_errors=True)
                    new_directory(target, partial(_copy_files, Path(checkpoint)))
                    prune(out, KEEP_CHECKPOINTS, best_checkpoint(out))
                yield report
        finally:
            run.close()
            shutil.rmtree(train_runs, ignore_errors=True)


def _copy_files(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)


def _follow(
    reports: Iterator[Report],
    config: PretrainConfig,
    done: int,
    wandb: WandbProcess | None,
) -> None:
    """One line per epoch, with an estimate of the time left, and one per finding that appears."""
    say = partial(tqdm.write, file=sys.stdout)  # while Ray runs, others' output goes to a file
    start, epochs = time.perf_counter(), config.training.num_epochs
    said: set[str] = set()
    for report in reports:
        if isinstance(report, Ending):
            raise ENDINGS[report.status](report.message)
        if wandb is not None:
            wandb.log(config.logging.output_dir, report)
        per_epoch = (time.perf_counter() - start) / (report.epoch - done)
        left = "" if report.last else f" - {duration(per_epoch * (epochs - report.epoch))} left"
        m = report.metrics
        say(
            f"Epoch {report.epoch}/{epochs} - Train Loss: {m['train_loss']:.4f} - "
            f"Gate α: {m['gate_alpha']:.4f} - Val Loss: {m['val_loss']:.4f} - "
            f"Retention: {m['semantic_retention']:.4f}{left}"
        )
        for finding in report.findings:
            if finding.id not in said:
                say(f"{finding.id}: {finding.text}")
                said.add(finding.id)
        if report.status in ENDINGS:
            raise ENDINGS[report.status](report.message)
        if "field_accuracy" in m:
            say(f"field accuracy on held-out rows: {m['field_accuracy']:.4f}")
    if wandb is not None:
        wandb.finish(config.logging.output_dir, Status.FINISHED)


def _start_wandb(config: PretrainConfig, inputs: SharedInputs) -> WandbProcess:
    process = WandbProcess(
        Path(config.logging.output_dir) / "wandb_runs",
        config.logging.wandb_project,
        partial(tqdm.write, file=sys.stdout),
    )
    shape = (len(inputs.tool_names), inputs.hidden_size)
    name = config.logging.output_dir
    process.start(name, "train", run_config(config.model_dump(), *shape, {}))
    return process
