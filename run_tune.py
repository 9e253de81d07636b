"""Tune the pretraining of a resource encoder: ``python run_tune.py --help``."""

import os
import sys


def restart_in_utf8() -> None:
    """Where only ASCII is known (``LC_ALL=C``, ``PYTHONUTF8=0``), begin again in UTF-8 mode.

    The names of files are bytes, and nobody else would say that they are UTF-8. What the terminal
    shows stays as it was.
    """
    if sys.getfilesystemencoding() != "ascii" or sys.flags.utf8_mode:
        return
    shown = getattr(sys.stdout, "encoding", "ascii")
    os.environ.setdefault("PYTHONIOENCODING", f"{shown}:backslashreplace")
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606


if __name__ == "__main__":
    restart_in_utf8()
    from tuning.cli import main

    sys.exit(main())
