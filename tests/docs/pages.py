"""The pages that a person reads, and the commands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks/RESULTS.md"])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)


def blocks(page: Path, language: str = "") -> Iterator[str]:
    """The fenced blocks of one language; without a language those that name none."""
    for found, text in FENCE.findall(page.read_text()):
        if found == language:
            yield text


def commands(page: Path) -> Iterator[str]:
    """The lines of a page's blocks that call ``run_tune.py``, without a prompt or a remark."""
    for block in blocks(page):
        for line in block.splitlines():
            command = line.removeprefix("$ ").partition("  #")[0].strip()
            if re.match(r"(\S*/)?python run_tune\.py ", command):
                yield command


def anchors(page: Path) -> set[str]:
    """What a link into the page may name, as GitHub makes it from the headings."""
    text = FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in kept}
