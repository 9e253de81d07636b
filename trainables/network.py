"""Whether a server can be reached, asked quickly instead of by a library's long retries."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlparse


def within_reach(url: str, seconds: float) -> bool:
    """True if the URL's host takes a connection; behind a proxy only the proxy can tell: True."""
    if any(os.environ.get(key) for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")):
        return True
    parts = urlparse(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), seconds).close()
    except OSError:
        return False
    return True
