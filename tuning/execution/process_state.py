"""What a sweep changes of the process that runs it: one place, and put back afterwards.

A Python program may run a sweep between other things, and run another one after it.
"""

from __future__ import annotations

import contextlib
import locale
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

CHATTY = ("ray", "optuna", "py.warnings", "transformers")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """This process's environment with ``values``, for all that it starts inside the block.

    Afterwards it is as before, without what Ray has added by itself.
    """
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


UTF8_LOCALES = ("C.UTF-8", "C.utf8", "en_US.UTF-8", "UTF-8")


@contextlib.contextmanager
def files_in_utf8() -> Iterator[None]:
    """What libraries write without saying how, Ray the errors of trials, takes every character.

    Python asks the locale of this moment for the encoding of a file.
    """
    before = locale.setlocale(locale.LC_CTYPE)
    if locale.getencoding().lower().replace("-", "") != "utf8":
        for name in UTF8_LOCALES:
            with contextlib.suppress(locale.Error):  # not every system has every one
                locale.setlocale(locale.LC_CTYPE, name)
                break
    try:
        yield
    finally:
        locale.setlocale(locale.LC_CTYPE, before)


@contextlib.contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Ray's, Tune's and Python's warnings go to a file, not between the lines of the table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in CHATTY]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False  # Ray clears its logger's list
    try:
        with warnings.catch_warnings(), _warnings_captured():
            warnings.simplefilter("default")
            yield
    finally:
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
        handler.close()


@contextlib.contextmanager
def _warnings_captured() -> Iterator[None]:
    """They are logged; a program that had them logged before goes on with that."""
    shown = warnings.showwarning
    logging.captureWarnings(True)
    mine = warnings.showwarning is not shown
    try:
        yield
    finally:
        if mine:
            logging.captureWarnings(False)


@contextlib.contextmanager
def signal_handlers_kept() -> Iterator[None]:
    """Ray puts handlers of its own in their place, and leaves them there."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # no other may set them
            for number, handler in before.items():
                if handler is not None:  # of another language: it cannot be put back
                    signal.signal(number, handler)
