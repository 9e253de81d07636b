"""Which Ray a command will run on: asked in seconds, before anything is created.

``ray.init`` waits for minutes for a cluster that is gone, and does not say what it misses.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ray.exceptions import AuthenticationError

from trainables.errors import UserError
from trainables.files import check_writable, exists, write_text
from tuning.home import private_directory
from tuning.ray_internals import (
    Answer,
    address_file,
    ask_cluster,
    ray_directory,
    resolve_address,
    token_is_found,
)

ADDRESS, MODE = "RAY_ADDRESS", "RAY_AUTH_MODE"
TOKEN, TOKEN_PATH = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
TOKEN_FILE = Path("~/.ray/auth_token")
MODES = ("token", "disabled")
OWN, ANY = "local", "auto"  # as Ray has it: one of its own; any of this machine
ASK_SECONDS, NODE_SECONDS, NODE_PAUSE = 4.0, 2.0, 0.2
TEMP_DIRS = ("RAY_TMPDIR", "TMPDIR")  # the first that is set counts
SOCKET = "session_2026-01-31_23-59-59_999999_{pid}/sockets/plasma_store"
SOCKET_BYTES = 107  # the longest path that the system takes for one
INSTEAD = f"or set {ADDRESS}={OWN} for a Ray of the command's own"


class RayStartError(UserError):
    """No cluster could be started or joined."""


@dataclass(frozen=True)
class FoundRay:
    """What ``ray_cluster`` joins or starts.

    ``address`` is that of ``ray.init``, which finds for itself what it is not told.
    """

    address: str | None
    remark: str = ""  # for whoever waits
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def joined(self) -> bool:
        return self.address != OWN


def find_ray() -> FoundRay:
    """The Ray of RAY_ADDRESS, or of `ray start`, else one to be started.

    Raises RayStartError where it can be neither joined nor started.
    """
    mode = _mode()
    given = os.environ.get(ADDRESS, "").strip()
    if given and given != OWN:
        told = f"`{ADDRESS}` is `{given}`"
        if problem := _problem(given, told, mode, by_itself=given == ANY):
            raise RayStartError(f"{told}, {problem}; correct it, {INSTEAD}")
        return FoundRay(None if given == ANY else given)
    file = address_file()
    if given == OWN or not os.path.lexists(file):
        return _own(mode)
    found = _read(file)
    if not found:
        return _own(mode, f"{file} names no Ray; starting one")
    told = f"{file} names a Ray at `{found}`"
    if problem := _problem(found, told, mode, by_itself=True):
        return _own(mode, f"{told}, {problem}; starting another")
    return FoundRay(None)


def _mode() -> str:
    """What RAY_AUTH_MODE says; empty where it is not set."""
    mode = os.environ.get(MODE)
    if mode is not None and mode.lower() not in MODES:
        raise RayStartError(
            f"`{MODE}` is `{mode}`, but must be {' or '.join(MODES)}, or not set: Ray takes all "
            "else for disabled, and lets everybody in"
        )
    return (mode or "").lower()


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _problem(given: str, told: str, mode: str, *, by_itself: bool) -> str:
    """Why the Ray at ``given`` cannot be joined; empty where it can.

    Ray sends a token unasked to what it has found ``by_itself``, but not to what it is told. Raises
    RayStartError where a Ray is there that wants another token.
    """
    try:
        address = resolve_address(given)
    except ConnectionError:
        return "but no Ray runs on this machine: start one with `ray start --head`"
    except ValueError:
        address = ""
    if not re.fullmatch(r".+:\d{1,5}", address):
        return "but must be HOST:PORT, the address of a Ray's head, which `ray start` prints" + (
            " (no sweep can run through Ray's client)" if "://" in given else ""
        )
    found = mode != "disabled" and _has_token()
    answer = _answer(address, found and (mode == "token" or (by_itself and not mode)))
    refused = answer.status == "UNAUTHENTICATED"
    if refused or (mode == "token" and not found and answer.status == "OK"):
        raise RayStartError(f"{told}, {_wanted_token(mode, found, by_itself)}, {INSTEAD}")
    return _silence(answer, address)


def _has_token() -> bool:
    try:
        return token_is_found()
    except AuthenticationError as error:
        path = os.environ.get(TOKEN_PATH)
        problem = f"`{TOKEN_PATH}` is `{path}`, which" if path else f"Ray's token ({error})"
        raise RayStartError(
            f"{problem} cannot be read or is empty; `ray get-auth-token` on the head prints what "
            f"belongs there, or unset {TOKEN_PATH}"
        ) from None


def _answer(address: str, send_token: bool) -> Answer:
    """The head's answer; a node that has just been added may take a moment to be known."""
    end = time.monotonic() + NODE_SECONDS
    while True:
        answer = ask_cluster(address, send_token, ASK_SECONDS)
        if answer.status != "OK" or answer.nodes_here or time.monotonic() > end:
            return answer
        time.sleep(NODE_PAUSE)


