"""The background process that holds every W&B run: ``DIRECTORY PROJECT``, commands on stdin."""

from __future__ import annotations

import json
import sys
from typing import Any

import wandb

from tuning.monitors.wandb_mode import choose_mode


class WandbRuns:
    def __init__(self, directory: str, project: str) -> None:
        self._directory = directory
        self._project = project
        self._mode = choose_mode()
        self._runs: dict[str, Any] = {}
        print(f"mode: {self._mode}", flush=True)

    def obey(self, command: dict[str, Any]) -> None:
        name = command["run"]
        match command["do"]:
            case "start" if name in self._runs and command["past"] is None:
                self._runs[name].config.update(command["config"], allow_val_change=True)
            case "start":
                self._finish(name, 1)
                self._runs[name] = self._open(name, command["group"], command["config"])
                for epoch in command["past"] or ():
                    self._log(name, {}, epoch)
            case "log":
                self._log(name, command["series"], command["epoch"])
            case "finish":
                if name in self._runs:
                    self._runs[name].summary["status"] = command["status"]
                self._finish(name, command["exit_code"])

    def _open(self, name: str, group: str, config: dict[str, Any]) -> Any:
        return wandb.init(
            project=self._project,
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

    def close(self) -> None:
        for name in list(self._runs):
            self._finish(name, 1)

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


def main() -> None:
    runs = WandbRuns(*sys.argv[1:3])
    for line in sys.stdin:
        runs.obey(json.loads(line))
    runs.close()


if __name__ == "__main__":
    main()
