"""What a sweep takes of the disk, and what the disk has left for it."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path


def used_bytes(directory: Path) -> int:
    """The sizes of all files below ``directory``; one that has several names counts once."""
    found: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):  # a running sweep removes checkpoints
                stat = os.lstat(Path(folder, name))
                found[stat.st_dev, stat.st_ino] = stat.st_size
    return sum(found.values())


def free_bytes(directory: Path) -> int:
    """What this user may still write there; a quota does not show."""
    return shutil.disk_usage(directory).free
