"""A place to keep things and a name, for a process that was given neither.

A container may run as a number that no user has, without HOME. Ray, Weights & Biases and PyTorch
ask for both, some of them while they are imported.
"""

from __future__ import annotations

import getpass
import os
import pwd
import stat
import tempfile
from pathlib import Path

from trainables.errors import UserError


def missing_identity() -> dict[str, str]:
    """HOME and USER where the system knows none; empty where it does."""
    missing = {}
    home = os.environ.get("HOME", "")
    if not home or home.startswith("~"):  # which Python takes for somebody's home, and gives up
        missing["HOME"] = _known_home() or str(private_directory())
    try:
        getpass.getuser()
    except (KeyError, OSError):  # before Python 3.13, and since
        missing["USER"] = f"user{os.getuid()}"
    return missing


def _known_home() -> str | None:
    """The one that the system has for this user."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir or None
    except KeyError:
        return None


def private_directory() -> Path:
    """A directory for temporary files that this user alone can read; always the same one."""
    directory = Path(tempfile.gettempdir(), f"encoder-tuning-{os.getuid()}")
    try:
        directory.mkdir(mode=stat.S_IRWXU, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise UserError(
            f"{directory} cannot be used ({error.strerror}); set HOME to a directory of yours"
        ) from None
    # Everybody may make a directory there; another's could hold anything.
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != stat.S_IRWXU:
        raise UserError(
            f"{directory} can be read or changed by others; set HOME to a directory of yours"
        )
    return directory
