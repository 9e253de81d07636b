"""The best trial as a directory to use elsewhere: weights, configuration, model card."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trainables.checkpoint_files import ENCODER_CONFIG_FILE, WEIGHTS_FILE
from trainables.errors import UserError
from trainables.files import exists, new_directory
from tuning.store import SweepRecord, TrialRecord, read_manifest

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


def best_of(directory: Path, record: SweepRecord) -> tuple[TrialRecord, Path]:
    """The best trial and where its checkpoint lies."""
    best = record.best()
    if best is None or best.checkpoint is None:
        raise UserError(
            f"sweep `{record.name}` has no trial yet that ended with a checkpoint and a finite "
            f"{record.metric}"
        )
    path = directory / best.checkpoint
    if not exists(path, "the checkpoint") or not path.is_dir():
        raise UserError(f"the checkpoint of {best.trial_id} is gone: {path}")
    return best, path


def export_best(directory: Path, record: SweepRecord, out: Path, replace: bool = False) -> Path:
    """Write the best trial's encoder to ``out``, which must not exist unless ``replace``."""
    best, checkpoint = best_of(directory, record)
    if exists(out, "--out") and not replace:
        raise UserError(f"--out {out}: exists already; give a directory that does not")
    try:
        meta = json.loads((checkpoint / "meta.json").read_text())
        card = _card(directory, record, best, meta, out.name)
        missing = [name for name in ENCODER_FILES if not (checkpoint / name).is_file()]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"the checkpoint {checkpoint} cannot be read: {error!r}") from None
    if missing:
        raise UserError(f"the checkpoint {checkpoint} has no {', '.join(missing)}")

    def fill(aside: Path) -> None:
        for name in ENCODER_FILES:
            shutil.copyfile(checkpoint / name, aside / name)
        (aside / CONFIG_FILE).write_text(json.dumps(meta["config"], indent=2) + "\n")
        (aside / CARD_FILE).write_text(card)

    try:
        if replace:
            shutil.rmtree(out, ignore_errors=True)
        new_directory(out, fill)
    except (OSError, ValueError) as error:
        raise UserError(f"--out {out}: cannot be written: {error}") from None
    return out


def _card(
    directory: Path, record: SweepRecord, best: TrialRecord, meta: dict[str, Any], out: str
) -> str:
    config = meta["config"]
    encoder = json.loads((directory / str(best.checkpoint) / "encoder.json").read_text())
    manifest = read_manifest(directory)
    llm = config["model"]["llm_model"]
    figures = "\n".join(
        f"| {key} | {best.metrics[key]:.6g} |" for key in CARD_METRICS if key in best.metrics
    )
    params = "\n".join(f"| `{key}` | {value} |" for key, value in best.params.items())
    versions = ", ".join(f"{name} {v}" for name, v in manifest["versions"].items())
    tools = ", ".join(encoder["tool_names"])
    tool = encoder["tool_names"][0]
    return f"""# Resource encoder from sweep `{record.name}`

The best of {len(record.trials)} trials by {record.metric} ({record.mode}): {best.trial_id},
{best.described_status}.

- frozen LLM: {Path(llm).name if Path(llm).is_absolute() else llm}
- hidden size: {encoder["hidden_size"]}
- tools: {tools}

```python
from trainables.models.resource_encoder import ResourceEncoder

encoder = ResourceEncoder.from_pretrained("{out}")
soft_token = encoder.encode(
    "{tool}",
    {{"input_size": "small", "cpu_core": 4, "cpu_mem_gb": 16,
     "gpu_sm": 50, "gpu_mem_gb": 8, "latency_ms": 120}},
)  # [{encoder["hidden_size"]}]
```

| figure | value |
|---|---|
{figures}

| searched | value |
|---|---|
{params}

Made with {versions}, tuning {_own_version()}, Python {manifest["python"]}.
"""


def _own_version() -> str:
    try:
        return version("encoder-tuning")
    except PackageNotFoundError:
        return "(not installed)"