def _silence(answer: Answer, address: str) -> str:
    """What is wrong with an answer that asks for no token; empty where nothing is."""
    match answer.status:
        case "OK" if answer.nodes_here:
            return ""
        case "OK":
            return f"which has no node here: add this machine (`ray start --address {address}`)"
        case "DEADLINE_EXCEEDED":
            return f"but nothing answers at {address} within {ASK_SECONDS:g} s"
        case "UNAVAILABLE":
            return f"but no Ray answers at {address} ({_reason(answer.details)})"
    return f"but what answers at {address} is no Ray's head ({answer.status}: {answer.details})"


def _reason(details: str) -> str:
    """The last, which is the innermost, of gRPC's nested reasons."""
    if "parsing HTTP/2" in details:
        return "something else does"
    return details.rpartition(": ")[2].strip(" ]") or details


def _wanted_token(mode: str, found: bool, by_itself: bool) -> str:
    where = f"{TOKEN_FILE} or the file that {TOKEN_PATH} names"
    if mode != "token" and not (found and by_itself):
        have = "" if found else f", with the token of its head in {where}"
        return f"which asks for a token: `export {MODE}=token`{have}"
    if not found:
        return f"and `{MODE}` is token, but there is none: put the token of that head into {where}"
    source = TOKEN if os.environ.get(TOKEN) else os.environ.get(TOKEN_PATH) or TOKEN_FILE
    return (
        f"which does not take the token of {source}: `{MODE}` and token must be those of its head "
        "(`ray get-auth-token` prints it there)"
    )


def _own(mode: str, remark: str = "") -> FoundRay:
    """A Ray to be started; RayStartError where it would have no place to keep its files."""
    root = ray_directory()
    name = next((name for name in TEMP_DIRS if name in os.environ), TEMP_DIRS[0])
    excess = len(os.fsencode(root / SOCKET.format(pid=os.getpid()))) - SOCKET_BYTES
    if not root.is_absolute():
        raise RayStartError(f"`{name}` is `{os.environ[name]}`, but must be an absolute path")
    if excess > 0:
        raise RayStartError(
            f"`{name}` is `{root.parent}`, too long by {excess} bytes for the sockets that Ray "
            f"makes below it; set {TEMP_DIRS[0]} to a shorter directory, such as /tmp"
        )
    try:
        check_writable(root, TEMP_DIRS[0])
    except UserError as error:
        raise RayStartError(str(error)) from None
    return FoundRay(OWN, remark, {} if mode == "disabled" else _place_of_token())


def _place_of_token() -> dict[str, str]:
    """Where the token lies that Ray could neither find nor write into this user's home."""
    if _has_token():
        return {}
    file = TOKEN_FILE.expanduser()
    try:
        if exists(file, "HOME"):
            writable = os.access(file, os.W_OK)
        else:
            check_writable(file.parent, "HOME")
            writable = True
    except UserError:
        writable = False
    if writable:
        return {}
    place = private_directory() / "ray_auth_token"
    if not place.is_file():
        write_text(place, secrets.token_hex(32))
    return {TOKEN_PATH: str(place)}
