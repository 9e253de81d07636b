"""A sweep's manifest: what it is, by which versions it was made, the hashes of its inputs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any

from trainables.errors import UserError
from trainables.files import write_text
from tuning.history.event_log import EVENTS_FILE, read_events
from tuning.history.record import FILE_NAME, Event, EventKind, check_event

MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 4
READABLE = (2, 3, 4)  # 2: an event has another name; before 4 a trial counts by its last epoch
SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_log = logging.getLogger(__name__)


def write_manifest(directory: Path, content: dict[str, Any]) -> None:
    write_text(directory / MANIFEST_FILE, json.dumps(with_checksum(content), indent=2) + "\n")


def with_checksum(content: dict[str, Any]) -> dict[str, Any]:
    """A manifest as it is written: with the version of its format and a checksum."""
    document = {**content, "format_version": FORMAT_VERSION}
    return {**document, "checksum": _checksum(document)}


def _checksum(document: dict[str, Any]) -> str:
    """Of everything but the checksum itself."""
    rest = {key: value for key, value in document.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


MANIFEST_FIELDS = {
    "name": str,
    "metric": str,
    "mode": str,
    "num_trials": int,
    "created": float | int,
    "python": str,
    "versions": dict,
    "inputs": dict,
}


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest; a damaged one is reported, and the copy in the history read instead."""
    try:
        manifest = json.loads((directory / MANIFEST_FILE).read_text(encoding="utf-8"))
        version = manifest["format_version"]
        if version in READABLE:
            _check_manifest(manifest)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        recorded = read_created(directory)
        if recorded is None:
            raise UserError(f"{directory}: `{MANIFEST_FILE}` cannot be read: {error!r}") from None
        _log.warning(
            "%s cannot be read (%s); using the copy in %s",
            directory / MANIFEST_FILE,
            error,
            EVENTS_FILE,
        )
        return dict(recorded["manifest"])
    if version not in READABLE:
        known = f"{', '.join(map(str, READABLE[:-1]))} and {READABLE[-1]}"
        raise UserError(f"{directory}: format version {version}; this release reads {known}")
    return dict(manifest)


def _check_manifest(manifest: dict[str, Any]) -> None:
    for key, kind in MANIFEST_FIELDS.items():
        if not isinstance(manifest[key], kind):
            raise TypeError(f"`{key}` is {type(manifest[key]).__name__}")
    if manifest["checksum"] != _checksum(manifest):
        raise ValueError("its checksum does not match")
    if manifest.get("metric_at", "last") not in ("best", "last"):
        raise ValueError("`metric_at` is none that a sweep can have")
    if not SWEEP_NAME.fullmatch(manifest["name"]) or manifest["mode"] not in ("min", "max"):
        raise ValueError("`name` or `mode` is none that a sweep can have")
    if not all(map(FILE_NAME.fullmatch, manifest["inputs"])):
        raise ValueError("`inputs` has names that are no file's")


def read_created(directory: Path) -> Event | None:
    """How the sweep was created or last changed, as its history has it; None if it does not."""
    with contextlib.suppress(UserError):
        found = [e for e in read_events(directory, warn=False) if e["event"] == EventKind.CREATED]
        with contextlib.suppress(KeyError, TypeError, ValueError):
            for event in found:
                check_event(event)
                _check_manifest(event["manifest"])
            return found[-1] if found else None
    return None
