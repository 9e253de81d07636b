"""The background process that holds every W&B run: ``DIRECTORY PROJECT``, commands on stdin.

On stdout it tells what goes wrong, a line each, and nothing else.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import traceback
from typing import IO, Any

import wandb

from trainables.errors import one_line
from tuning.monitors.wandb_mode import choose_mode


class WandbRuns:
    def __init__(self, directory: str, project: str) -> None:
        self._directory = directory
        self._project = project
        self._mode = choose_mode()
        self._runs: dict[str, Any] = {}
        print(f"mode: {self._mode}", file=sys.stderr, flush=True)

    def obey(self, command: dict[str, Any]) -> None:
        """Do what a command says; of a run that was left out nothing is logged any more."""
        name = command["run"]
        match command["do"]:
            case "start" if name in self._runs and command["past"] is None:
                self._runs[name].config.update(command["config"], allow_val_change=True)
            case "start":
                self._finish(name, 1)
                self._runs[name] = self._open(name, command["group"], command["config"])
                for epoch in command["past"] or ():
                    self._log(name, {}, epoch)
            case "log" if name in self._runs:
                self._log(name, command["series"], command["epoch"])
            case "finish":
                if name in self._runs:
                    self._runs[name].summary.update(command["summary"])
                self._finish(name, command["exit_code"])

    def _open(self, name: str, group: str, config: dict[str, Any]) -> Any:
        return wandb.init(
            project=self._project,
            id=secrets.token_hex(8),  # whatever a settings file says
            dir=self._directory,
            name=name,
            group=group,
            config=config,
            mode=self._mode,  # type: ignore[arg-type]
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                x_disable_stats=True,
                x_disable_meta=True,  # the machine's name, the user's, paths below home
                disable_git=True,
            ),
        )

    def leave_out(self, name: str) -> None:
        """A run that W&B has refused something of; its next start opens another."""
        self._runs.pop(name, None)

    def open_runs(self) -> list[str]:
        return list(self._runs)

    def _log(self, name: str, series: dict[str, list[float]], epoch: dict[str, Any]) -> None:
        run = self._runs[name]
        steps = zip(*series.values(), strict=True)
        rows = [dict(zip(series, values, strict=True)) for values in steps] or [{}]
        rows[-1] = {**epoch, **rows[-1]}
        for step, row in enumerate(rows, start=epoch["step"] - len(rows) + 1):
            run.log(row, step=step)

    def _finish(self, name: str, exit_code: int) -> None:
        run = self._runs.pop(name, None)
        if run is not None:
            run.finish(exit_code=exit_code)


def serve(runs: WandbRuns, commands: IO[str], troubles: IO[str]) -> None:
    """Obey one command after the other; one that fails costs its own run, no other."""

    def attempt(command: dict[str, Any]) -> None:
        try:
            runs.obey(command)
        except Exception as error:  # noqa: BLE001 - the other runs must go on
            traceback.print_exc()
            runs.leave_out(command["run"])
            reason = one_line(f"{type(error).__name__}: {error}")
            troubles.write(f"the run {command['run']} is left out: {reason}\n")
            troubles.flush()

    for line in commands:
        attempt(json.loads(line))
    for name in runs.open_runs():
        summary = {"status": "interrupted"}
        attempt({"do": "finish", "run": name, "summary": summary, "exit_code": 1})


def main() -> None:
    troubles = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what wandb and others print is no trouble of ours
    try:
        runs = WandbRuns(*sys.argv[1:3])
    except Exception as error:
        troubles.write(one_line(f"it cannot start: {type(error).__name__}: {error}") + "\n")
        troubles.flush()
        raise
    serve(runs, sys.stdin, troubles)


if __name__ == "__main__":
    main()
