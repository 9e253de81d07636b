"""The best trial as a directory to use elsewhere: weights, configuration, model card."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trainables.config import EMBEDDED
from trainables.errors import CheckpointError, UserError, did_you_mean
from trainables.files import exists, new_directory
from trainables.training.checkpoint_files import (
    ENCODER_CONFIG_FILE,
    WEIGHTS_FILE,
    checkpoints,
    read_meta,
)
from tuning.history.manifest import read_manifest
from tuning.history.record import SweepRecord, TrialRecord

_log = logging.getLogger(__name__)
ENCODER_FILES = (WEIGHTS_FILE, ENCODER_CONFIG_FILE)
CONFIG_FILE = "training_config.json"
CARD_FILE = "README.md"
CARD_METRICS = (
    "val_loss",
    "train_loss",
    "gate_alpha",
    "semantic_retention",
    "field_accuracy",
    "epoch",
    "step",
)


def named_trial(record: SweepRecord, trial_id: str) -> TrialRecord:
    """A trial by its id; raises UserError if there is none or its weights are not kept."""
    trial = record.trials.get(trial_id)
    if trial is None:
        hint = did_you_mean(trial_id, record.trials)
        raise UserError(f"sweep `{record.name}` has no trial `{trial_id}`{hint}; see `trials`")
    if not record.weights(trial):
        why = "only the `keep_best` best are kept" if trial.checkpoint_removed else "none yet"
        raise UserError(f"{trial_id} has no checkpoint: {why}")
    return trial


def best_of(
    directory: Path, record: SweepRecord, trial_id: str | None = None
) -> tuple[TrialRecord, Path]:
    """The best trial and the whole checkpoint of its value; the trial as it stood at that.

    Where it is damaged, which is reported, another one of an epoch's end is taken, the newest, or
    the next best trial, unless a ``trial_id`` is asked for.
    """
    problems = []
    for trial in record.ranked() if trial_id is None else [named_trial(record, trial_id)]:
        recorded = directory / str(record.weights(trial))
        others = [path for path in checkpoints(recorded.parent) if path != recorded]
        if not recorded.is_dir():
            problems.append(f"the checkpoint of {trial.trial_id} is gone: {recorded}")
        for path in (recorded, *reversed(others)) if recorded.is_dir() else reversed(others):
            try:
                meta = read_meta(path)
            except CheckpointError as error:
                problems.append(str(error))
                continue
            epoch = meta["epoch"]
            reports = {e: report for e, report in trial.reports.items() if e <= epoch}
            # One written in mid-epoch has other weights than the epoch's figures.
            if epoch in reports and meta.get("step") == reports[epoch].get("step"):
                for problem in problems:
                    _log.warning("%s; taking %s of %s", problem, path.name, trial.trial_id)
                return replace(trial, reports=reports, best_epoch=epoch), path
    raise UserError(
        problems[0]
        if problems
        else f"sweep `{record.name}` has no trial yet that ended with a checkpoint and a finite "
        f"{record.metric}"
    )


def export_trial(
    directory: Path, record: SweepRecord, out: Path, trial_id: str | None = None
) -> Path:
    """Write the encoder of a trial, by default the best, to ``out``, which must not exist."""
    if exists(out, "--out"):
        raise UserError(f"--out {out}: exists already; give a directory that does not")
    try:
        return write_trial(directory, record, out, trial_id)
    except (OSError, ValueError) as error:
        raise UserError(f"--out {out}: cannot be written: {error}") from None


def write_trial(
    directory: Path,
    record: SweepRecord,
    out: Path,
    trial_id: str | None = None,
    *,
    replace: bool = False,
) -> Path:
    """As ``export_trial``, but raises OSError where the disk is full; may ``replace`` ``out``."""
    trial, checkpoint = best_of(directory, record, trial_id)
    ended = record.trials[trial.trial_id]
    of = f"of {len(record.trials)} trials by {record.metric} ({record.mode})"
    chosen = f"The best {of}: {trial.trial_id}" if trial_id is None else f"{trial.trial_id} {of}"
    told = f"""# Resource encoder from sweep `{record.name}`

