"""Checkpoints as files: a directory of safetensors and JSON that is either whole or not there.

encoder.safetensors, encoder.json   the encoder; ``Encoder.from_pretrained`` reads them
optimizer.safetensors               AdamW's moments by parameter name
random.safetensors                  the run's random streams, and what it did of the epoch
meta.json                           format version, configuration, place, history, checksums

Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

from trainables.errors import CheckpointError
from trainables.files import file_digest, wait_for_room

FORMAT_VERSION = 1
META_FILE = "meta.json"
WEIGHTS_FILE = "encoder.safetensors"
ENCODER_CONFIG_FILE = "encoder.json"
OPTIMIZER_FILE = "optimizer.safetensors"
RANDOM_FILE = "random.safetensors"
FILES = (WEIGHTS_FILE, ENCODER_CONFIG_FILE, OPTIMIZER_FILE, RANDOM_FILE)
NAME = re.compile(r"checkpoint_(\d{6})(_\d+)?")
BEST = re.compile(r"best_\d{6}")
REMOVABLE = re.compile(rf"({NAME.pattern}|{BEST.pattern})$|\.checkpoint_")

_log = logging.getLogger(__name__)


def checkpoint_path(parent: Path, epoch: int) -> Path:
    return parent / f"checkpoint_{epoch:06d}"


def read_meta(directory: Path) -> dict[str, Any]:
    """The meta data of a checkpoint whose files match their checksums."""
    if directory.is_file():
        _refuse_earlier_files(directory)
        raise CheckpointError(f"{directory}: is a file; give the directory of a checkpoint")
    try:
        meta = json.loads((directory / META_FILE).read_text(encoding="utf-8"))
        if meta["format_version"] != FORMAT_VERSION:
            raise CheckpointError(
                f"{directory}: format version {meta['format_version']}, but this release reads "
                f"{FORMAT_VERSION}"
            )
        if meta.get("checksum", meta_checksum(meta)) != meta_checksum(meta):
            raise ValueError("its checksum does not match")
        for name in FILES:
            path = directory / name
            if not path.is_file() or file_digest(path) != meta["checksums"][name]:
                state = "damaged" if path.is_file() else "missing"
                raise CheckpointError(f"{directory}: `{name}` is {state}; use another checkpoint")
    except FileNotFoundError:
        raise CheckpointError(f"{directory}: no checkpoint here (no `{META_FILE}`)") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{directory}: `{META_FILE}` is damaged: {error!r}") from None
    return dict(meta)


def meta_checksum(meta: dict[str, Any]) -> str:
    """Of everything but the checksum itself."""
    rest = {key: value for key, value in meta.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def checkpoints(parent: Path) -> list[Path]:
    """The checkpoints below a directory, oldest first."""
    if not parent.is_dir():
        return []
    found = (p for p in parent.iterdir() if p.is_dir() and NAME.fullmatch(p.name))
    return sorted(found, key=lambda path: [int(part) for part in path.name.split("_")[1:]])


def newest_whole(parent: Path) -> Path:
    """The newest undamaged checkpoint below ``parent``; damaged ones are reported and skipped."""
    for path in reversed(checkpoints(parent)):
        try:
            read_meta(path)
        except CheckpointError as error:
            _log.warning("%s; going back to the one before", error)
            continue
        return path
    _refuse_earlier_files(parent)
    raise CheckpointError(f"{parent}: no whole checkpoint here; start without --resume")


def _refuse_earlier_files(path: Path) -> None:
    """The file ``path`` or the files in it, if an earlier release wrote them."""
    from trainables.models.earlier_files import is_earlier_file, refusal  # torch, here only

    for file in [path] if path.is_file() else sorted(path.glob("*.pt")):
        if is_earlier_file(file):
            raise refusal(file)


def best_checkpoint(parent: Path) -> Path | None:
    """The checkpoint with the lowest val_loss, by meta data alone; unreadable ones do not count."""
    found = []
    for path in checkpoints(parent):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            meta = json.loads((path / META_FILE).read_text(encoding="utf-8"))
            found.append((float(meta["metrics"]["val_loss"]), path))
    return min(found)[1] if found else None


def best_path(parent: Path, epoch: int) -> Path:
    """Where the best epoch's checkpoint is kept, whatever becomes of the one it is a copy of."""
    return parent / f"best_{epoch:06d}"


def bests(parent: Path) -> list[Path]:
    """All that lies in such places."""
    return [path for path in parent.iterdir() if BEST.fullmatch(path.name)]


def remove_checkpoints(parent: Path, keep: Collection[Path] = ()) -> None:
    """Remove all but ``keep``, and what a kill has left of those that were being written."""
    if not parent.is_dir():
        return
    for path in parent.iterdir():
        if REMOVABLE.match(path.name) and path not in keep:
            shutil.rmtree(path, ignore_errors=True)


def copy_checkpoint(source: Path, target: Path) -> None:
    """``link_checkpoint`` as soon as there is room for it."""
    wait_for_room(partial(link_checkpoint, source, target), target, _log.warning)


def link_checkpoint(source: Path, target: Path) -> None:
    """``target`` becomes what ``source`` is, whole."""
    aside = target.with_name(f".checkpoint_{target.name}")
    for left in (aside, target):
        shutil.rmtree(left, ignore_errors=True)
    aside.mkdir(parents=True)
    for file in source.iterdir():
        _link_or_copy(file, aside / file.name)
    aside.rename(target)


def _link_or_copy(source: Path, target: Path) -> None:
    """Checkpoints never change: two names for one file are as good as two files."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def prune(parent: Path, keep: int, best: Path | None) -> None:
    """Remove all but the newest ``keep`` checkpoints and ``best``."""
    for path in checkpoints(parent)[:-keep]:
        if path != best:
            shutil.rmtree(path, ignore_errors=True)
