"""A sweep's directory: made whole or not at all, its configuration read, changed and checked."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainables.errors import UserError
from trainables.files import file_digest, wait_for_room, without_home, write_text
from tuning.config.sweep import ResolvedSweep, SweepConfig, dump_sweep, load_sweep
from tuning.history.event_log import EventLog, now
from tuning.history.lock import SweepLock
from tuning.history.manifest import (
    FORMAT_VERSION,
    read_created,
    read_manifest,
    with_checksum,
    write_manifest,
)
from tuning.history.record import Event, EventKind
from tuning.history.sweeps import CONFIG_FILE, STOP_FILE
from tuning.terminal import Say, run_tune_on

_log = logging.getLogger(__name__)

# The copies of the data in a sweep's directory, by their keys in its configuration.
INPUTS = {"tool_registry": "inputs/tools.json", "profiling_data": "inputs/profiling.csv"}
PACKAGES = ("torch", "transformers", "ray", "optuna", "wandb")
# What a resumed sweep may do otherwise; all else would make its trials incomparable.
MAY_CHANGE = (
    "num_trials",
    "time_budget",
    "search_space",
    "search",
    "scheduler",
    "max_concurrent",
    "execution",
    "retries",
    "keep_best",
)


def read_config(directory: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """A sweep's configuration as its history has it, and what ``overrides`` make of it."""
    path = directory / CONFIG_FILE
    recorded = read_created(directory)
    if recorded is not None and (not path.is_file() or path.read_bytes() != _bytes(recorded)):
        _log.warning("%s is damaged or was changed: put back from the history", path)
        write_text(path, recorded["sweep"])
    config = load_sweep(path, begun=True)
    if not overrides:
        return config
    changed = load_sweep(path, overrides, begun=True)
    for key in SweepConfig.model_fields:
        if key not in MAY_CHANGE and getattr(changed, key) != getattr(config, key):
            raise UserError(
                f"`{key}` cannot be changed in a sweep that has begun; can be: "
                f"{', '.join(MAY_CHANGE)}; start another with `launch`"
            )
    return changed


def _bytes(created: Event) -> bytes:
    return str(created["sweep"]).encode()


def write_config(directory: Path, config: SweepConfig, say: Say) -> None:
    """A changed configuration, in the history first: what is there counts."""
    manifest = {**read_manifest(directory), "num_trials": config.num_trials}
    text = dump_sweep(_portable(config))
    _write_created(EventLog(directory, say), manifest, text)
    wait_for_room(lambda: write_manifest(directory, manifest), directory, say)
    wait_for_room(lambda: write_text(directory / CONFIG_FILE, text), directory, say)


def _write_created(log: EventLog, manifest: dict[str, Any], text: str) -> None:
    log.write({"event": EventKind.CREATED, "manifest": with_checksum(manifest), "sweep": text})
    log.close()


def raise_format(directory: Path, say: Say) -> None:
    """Mark a sweep of an earlier release as one of this, before anything is written in its form.

    What an earlier release could misread, it refuses from then on.
    """
    manifest = read_manifest(directory)
    if manifest["format_version"] == FORMAT_VERSION:
        return
    text = (directory / CONFIG_FILE).read_text(encoding="utf-8")
    _write_created(EventLog(directory, say), manifest, text)
    wait_for_room(lambda: write_manifest(directory, manifest), directory, say)


def check_inputs(directory: Path) -> None:
    """The copies of the data must be those that the sweep began with."""
    for name, digest in read_manifest(directory)["inputs"].items():
        path = directory / "inputs" / name
        if not path.is_file() or file_digest(path) != digest:
            state = "damaged or changed" if path.is_file() else "missing"
            raise UserError(
                f"{path} is {state}, and the sweep cannot go on without the data it began with; "
                "put the original file there"
            )


def create_directory(sweep: ResolvedSweep) -> None:
    """The sweep's directory with copies of its inputs, whole or not at all."""
    directory, config = sweep.directory, sweep.config
    aside = directory.with_name(f".{directory.name}.aside-{os.getpid()}")
    data = config.train.data
    try:
        (aside / "inputs").mkdir(parents=True)
        for key, copy in INPUTS.items():
            shutil.copyfile(getattr(data, key), aside / copy)
        text, manifest = dump_sweep(_portable(config)), _manifest(sweep, aside)
        write_text(aside / CONFIG_FILE, text)
        write_manifest(aside, manifest)
        _write_created(EventLog(aside, _refuse), manifest, text)
        aside.rename(directory)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise UserError(f"the name `{sweep.name}` is already used: {directory}") from None
        raise UserError(f"`storage`: {directory} cannot be written: {error}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _refuse(line: str) -> None:
    """Nobody waits for room before a sweep has begun."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _portable(config: SweepConfig) -> SweepConfig:
    """Data paths below the sweep's directory; the cache relative to the working directory.

    The directory may be moved, and others may read it.
    """
    cache = Path(config.train.model.cache_dir)
    if cache.is_relative_to(Path.cwd()):
        cache = cache.relative_to(Path.cwd())
    model = config.train.model.model_copy(update={"cache_dir": str(cache)})
    data = config.train.data.model_copy(update=INPUTS)
    train = config.train.model_copy(update={"model": model, "data": data})
    storage = Path(config.storage).expanduser().absolute()
    if storage.is_relative_to(Path.cwd()):
        storage = storage.relative_to(Path.cwd())
    whole = config.model_copy(update={"train": train, "storage": str(storage)})
    return SweepConfig.model_validate(without_home(whole.model_dump(mode="json")))


def _manifest(sweep: ResolvedSweep, directory: Path) -> dict[str, Any]:
    inputs = sorted((directory / "inputs").iterdir())
    return {
        "name": sweep.name,
        "created": now(),
        "metric": sweep.config.metric,
        "mode": sweep.config.mode,
        "metric_at": sweep.config.metric_at,
        "num_trials": sweep.config.num_trials,
        "num_epochs": sweep.config.train.training.num_epochs,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "inputs": {path.name: file_digest(path) for path in inputs},
    }


@contextlib.contextmanager
def locked(directory: Path) -> Any:
    """One process at a time; what the system refuses in the directory is told in one line."""
    lock = SweepLock(directory)
    lock.acquire()
    try:
        (directory / STOP_FILE).unlink(missing_ok=True)  # of a sweep that had ended by itself
        yield
    except OSError as error:
        path = Path(os.fsdecode(error.filename2 or error.filename or ""))
        if not path.is_relative_to(directory):
            raise
        raise UserError(
            f"{path} cannot be used: {error.strerror}; nothing is lost, go on when it can: "
            f"{run_tune_on(directory, 'resume')}"
        ) from None
    finally:
        lock.release()
