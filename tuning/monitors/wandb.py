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

from trainables.errors import how_it_ended
from trainables.files import without_home
from trainables.metrics import scalars
from trainables.statuses import GOOD
from trainables.text import TEXT_AS_UTF8
from trainables.training.reports import EpochReport
from tuning.history.record import Event, EventKind, SweepRecord, TrialRecord
from tuning.monitors.wandb_environment import environment_of_runs
from tuning.terminal import Say, shown_path

ARCHITECTURE = "Deep Semantic + Gated Fusion"
CLOSE_SECONDS = 60  # a server that has stopped answering must not keep a sweep from ending


class WandbProcess:
    """Sends commands, one JSON document a line, to ``tuning.monitors.wandb_process``.

    What goes wrong there is told at once and at the end, and what is logged then goes nowhere:
    whoever logs is never held up.
    """

    def __init__(self, directory: Path, project: str, say: Say) -> None:
        self._directory = directory
        self._say = say
        self._troubles: list[str] = []
        self._closing = False
        kept, aside = environment_of_runs(os.environ)
        if aside:
            say(f"W&B: {', '.join(aside)} put aside; each training here is a run of its own")
        directory.mkdir(parents=True, exist_ok=True)
        self._output = (directory / "wandb_process.log").open("a", encoding="utf-8")
        command = [sys.executable, "-m", "tuning.monitors.wandb_process", str(directory), project]
        # A session of its own: Ctrl-C in the terminal must not cut off what is being written.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._output,
            encoding="utf-8",
            start_new_session=True,
            env={**kept, **TEXT_AS_UTF8, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        # The pipe is full while a server is slow; a thread waits for it, the sweep does not.
        self._commands: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._write, self._listen)
        ]
        for thread in self._threads:
            thread.start()

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

    def finish(self, run: str, status: str, best: Mapping[str, Any] | None = None) -> None:
        """The run has ended; its summary gets ``status`` and ``best``."""
        summary = {**(best or {}), "status": status}
        exit_code = 0 if status.startswith(GOOD) else 1
        self._send({"do": "finish", "run": run, "summary": summary, "exit_code": exit_code})

    def close(self) -> None:
        """Wait until all is written, but not for ever; what went wrong is said once more."""
        self._closing = True
        self._commands.put(None)
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        for thread in self._threads:
            thread.join()
        self._output.close()
        if self._troubles:
            more = len(self._troubles) - 1
            others = f" (and {more} more)" if more else ""
            self._say(f"W&B is incomplete: {self._troubles[0]}{others}; {self._where()}")

    def _where(self) -> str:
        kept = shown_path(self._directory / "wandb")
        return f"what was written is in {kept}, the reasons are in {shown_path(self._log)}"

    @property
    def _log(self) -> Path:
        return self._directory / "wandb_process.log"

    def _send(self, command: dict[str, Any]) -> None:
        if self._process.poll() is None:
            self._commands.put(command)

    def _write(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
            while (command := self._commands.get()) is not None:
                pipe.write(json.dumps(command) + "\n")
                pipe.flush()

    def _listen(self) -> None:
        """What the process says is what goes wrong in it; its end is heard at once."""
        assert self._process.stdout is not None
        with self._process.stdout as told:
            for line in told:
                self._trouble(line.strip())
        ending = self._process.wait()
        if ending or not self._closing:
            self._commands.put(None)  # nobody reads on
            self._trouble(f"its process {how_it_ended(ending)}, and what comes now is not logged")

    def _trouble(self, text: str) -> None:
        self._troubles.append(text)
        if len(self._troubles) == 1:  # what follows is mostly the same
            self._say(f"W&B: {text}; training goes on; see {shown_path(self._log)}")


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
        say: Say,
    ) -> None:
        self._process = WandbProcess(directory, project, say)
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
                trial = record.trials[trial_id]
                best = {
                    f"best_{record.metric}": record.value(trial),
                    "best_epoch": record.epoch_of(trial),
                }
                self._process.finish(trial_id, trial.described_status, best)

    def _start(self, trial: TrialRecord, *, anew: bool, until: float = math.inf) -> None:
        past = [trial.reports[epoch] for epoch in sorted(trial.reports) if epoch < until]
        config = run_config(self._config, *self._shape, trial.params)
        self._process.start(trial.trial_id, self._sweep, config, past if anew else None)
        if anew:
            self._steps[trial.trial_id] = past[-1]["step"] if past else 0

    def close(self) -> None:
        self._process.close()
