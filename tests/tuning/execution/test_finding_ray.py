"""Which Ray is joined or started, and what is said of one that cannot be: in seconds, one line."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from ray.core.generated import gcs_service_pb2 as messages
from ray.core.generated.gcs_service_pb2_grpc import (
    NodeInfoGcsServiceServicer,
    add_NodeInfoGcsServiceServicer_to_server,
)

from tuning.cli import main
from tuning.execution.finding_ray import FoundRay, RayStartError, find_ray

EVERYWHERE = "0.0.0.0"  # noqa: S104 - Ray takes 127.0.0.1 for this machine's own address
TOKEN, NODE = "a" * 64, "0" * 56
KEPT_IN = "ray_auth_token"
EARLIER = Path(__file__).parents[2] / "assets" / "sweep_format_2"
VARIABLES = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "TMPDIR")


@pytest.fixture
def own_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Ray's own directory, a home and no variable of Ray's: nothing of this machine counts."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    place = Path(tempfile.mkdtemp(prefix="ray_", dir="/tmp"))  # short: for sockets
    monkeypatch.setenv("RAY_TMPDIR", str(place))
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield place / "ray"
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ASK_SECONDS", "NODE_SECONDS"):
        monkeypatch.setattr(f"tuning.execution.finding_ray.{name}", 0.5)


class Head(NodeInfoGcsServiceServicer):  # type: ignore[misc]
    """Answers as a Ray's head does; with a token only to who sends it."""

    def __init__(self, token: str = "") -> None:
        self.token = token

    def _let_in(self, context: grpc.ServicerContext) -> None:
        sent = dict(context.invocation_metadata()).get("authorization", "")
        if self.token and sent != f"Bearer {self.token}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken: missing or wrong")

    def CheckAlive(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._let_in(context)
        return messages.CheckAliveReply()

    def GetAllNodeInfo(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._let_in(context)
        reply = messages.GetAllNodeInfoReply()
        for selector in request.node_selectors:
            reply.node_info_list.add().node_id = selector.node_id
        return reply


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch, own_ray: Path) -> Iterator[Head]:
    """A head that RAY_ADDRESS names, with a node on this machine."""
    server, servicer = grpc.server(ThreadPoolExecutor(1)), Head()
    add_NodeInfoGcsServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"{EVERYWHERE}:0")
    server.start()
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    monkeypatch.setattr("tuning.ray_internals.find_node_ids", lambda: {NODE})
    yield servicer
    server.stop(None)


def refusal() -> str:
    start = time.monotonic()
    with pytest.raises(RayStartError) as caught:
        find_ray()
    assert time.monotonic() - start < 10
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_address(directory: Path, address: str) -> Path:
    """The file that `ray start` leaves."""
    directory.mkdir()
    file = directory / "ray_current_cluster"
    file.write_text(address)
    return file


def write_token(token: str) -> None:
    file = Path.home() / ".ray" / "auth_token"
    file.parent.mkdir(exist_ok=True)
    file.write_text(token)


