"""How a person calls our programs from where they stand."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

RUN_TUNE = Path(__file__).parents[1] / "run_tune.py"


def shown_path(path: Path) -> str:
    """Relative to the working directory where it lies below it."""
    path, here = path.absolute(), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def program(name: str) -> str:
    """``name`` if the shell finds the one of this environment by it, else its path."""
    own = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    return name if found and Path(found) == own else shown_path(own)


def run_tune(*arguments: str) -> str:
    """The command line ``python run_tune.py ...`` as it works from here."""
    return " ".join([program("python"), shown_path(RUN_TUNE), *arguments])
