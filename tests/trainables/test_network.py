"""Servers and proxies that can be reached, and those that cannot, in time."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from trainables.network import within_reach

NOBODY = "127.0.0.1:9"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def test_who_listens_is_within_reach(server: str) -> None:
    assert within_reach(f"http://{server}/x", 5)
    assert not within_reach(f"http://{NOBODY}", 5)
    assert not within_reach("http://no.such.host.invalid", 5)
    assert not within_reach("http://127.0.0.1:port", 5)


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_behind_a_proxy_the_proxy_is_asked(
    variable: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, server)
    assert within_reach("https://example.invalid", 5)
    monkeypatch.setenv(variable, f"http://user:word@{NOBODY}")
    assert not within_reach("https://example.invalid", 5)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert within_reach(f"https://{server}", 5)


def test_a_slow_look_up_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*arguments: object) -> None:
        time.sleep(0.5)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", slow)
    start = time.monotonic()
    assert not within_reach("https://example.invalid", 0.05)
    assert time.monotonic() - start < 0.4
