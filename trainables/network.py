"""Whether a server can be reached, asked quickly instead of by a library's long retries."""

from __future__ import annotations

import socket
import threading
from queue import Empty, SimpleQueue
from urllib.parse import urlparse
from urllib.request import getproxies, proxy_bypass


def within_reach(url: str, seconds: float) -> bool:
    """True if the URL's host, or the proxy before it, takes a connection within ``seconds``."""
    server = urlparse(url)
    if proxy := _proxy_of(url):
        server = urlparse(proxy if "://" in proxy else f"http://{proxy}")
    answer: SimpleQueue[bool] = SimpleQueue()

    def connect() -> None:
        try:
            port = server.port or (443 if server.scheme == "https" else 80)
            socket.create_connection((server.hostname or "", port), seconds).close()
        except (OSError, ValueError):
            answer.put(False)
        else:
            answer.put(True)

    # In a thread, because nothing bounds the time that a look-up of the name takes.
    threading.Thread(target=connect, daemon=True).start()
    try:
        return answer.get(timeout=seconds)
    except Empty:
        return False


def _proxy_of(url: str) -> str | None:
    parts, proxies = urlparse(url), getproxies()
    if proxy_bypass(parts.hostname or ""):
        return None
    return proxies.get(parts.scheme) or proxies.get("all")
