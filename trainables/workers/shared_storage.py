"""Whether a host sees the directory that its checkpoints go to."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from trainables.errors import UserError
from trainables.files import file_digest


@dataclass(frozen=True)
class SharedFile:
    """A file of the driver's that every host must see, by what is in it."""

    path: str
    digest: str


def shared_file(path: Path) -> SharedFile:
    return SharedFile(str(path), file_digest(path))


def check_seen(file: SharedFile) -> None:
    """Raises UserError on a machine that sees another file there, or none.

    It would train to the end, and the driver would find none of its checkpoints.
    """
    try:
        seen = file_digest(Path(file.path)) == file.digest
    except OSError:
        seen = False
    if not seen:
        raise UserError(
            f"the machine {socket.gethostname()} does not see the sweep's directory "
            f"{Path(file.path).parent}; give a --storage that all machines of the cluster share, "
            "such as a network file system"
        )