{chosen},
{ended.described_status}; the weights are those of its epoch {trial.epoch} of {ended.epoch}.
"""
    return write_encoder(directory, trial, checkpoint, out, told, replace=replace)


def write_encoder(
    directory: Path, trial: TrialRecord, checkpoint: Path, out: Path, told: str, *, replace: bool
) -> Path:
    """A checkpoint's encoder with its description, which begins with ``told``."""
    try:
        config = read_meta(checkpoint)["config"]
        card = told + _card(directory, trial, checkpoint, config, out.name)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"the checkpoint {checkpoint} cannot be read: {error!r}") from None

    def fill(aside: Path) -> None:
        for name in ENCODER_FILES:
            shutil.copyfile(checkpoint / name, aside / name)
        (aside / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (aside / CARD_FILE).write_text(card, encoding="utf-8")

    new_directory(out, fill, replace=replace)
    return out


def _card(
    directory: Path, best: TrialRecord, checkpoint: Path, config: dict[str, Any], out: str
) -> str:
    encoder = json.loads((checkpoint / ENCODER_CONFIG_FILE).read_text(encoding="utf-8"))
    manifest = read_manifest(directory)
    llm, imports, name = _named_llm(config["model"]["llm_model"])
    before, after = (encoder.get("prompt", {}).get(part, []) for part in ("before", "after"))
    around = "with nothing around"
    if before or after:
        around = f"between {len(before)} and {len(after)} tokens of `prompt` in encoder.json"
    soft_tokens = encoder["options"].get("num_soft_tokens", 1)
    hidden_size = encoder["hidden_size"]
    shape = f"[{hidden_size}]" if soft_tokens == 1 else f"[{soft_tokens}, {hidden_size}]"
    figures = "\n".join(
        f"| {key} | {best.metrics[key]:.6g} |" for key in CARD_METRICS if key in best.metrics
    )
    params = "\n".join(f"| `{key}` | {value} |" for key, value in best.params.items())
    versions = ", ".join(f"{name} {v}" for name, v in manifest["versions"].items())
    tools = ", ".join(encoder["tool_names"])
    tool = json.dumps(encoder["tool_names"][0], ensure_ascii=False)  # as Python writes it, too
    return f"""
- frozen LLM: {llm}
- soft tokens: {soft_tokens}, {around}
- hidden size: {hidden_size}
- tools: {tools}

```python
from trainables.models.encoder import Encoder

encoder = Encoder.from_pretrained("{out}")
figures = {{"input_size": "small", "cpu_core": 4, "cpu_mem_gb": 16,
           "gpu_sm": 50, "gpu_mem_gb": 8, "latency_ms": 120}}
soft = encoder.encode({tool}, figures)  # {shape}
```

What the LLM writes about them, with the soft tokens where they stood in training:

```python
{imports}

llm, tokenizer = (
    kind.from_pretrained({name}) for kind in (AutoModelForCausalLM, AutoTokenizer)
)
inputs = encoder.inputs_embeds(llm, {tool}, figures)
written = llm.generate(inputs_embeds=inputs, max_new_tokens=80, do_sample=False)
print(tokenizer.decode(written[0], skip_special_tokens=True))
```

| figure | value |
|---|---|
{figures}

| searched | value |
|---|---|
{params}

Made with {versions}, tuning {_own_version()}, Python {manifest["python"]}.
"""


def _named_llm(llm: str) -> tuple[str, str, str]:
    """How a card speaks of the LLM, and in code what to import and to load."""
    imports = "from transformers import AutoModelForCausalLM, AutoTokenizer"
    if llm == EMBEDDED:
        return llm, f"{imports}\n\nfrom trainables.config import EMBEDDED_DIR", "EMBEDDED_DIR"
    if not Path(llm).is_absolute():
        return llm, imports, json.dumps(llm, ensure_ascii=False)
    shown = Path(llm).name  # the directory's place is nothing for others
    return f"{shown} (a directory)", imports, json.dumps(shown, ensure_ascii=False)


def _own_version() -> str:
    try:
        return version("encoder-tuning")
    except PackageNotFoundError:
        return "(not installed)"
