"""Whether W&B runs online or offline."""

from __future__ import annotations

import os
from urllib.parse import urlparse

import wandb

from trainables.network import within_reach

NETWORK_SECONDS = 3.0


def choose_mode() -> str:
    """``WANDB_MODE`` if set; online with a key and a reachable server, else offline."""
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    settings = wandb.setup().settings  # with what the environment and wandb's files say
    has_key = bool(settings.api_key) or _key_in_netrc(settings.base_url)
    return "online" if has_key and within_reach(settings.base_url, NETWORK_SECONDS) else "offline"


def _key_in_netrc(url: str) -> bool:
    import netrc

    try:
        return netrc.netrc().authenticators(urlparse(url).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False
