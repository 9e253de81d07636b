"""W&B in one background process for all runs; the sweep never waits for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.metrics import SERIES, scalars
from tuning.store import Event, SweepRecord

ARCHITECTURE = "Deep Semantic + Gated Fusion"
CLOSE_SECONDS = 60


class WandbProcess:
    """Sends commands, one JSON document a line, to ``tuning.monitors.wandb_process``."""

    def __init__(self, directory: Path, project: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._output = (directory / "wandb_process.log").open("a")
        command = [sys.executable, "-m", "tuning.monitors.wandb_process", str(directory), project]
        # A session of its own: Ctrl-C in the terminal must not cut off what is being written.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=self._output,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def start(self, run: str, group: str, config: Mapping[str, Any]) -> None:
        self._send({"do": "start", "run": run, "group": group, "config": dict(config)})

    def log(self, run: str, report: Mapping[str, Any]) -> None:
        """The per-step series, then the epoch's figures on its last step."""
        series = {name: report[key] for key, name in SERIES.items() if key in report}
        self._send({"do": "log", "run": run, "series": series, "epoch": scalars(report)})

    def finish(self, run: str, status: str) -> None:
        self._send({"do": "finish", "run": run, "status": status})

    def close(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(CLOSE_SECONDS)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
        self._output.close()

    def _send(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()


def run_config(
    config: Mapping[str, Any], num_tools: int, hidden_size: int, params: Mapping[str, Any]
) -> dict[str, Any]:
    """The W&B config of one training: what it is, and every value it ran with."""
    return {
        "architecture": ARCHITECTURE,
        "num_tools": num_tools,
        "hidden_dim": hidden_size,
        "gate_alpha_init": 0.0,
        **config,
        **params,
    }


class WandbMonitor:
    """One run per trial, grouped by sweep."""

    def __init__(
        self,
        directory: Path,
        project: str,
        sweep: str,
        config: Mapping[str, Any],
        num_tools: int,
        hidden_size: int,
    ) -> None:
        self._process = WandbProcess(directory, project)
        self._sweep = sweep
        self._config = config
        self._shape = (num_tools, hidden_size)

    def on_event(self, record: SweepRecord, event: Event, report: dict[str, Any]) -> None:
        trial_id = event.get("trial_id", "")
        match event["event"]:
            case "start":
                params = record.trials[trial_id].params
                self._process.start(
                    trial_id, self._sweep, run_config(self._config, *self._shape, params)
                )
            case "epoch":
                self._process.log(trial_id, report)
            case "end":
                self._process.finish(trial_id, record.trials[trial_id].described_status)

    def close(self) -> None:
        self._process.close()
