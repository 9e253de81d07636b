"""W&B in one background process for all runs; the sweep never waits for it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from trainables.files import without_home
from trainables.metrics import scalars
from trainables.statuses import GOOD
from trainables.training.reports import EpochReport
from tuning.history.record import Event, EventKind, SweepRecord, TrialRecord

ARCHITECTURE = "Deep Semantic + Gated Fusion"
CLOSE_SECONDS = 60  # a server that has stopped answering must not keep a sweep from ending


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
        # The pipe is full while a server is slow; a thread waits for it, the sweep does not.
        self._commands: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._writer.start()

    def start(
        self,
        run: str,
        group: str,
        config: Mapping[str, Any],
        past: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Go on with a run, or open one; with ``past``, its epochs so far, always a new one."""
        epochs = None if past is None else [scalars(dict(metrics)) for metrics in past]
        self._send(
            {"do": "start", "run": run, "group": group, "config": dict(config), "past": epochs}
        )

    def log(self, run: str, report: EpochReport) -> None:
        """The per-step series, then the epoch's figures and findings on its last step."""
        finding = ", ".join(finding.id for finding in report.findings)
        epoch = {**report.metrics, "finding": finding}
        self._send({"do": "log", "run": run, "series": report.series, "epoch": epoch})

    def finish(self, run: str, status: str) -> None:
        good = status.startswith(GOOD)
        self._send({"do": "finish", "run": run, "status": status, "exit_code": 0 if good else 1})

    def close(self) -> None:
        self._commands.put(None)
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._writer.join()
        self._output.close()

    def _send(self, command: dict[str, Any]) -> None:
        if self._process.poll() is not None:
            raise RuntimeError(f"its process ended, see {self._output.name}")
        self._commands.put(command)

    def _write(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
            while (command := self._commands.get()) is not None:
                pipe.write(json.dumps(command) + "\n")
                pipe.flush()


def run_config(
    config: Mapping[str, Any], num_tools: int, hidden_size: int, params: Mapping[str, Any]
) -> dict[str, Any]:
    """The W&B config of one training: what it is, and every value it ran with."""
    return {
        "architecture": ARCHITECTURE,
        "num_tools": num_tools,
        "hidden_dim": hidden_size,
        "gate_alpha_init": 0.0,
        **without_home(config),
        **params,
    }


class WandbMonitor:
    """One run per trial, grouped by sweep.

    A trial that goes back, to another process's epochs or to another trial's weights, gets a new
    run with the epochs before: W&B takes no step twice.
    """

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
        self._steps: dict[str, int] = {}  # the last one that each open run has

    def on_event(self, record: SweepRecord, event: Event, report: EpochReport | None) -> None:
        trial_id = event.get("trial_id", "")
        match event["event"]:
            case EventKind.START:
                self._start(record.trials[trial_id], anew=trial_id not in self._steps)
            case EventKind.EPOCH if report is not None:
                if report.metrics["step"] <= self._steps[trial_id]:
                    self._start(record.trials[trial_id], anew=True, until=report.epoch)
                self._process.log(trial_id, report)
                self._steps[trial_id] = report.metrics["step"]
            case EventKind.HISTORY if (
                trial_id in self._steps
            ):  # epochs of weights that it took over
                for metrics in event["history"]:
                    if metrics["step"] > self._steps[trial_id]:
                        self._process.log(trial_id, EpochReport(metrics))
                        self._steps[trial_id] = metrics["step"]
            case EventKind.END:
                self._process.finish(trial_id, record.trials[trial_id].described_status)

    def _start(self, trial: TrialRecord, *, anew: bool, until: float = math.inf) -> None:
        past = [trial.reports[epoch] for epoch in sorted(trial.reports) if epoch < until]
        config = run_config(self._config, *self._shape, trial.params)
        self._process.start(trial.trial_id, self._sweep, config, past if anew else None)
        if anew:
            self._steps[trial.trial_id] = past[-1]["step"] if past else 0

    def close(self) -> None:
        self._process.close()
