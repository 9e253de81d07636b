"""Thousands of inputs, valid and not: ``python -m tests.fuzz --examples 2000 [--seed 0]``.

Each is checked as ``validate`` and ``launch`` check it, all but the training. It must work or be
refused with one line, at once, and leave nothing behind; the exit status says whether all were.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.inputs import KINDS
from tests.fuzz.outcome import Tally, Workbench
from tests.fuzz.pieces import Case


def fuzz(kind: str, examples: int, number: int, bench: Workbench) -> Tally:
    """Try so many inputs of one kind; ends early, with the smallest, if one goes wrong."""
    tally = Tally()

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(case=KINDS[kind])
    def attempt(case: Case) -> None:
        bench.attempt(case, tally)

    try:
        attempt()
    except BaseException:  # noqa: BLE001 - whatever a tool raises is what is looked for
        assert tally.wrong
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=2000, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=list(KINDS), help="this one alone (default: all)")
    parser.add_argument("--messages", action="store_true", help="print every refusal once")
    options = parser.parse_args()
    tallies: dict[str, Tally] = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        bench = Workbench(Path(directory))
        kinds = [options.kind] if options.kind else list(KINDS)
        for kind in kinds:
            each = -(-options.examples // len(kinds))
            tallies[kind] = tally = fuzz(kind, each, options.seed, bench)
            show(kind, tally)
            if options.messages:
                print("".join(sorted(tally.messages)))
        os.chdir("/")
    total = Tally(
        sum(t.accepted for t in tallies.values()),
        sum(t.refused for t in tallies.values()),
        [text for t in tallies.values() for text in t.wrong],
        max(t.slowest for t in tallies.values()),
    )
    show("all", total)
    print(f"{time.monotonic() - began:.0f} s")
    return bool(total.wrong)


def show(kind: str, tally: Tally) -> None:
    print(
        f"{kind:24} {tally.tried:6} tried {tally.accepted:6} accepted {tally.refused:6} refused "
        f"{len(tally.wrong):3} tracebacks or worse, slowest {tally.slowest:.2f} s",
        flush=True,
    )
    if tally.wrong and kind != "all":
        print(tally.wrong[-1])


if __name__ == "__main__":
    raise SystemExit(main())
