"""Checkpoints: a run goes on from one as if nothing had happened; a damaged one is refused."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from trainables.errors import CheckpointError
from trainables.models.encoder import Encoder
from trainables.training.checkpoint import load_checkpoint, save_checkpoint
from trainables.training.checkpoint_files import FILES, read_meta
from trainables.training.run import Run
from trainables.training.step import train_step
from tuning.verification.check import Check, ProblemError, Subjects


def _step(run: Run, subjects: Subjects) -> None:
    for error in train_step([run], subjects.llm).values():
        raise error


def _goes_on(subjects: Subjects) -> str:
    run, other = subjects.run(), subjects.run()
    _step(run, subjects)
    with tempfile.TemporaryDirectory() as parent:
        load_checkpoint(save_checkpoint(Path(parent), run, []), other)
    _step(run, subjects)
    _step(other, subjects)
    if run.series.column("loss") != other.series.column("loss"):
        raise ProblemError("the step after loading has another loss")
    weights, others = run.encoder.state_dict(), other.encoder.state_dict()
    changed = [name for name in weights if not torch.equal(weights[name], others[name])]
    if changed:
        raise ProblemError(f"after a step {', '.join(changed)} differ")
    return ""


@torch.no_grad()
def _encoder_comes_back(subjects: Subjects) -> str:
    run = subjects.run()
    batch = run.next_batch()
    run.encoder.gate.data.fill_(0.5)
    with tempfile.TemporaryDirectory() as parent:
        loaded = Encoder.from_pretrained(save_checkpoint(Path(parent), run, []))
    expected = run.encoder.eval()(batch.tool_index, batch.features)
    if not torch.equal(loaded(batch.tool_index, batch.features), expected):
        raise ProblemError("the loaded encoder gives other soft tokens")
    return ""


def _damage_is_seen(subjects: Subjects) -> str:
    with tempfile.TemporaryDirectory() as parent:
        path = save_checkpoint(Path(parent), subjects.run(), [])
        for name in FILES:
            content = (path / name).read_bytes()
            (path / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            try:
                read_meta(path)
            except CheckpointError:
                (path / name).write_bytes(content)
                continue
            raise ProblemError(f"a changed bit in `{name}` goes unnoticed")
    return ""


CHECKS = (
    Check(
        "a run goes on from its checkpoint bit for bit",
        "save weights, moments, schedule and random streams between two steps",
        _goes_on,
    ),
    Check(
        "`from_pretrained` gives the encoder that was saved",
        "save every option that shapes the output beside the weights",
        _encoder_comes_back,
    ),
    Check(
        "a changed bit is noticed",
        "keep a checksum of every file, and compare it before reading",
        _damage_is_seen,
    ),
)
