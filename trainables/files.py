"""Writing that leaves nothing half-written: aside first, then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from trainables.errors import UserError
from trainables.text import decode

_log = logging.getLogger(__name__)
MAX_INPUT_BYTES = 1 << 30  # a file named by mistake, a model perhaps, must not fill the memory

URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
PLAIN_PATH = "a path of a file system; mount what is elsewhere, and give the place it is mounted at"


def is_uri(text: str) -> bool:
    """Whether a text is such as ``s3://bucket/key``, which as a path is a folder named ``s3:``."""
    return bool(URI.match(text))


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """``write`` a file beside ``path``, flush it to disk, then rename it onto ``path``."""
    # In the same directory: only within one file system is a rename either done or not done.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    aside = Path(name)
    aside.chmod(0o644)  # mkstemp makes files that only this user can read
    try:
        write(aside)
        _flush(aside)  # or a power cut could leave the new name with no content
        aside.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()


def exists(path: Path, what: str) -> bool:
    """``path.exists()``; a path that the system cannot even look up is the user's error."""
    try:
        return path.exists()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{what}: {path} cannot be looked up: {reason}") from None


def check_writable(directory: Path, flag: str) -> None:
    """``directory``, or the nearest one above it that exists, must take new files.

    What is allowed does not tell: a file system may be read-only, full or none that keeps files.
    """
    directory = directory.expanduser()
    above = (directory, *directory.absolute().parents)
    nearest = next(p for p in above if exists(p, flag) or p.is_symlink())
    if not nearest.is_dir():
        raise UserError(f"{flag} {directory}: {nearest} is not a directory; give another {flag}")
    try:
        with tempfile.TemporaryDirectory(prefix=".try-", dir=nearest) as aside:
            Path(aside, "file").write_text("room for a file", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{flag} {directory}: {nearest} cannot be written ({error.strerror}); give another "
            f"{flag}"
        ) from None


def read_input(path: Path, what: str) -> str:
    """The text of a file that a person wrote; anything else is told as what it is."""
    try:
        if not path.is_file():
            kind = "is not a regular file" if path.exists() else "no such file"
            raise UserError(f"{path}: {kind}; give {what}")
        if path.stat().st_size > MAX_INPUT_BYTES:
            raise UserError(f"{path}: larger than {MAX_INPUT_BYTES >> 20} MiB; is this {what}?")
        content = decode(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as {what}: {error}") from None
    if content.text is None or content.trouble:
        raise UserError(f"{path}: cannot be read as {what}: {content.trouble}")
    return content.text.replace("\r\n", "\n").replace("\r", "\n")


def without_home(value: Any) -> Any:
    """``value`` with this person's home directory written as ``~`` in all its texts.

    For what others will read; nobody else needs to know where a person keeps things.
    """
    match value:
        case str():
            home = os.path.expanduser("~")
            if home in ("~", os.sep):  # none is known, or it is all of the file system
                return value
            return re.sub(rf"(?<![\w./-]){re.escape(home)}(?![\w.-])", "~", value)
        case dict():
            return {key: without_home(item) for key, item in value.items()}
        case list():
            return [without_home(item) for item in value]
        case _:
            return value


def write_text(path: Path, text: str) -> None:
    replace_file(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def new_directory(path: Path, fill: Callable[[Path], object], *, replace: bool = False) -> None:
    """``fill`` a directory beside ``path``, flush its files, then rename it to ``path``.

    ``path`` must not exist, or it is removed once the new one is whole, with ``replace``; a
    directory that is there is never mixed with a new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        aside.chmod(0o755)
        fill(aside)
        for file in aside.iterdir():
            _flush(file)
        if replace:
            shutil.rmtree(path, ignore_errors=True)
        aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Inside it, what safetensors could not write to ``path`` is an OSError, as everywhere else."""
    try:
        yield
    except SafetensorError as error:
        found = OS_ERROR.search(str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from None


OS_ERROR = re.compile(r"os error (\d+)")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
ROOM_SECONDS = 5.0  # whoever makes room needs minutes; asking costs nothing


def wait_for_room(
    write: Callable[[], Any],
    path: Path,
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Any:
    """The result of ``write``; while the disk has no room for it, try again every few seconds."""
    told = False
    while True:
        try:
            result = write()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            if not told:
                say(f"no room left for {path}: waiting until there is some; nothing is lost")
            told = True
            sleep(ROOM_SECONDS)
            continue
        if told:
            say(f"there is room again for {path}")
        return result


def keep_if_possible(path: Path, write: Callable[[Path], object]) -> None:
    """A file of a cache: where there is no room for it, or no right to, it is not kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with system_errors(path):
            replace_file(path, write)
    except OSError as error:
        _log.warning("%s: not kept for the next time: %s", path, error.strerror)


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
