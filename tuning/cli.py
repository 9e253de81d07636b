"""The command line. Reading commands, ``validate`` and ``--help`` import neither Ray nor torch."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

from trainables.errors import TrialEndedError, UserError
from tuning.commands.compare import add_compare
from tuning.commands.identity import identified
from tuning.commands.launch import add_launch
from tuning.commands.migrate import add_migrate
from tuning.commands.read import add_reading
from tuning.commands.refit import add_refit
from tuning.commands.train import add_train
from tuning.commands.verify import add_verify
from tuning.terminal import (
    output_is_broken,
    prepare_terminal,
)

USER_ERROR = 2  # as argparse has it
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

DESCRIPTION = """\
Tune the pretraining of a resource encoder on Ray.

  launch     run a sweep              list      all sweeps
  resume     go on with one, or more  status    one sweep in short
  stop       end one in order         trials    every trial of a sweep
  train      train one encoder        best      the best trial
  validate   check without training   export    its encoder, to use elsewhere
  verify     check its parts          refit     it again, with other seeds
  compare    both architectures, or   migrate   files of earlier releases
             two sweeps, side by side
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, 2 for an error that the user can mend."""
    logging.basicConfig(format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        prepare_terminal()
        options = make_parser().parse_args(arguments)
        with identified():
            status = int(options.command(options) or 0)
        sys.stdout.flush()
        return status
    except UserError as error:
        print("\n".join(["error: " + error.lines[0], *error.lines[1:]]), file=sys.stderr)
        return USER_ERROR
    except TrialEndedError as error:
        print(f"error: training ended, {error.status}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if not output_is_broken():
            raise
        if not isinstance(error, BrokenPipeError):
            print(f"error: standard output cannot be written: {error.strerror}", file=sys.stderr)
        return 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="run_tune.py",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add_train(commands)
    add_launch(commands)
    add_reading(commands)
    add_refit(commands)
    add_migrate(commands)
    add_verify(commands)
    add_compare(commands)
    return parser
