"""A checkpoint of an earlier release as a directory of this one, with an account of what it holds.

gated                 an encoder with the old one's outputs
embedding_attention   an encoder whose fusion starts afresh, and ``checkpoint_000000``, from which
                      ``train --resume`` retrains it
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainables.config import PretrainConfig
from trainables.data.profiling import raw_feature_matrix
from trainables.errors import CheckpointError, ConfigError
from trainables.files import file_digest, new_directory
from trainables.inputs.checked_data import CheckedData, read_data
from trainables.inputs.find_or_prepare import FROM_CACHE, find_or_prepare
from trainables.inputs.preparing import Say, say_tools
from trainables.llm.location import check_heads, hidden_size, local_directory
from trainables.llm.probe import load_probed_llm
from trainables.migration.changes import Change
from trainables.migration.weights import EMBEDDINGS, gated_encoder, resource_mlp_weights
from trainables.models.earlier_files import EarlierFile
from trainables.models.features import FeatureStatistics
from trainables.training.batches import DeviceInputs
from trainables.training.checkpoint import write_checkpoint
from trainables.training.checkpoint_files import checkpoint_path
from trainables.training.run import Run

REPORT_FILE = "MIGRATION.md"
OF_THE_FILE = "that is what the file's encoder computes, whatever the configuration says"
HEADS = "`model.num_attention_heads`"


@dataclass(frozen=True)
class Migration:
    """Everything is checked by now; ``fill`` writes the encoder into an empty directory."""

    file: EarlierFile
    changes: Sequence[Change]
    notes: Sequence[str]
    fill: Callable[[Path], None]

    def write(self, out: Path) -> None:
        """``out``, which must not exist: whole or not there."""

        def fill(aside: Path) -> None:
            self.fill(aside)
            (aside / REPORT_FILE).write_text(self._report(), encoding="utf-8")

        new_directory(out, fill)

    def _report(self) -> str:
        changes = "\n".join(f"| {c.verb} | {c.what} | {c.why} |" for c in self.changes)
        notes = "\n".join(f"- {note}" for note in self.notes)
        digest = file_digest(self.file.path)
        return (
            f"# Migrated from `{self.file.path.name}`\n\nSHA-256 {digest}\n\n{notes}\n\n"
            f"| | what | why |\n|---|---|---|\n{changes}\n"
        )


def plan_migration(file: EarlierFile, config: PretrainConfig, out: Path, say: Say) -> Migration:
    """Check that file, data and LLM fit, and account for everything in the file."""
    if config.model.architecture != "gated_fusion":
        raise ConfigError(
            f"a checkpoint becomes a gated encoder, but `model.architecture` is "
            f"{config.model.architecture}; leave that key out"
        )
    data = read_data(config)
    directory = local_directory(config.model)
    size = hidden_size(directory) if directory else None  # of a hub id not cached here: unknown
    if size:
        check_heads(config.model.num_attention_heads, size, HEADS)
    match file.form:
        case "gated":
            return _keep_encoder(file, config, data, size)
        case "embedding_attention":
            width = config.model.d_resource or size
            return _begin_anew(file, config, width, out, say)


def _keep_encoder(
    file: EarlierFile, config: PretrainConfig, data: CheckedData, size: int | None
) -> Migration:
    raw = raw_feature_matrix(data.rows)[data.train_rows]
    names = [tool.name for tool in data.tools]
    encoder, changes = gated_encoder(file, names, FeatureStatistics.of(raw), config.model)
    if size not in (None, encoder.hidden_size):
        raise CheckpointError(
            f"{file.path}: is for a hidden size of {encoder.hidden_size}, but that of "
            f"`model.llm_model` is {size}; give the LLM that it was trained with"
        )
    options = [
        Change("set", f"model.{key}: {json.dumps(now)}, not {json.dumps(was)}", OF_THE_FILE)
        for key, now in encoder.options.items()
        if (was := getattr(config.model, key)) != now
    ]
    notes = [
        "Equal standardised figures give the old encoder's outputs. The number of heads, which the "
        "file does not state, cannot matter with one resource token.",
        f"The file does not name its tools: the names are those of `{config.data.tool_registry}`, "
        "in that order.",
        _scaling(config),
        "Retraining is recommended: seven resource tokens and streams of unit RMS, the defaults, "
        "keep more of the semantics. `train` begins with new weights.",
    ]
    return Migration(file, options + changes, notes, encoder.save_pretrained)


def _begin_anew(
    file: EarlierFile,
    config: PretrainConfig,
    width: int | None,
    out: Path,
    say: Say,
) -> Migration:
    weights, changes = resource_mlp_weights(file, width)

    def fill(aside: Path) -> None:
        run = _new_run(config, say)
        run.encoder.resource_mlp.load_state_dict(weights)
        run.encoder.save_pretrained(aside)
        checkpoint = checkpoint_path(aside, 0)
        checkpoint.mkdir()
        write_checkpoint(checkpoint, run, [])

    anew = [
        Change("computed", EMBEDDINGS, "the LLM's last hidden state at each tool's prompt"),
        Change("new", "fusion.*", "begins afresh, its gate at 0"),
    ]
    notes = [
        "Retraining is recommended: with the gate at 0 the encoder gives the tools' semantics "
        f"alone. `python run_tune.py train --config TRAIN.yaml --output_dir {out} --resume` trains "
        "on from here.",
        _scaling(config),
    ]
    return Migration(file, changes[: len(weights)] + anew + changes[len(weights) :], notes, fill)


def _new_run(config: PretrainConfig, say: Say) -> Run:
    llm = load_probed_llm(config)
    check_heads(config.model.num_attention_heads, llm.hidden_size, HEADS)
    inputs, origin = find_or_prepare(config, llm.device.type == "cuda", llm=llm, say=say)
    if origin == FROM_CACHE:
        say_tools(inputs.tool_names, "cache", say)
    return Run(config, DeviceInputs(inputs, llm.device))


def _scaling(config: PretrainConfig) -> str:
    return (
        "The file does not say how the six figures were scaled before they went in. Here they are "
        f"log(1 + x), standardised over the training rows of `{config.data.profiling_data}`. "
        "If they were scaled otherwise, `encode` does not give what the old encoder gave: retrain, "
        "or feed the encoder's `forward` with figures scaled as they were."
    )
