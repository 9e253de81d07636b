"""A sweep's directory: what is written while it runs and read by every command after.

    sweep.yaml       the resolved configuration          inputs/     copies of the data files
    manifest.json    versions, hashes                    tune/       Ray Tune's experiment
    trials.jsonl     append-only history of events       best/       the best trial, exported
    study.journal    the Optuna study                    logs/       Ray's own chatter
    lock             held by the process that runs it

Nothing here imports Ray or torch.
"""

from __future__ import annotations

import logging
from pathlib import Path

from trainables.errors import UserError, did_you_mean
from trainables.files import exists
from trainables.statuses import Status
from tuning.history.event_log import EVENTS_FILE, read_events
from tuning.history.lock import is_locked
from tuning.history.manifest import MANIFEST_FILE, read_manifest
from tuning.history.record import SweepRecord, SweepState

CONFIG_FILE = "sweep.yaml"
STOP_FILE = "stop"  # made by who wants the sweep to end
_log = logging.getLogger(__name__)


def read_sweep(directory: Path) -> SweepRecord:
    """The record of a sweep, its state corrected if the process that ran it is gone."""
    manifest = read_manifest(directory)
    record = SweepRecord(
        manifest["name"],
        manifest["metric"],
        manifest["mode"],
        manifest["num_trials"],
        metric_at=manifest.get("metric_at", "last"),
    )
    for event in read_events(directory):
        try:
            record.apply(event)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            _log.warning("%s: an event was skipped: %r", directory / EVENTS_FILE, error)
    if record.state == SweepState.RUNNING and not is_locked(directory):
        record.state = SweepState.INTERRUPTED
    if record.state != SweepState.RUNNING:
        for trial in record.trials.values():
            if trial.status in (Status.PENDING, Status.RUNNING):
                trial.status = Status.INTERRUPTED
    return record


def list_sweeps(storage: Path) -> list[Path]:
    """The directories of all sweeps, oldest first."""
    if not exists(storage, "--storage"):
        return []
    try:
        marks = (MANIFEST_FILE, EVENTS_FILE)
        found = [
            path
            for path in storage.iterdir()
            if not path.name.startswith(".")  # one that is being made, or was not made whole
            and any((path / mark).is_file() for mark in marks)
        ]
    except OSError as error:
        raise UserError(f"--storage {storage}: cannot be listed: {error.strerror}") from None
    return sorted(found, key=lambda p: (_created(p), p.name))


def _created(directory: Path) -> float:
    try:
        return float(read_manifest(directory)["created"])
    except (UserError, OverflowError):
        return 0.0


def find_sweep(storage: Path, name: str) -> Path:
    """A sweep by its name, or by the path of its directory."""
    for directory in (storage / name, Path(name)):
        if any(exists(directory / file, "NAME") for file in (MANIFEST_FILE, EVENTS_FILE)):
            return directory.absolute()
    names = [p.name for p in list_sweeps(storage)]
    hint = did_you_mean(name, names)
    known = f"; there are: {', '.join(names)}" if names else "; there is none yet, see `launch`"
    raise UserError(f"no sweep `{name}` in {storage}{hint}{known}")