@pytest.mark.usefixtures("own_ray")
@pytest.mark.parametrize("given", [None, "", "local"])
def test_a_ray_of_its_own(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if given is not None:
        monkeypatch.setenv("RAY_ADDRESS", given)
    found = find_ray()
    assert found == FoundRay("local")
    assert not found.joined
    assert list(Path.home().iterdir()) == []


@pytest.mark.usefixtures("own_ray")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("foo", "must be HOST:PORT"),
        ("host:port", "must be HOST:PORT"),
        ("http://127.0.0.1:8265", "must be HOST:PORT"),
        ("ray://127.0.0.1:10001", "no sweep can run through Ray's client"),
        (":6379", "must be HOST:PORT"),
        ("127.0.0.1:1", "refused"),
        ("no-such-host.invalid:6379", "but no Ray answers at no-such-host.invalid:6379"),
    ],
)
def test_an_address_that_leads_nowhere(
    given: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", given)
    line = refusal()
    assert line.startswith(f"`RAY_ADDRESS` is `{given}`, but ")
    assert said in line
    assert "RAY_ADDRESS=local" in line


def test_auto_finds_none(own_ray: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", NoAddresses())
    assert "no Ray runs on this machine" in refusal()


class NoAddresses:
    def __call__(self) -> set[str]:
        return set()

    def cache_clear(self) -> None:
        pass


@pytest.mark.usefixtures("own_ray", "short_wait")
def test_what_listens_and_is_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    web = ThreadingHTTPServer((EVERYWHERE, 0), QuietHandler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{web.server_port}")
    assert "(something else does)" in refusal()
    web.shutdown()
    web.server_close()
    other = grpc.server(ThreadPoolExecutor(1))
    port = other.add_insecure_port(f"{EVERYWHERE}:0")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    other.start()
    assert "is no Ray's head (UNIMPLEMENTED" in refusal()
    other.stop(None)


class QuietHandler(BaseHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.usefixtures("own_ray", "short_wait")
def test_what_takes_a_connection_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((EVERYWHERE, 0)) as silent:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{silent.getsockname()[1]}")
        assert "within 0.5 s" in refusal()


def test_a_head_is_joined(head: Head) -> None:
    found = find_ray()
    assert found == FoundRay(os.environ["RAY_ADDRESS"])
    assert found.joined


@pytest.mark.usefixtures("short_wait")
def test_a_head_without_a_node_here(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuning.ray_internals.find_node_ids", set)
    assert "which has no node here: add this machine (`ray start --address " in refusal()


def test_a_head_that_asks_for_a_token(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray sends none to an address that it is told, whatever token it has."""
    head.token = TOKEN
    assert "which asks for a token: `export RAY_AUTH_MODE=token`, with the token" in refusal()
    write_token(TOKEN)
    assert "which asks for a token: `export RAY_AUTH_MODE=token`, or set" in refusal()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert "which asks for a token: `export RAY_AUTH_MODE=token`, with the token" in refusal()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert find_ray().joined
    write_token("another")
    assert "which does not take the token of ~/.ray/auth_token" in refusal()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    assert "which does not take the token of RAY_AUTH_TOKEN:" in refusal()
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert find_ray().joined


def test_a_token_is_wanted_and_there_is_none(
    head: Head, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert "and `RAY_AUTH_MODE` is token, but there is none: put the token" in refusal()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "nowhere"))
    assert f"`RAY_AUTH_TOKEN_PATH` is `{tmp_path / 'nowhere'}`, which cannot be read" in refusal()


@pytest.mark.usefixtures("own_ray")
@pytest.mark.parametrize("mode", ["tokne", ""])
def test_a_mode_that_ray_would_take_for_disabled(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    assert f"`RAY_AUTH_MODE` is `{mode}`, but must be token or disabled" in refusal()


def test_the_ray_of_ray_start(head: Head, own_ray: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by itself, Ray sends it the token that it has."""
    file = write_address(own_ray, os.environ["RAY_ADDRESS"])
    monkeypatch.delenv("RAY_ADDRESS")
    assert find_ray() == FoundRay(None)
    head.token = TOKEN
    assert refusal().startswith(f"{file} names a Ray at `127.0.0.1:")
    write_token(TOKEN)
    assert find_ray() == FoundRay(None)
    assert find_ray().joined


@pytest.mark.parametrize("mode", [None, "token", "disabled"])
def test_a_file_of_a_ray_that_is_gone(
    mode: str | None, own_ray: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    file = write_address(own_ray, "127.0.0.1:1")
    found = find_ray()
    assert found.address == "local"
    assert found.remark.startswith(f"{file} names a Ray at `127.0.0.1:1`, but no Ray answers at ")
    assert found.remark.endswith("; starting another")
    assert file.read_text() == "127.0.0.1:1", "it is not ours"


def test_a_file_that_says_nothing(own_ray: Path) -> None:
    file = write_address(own_ray, "")
    assert find_ray() == FoundRay("local", f"{file} names no Ray; starting one")
    file.write_text("rubbish")
    assert "must be HOST:PORT" in find_ray().remark


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_directory_that_is_too_long_for_sockets(
    name: str, own_ray: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR")
    long = tmp_path / ("x" * 100)
    monkeypatch.setenv(name, str(long))
    assert refusal().startswith(f"`{name}` is `{long}`, too long by ")
    assert not long.exists()


def test_the_longest_directory_is_taken(own_ray: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray itself checks its sockets' paths."""
    from ray._private.utils import validate_socket_filepath

    session = f"ray/session_2026-11-26_05-55-09_796477_{os.getpid()}/sockets/plasma_store"
    room = 107 - len(session) - 1
    place = own_ray.parent / ("x" * (room - len(str(own_ray.parent)) - 1))
    validate_socket_filepath(f"{place}/{session}")
    monkeypatch.setenv("RAY_TMPDIR", str(place))
    assert find_ray().address == "local"
    monkeypatch.setenv("RAY_TMPDIR", f"{place}x")
    assert "too long by 1 bytes" in refusal()


@pytest.mark.usefixtures("own_ray")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("ray_here", "must be an absolute path"),
        ("/proc", "cannot be written"),
        ("/dev/null", "is not a directory"),
    ],
)
def test_a_directory_that_ray_cannot_use(
    given: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", given)
    line = refusal()
    assert said in line
    assert "RAY_TMPDIR" in line


def test_a_home_that_takes_no_token(own_ray: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = own_ray.parent / "private"
    private.mkdir()
    monkeypatch.setattr("tuning.execution.finding_ray.private_directory", lambda: private)
    monkeypatch.setenv("HOME", "/proc/none")
    found = find_ray()
    assert found == FoundRay("local", environment={"RAY_AUTH_TOKEN_PATH": str(private / KEPT_IN)})
    first = (private / KEPT_IN).read_text()
    assert len(first) == 64
    assert find_ray() == found
    assert (private / KEPT_IN).read_text() == first, "the dashboard's password stays"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert find_ray() == FoundRay("local")


@pytest.mark.usefixtures("own_ray")
@pytest.mark.parametrize(
    "command",
    [
        ["launch"],
        ["resume", "one", "--num_trials", "9"],
        ["train", "--workers", "2"],
        ["verify"],
        ["verify", "object_store"],
    ],
    ids=" ".join,
)
def test_every_command_that_needs_ray_says_it_before_anything_is_made(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "foo")
    sweep = tmp_path / "sweeps" / "one"
    if "one" in command:
        shutil.copytree(EARLIER, sweep)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert main(command) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: `RAY_ADDRESS` is `foo`, but must be HOST:PORT")
    assert len(said.err.splitlines()) == 1
    assert said.out == ""
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
