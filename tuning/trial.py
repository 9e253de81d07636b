"""The dedicated execution: a Tune trial that drives one Ray Train run of its own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.actor import ActorHandle
from ray.train import Checkpoint
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2.api.callback import UserCallback

from trainables.config import PretrainConfig
from trainables.ray_train import WorkerSettings, make_trainer
from tuning.fleet import ABORT_SECONDS, IntroduceController, abort
from tuning.packed_trial import copy_checkpoint
from tuning.space import with_params

POLL_SECONDS = 1.0
Report = dict[str, Any]


class ForwardReports(UserCallback):
    """Sends every report, with the checkpoint's path, from the Train controller to the driver."""

    def __init__(self, mailbox: ActorHandle, key: str) -> None:
        self._mailbox = mailbox
        self._key = key

    def after_report(
        self,
        run_context: TrainRunContext,
        metrics: list[Report],
        checkpoint: Checkpoint | None,
    ) -> None:
        item = (metrics[0], checkpoint.path if checkpoint else None)
        ray.get(self._mailbox.put.remote(self._key, item))


class TrainRun:
    """One attempt at a training: a Ray Train run with a name and a directory of its own.

    Where to go on from is the caller's knowledge, not what an older attempt left behind.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        name: str,
        train_runs: Path,
        workers: int,
        mailbox: ActorHandle,
    ) -> None:
        self._name = f"{name}-{time.time_ns() // 1_000_000}"
        self._controller = f"{self._name}/controller"
        self._directory = train_runs / self._name
        self._mailbox = mailbox
        trainer = make_trainer(
            settings,
            name=self._name,
            storage_path=str(train_runs),
            workers=workers,
            callbacks=[
                ForwardReports(mailbox, self._name),
                IntroduceController(mailbox, self._controller),
            ],
        )
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ray_train")
        self._fit: Future[Any] = self._pool.submit(trainer.fit)
        self._said_last = False
        self._newest_read: str | None = None

    def reports(self) -> Iterator[tuple[Report, str | None]]:
        """Every report with its checkpoint's path; raises what ended the run, if anything did."""
        while True:
            ended = self._fit.done()
            items = ray.get(self._mailbox.get.remote(self._name, POLL_SECONDS))
            for report, checkpoint in items:
                self._said_last = report["last"]
                yield report, checkpoint
                self._forget(checkpoint)
            if ended and not items:
                self._fit.result()
                return

    def _forget(self, checkpoint: str | None) -> None:
        """Remove the checkpoint before the one just read; the newest serves a worker's restart."""
        if checkpoint is not None:
            if self._newest_read is not None:
                shutil.rmtree(self._newest_read, ignore_errors=True)
            self._newest_read = checkpoint

    def close(self) -> None:
        """End the run if it goes on, give back what it holds, remove its directory."""
        if self._said_last:
            wait([self._fit], ABORT_SECONDS)
        if not self._fit.done():
            # A run whose driver is killed keeps its resources until Ray's cleaner notices.
            abort(self._mailbox, self._controller)
        self._pool.shutdown(wait=False)
        for key in (self._name, self._controller):
            self._mailbox.close.remote(key)
        shutil.rmtree(self._directory, ignore_errors=True)


@dataclass(frozen=True)
class TrialSettings:
    """What all trials of a sweep have in common."""

    config: PretrainConfig
    inputs: ray.ObjectRef
    mailbox: ActorHandle
    workers: int
    train_runs: Path


class DedicatedTrial(tune.Trainable):
    """Each step is an epoch; checkpoint and restore are real, so that every scheduler works."""

    def setup(self, config: dict[str, Any], settings: TrialSettings) -> None:
        self._settings = settings
        self._name = self.trial_name
        self._params = config["params"]
        self._run: TrainRun | None = None
        self._reports: Iterator[tuple[Report, str | None]] = iter(())
        self._checkpoint: str | None = config.get("start")
        self._inherited = False

    def __repr__(self) -> str:
        """The name that Ray's dashboard and logs show for the actor."""
        return self._name

    def step(self) -> Report:
        if self._run is None:
            self._start()
        report, checkpoint = next(self._reports)
        self._checkpoint = checkpoint or self._checkpoint
        return {**report, "done": report["last"], "should_checkpoint": checkpoint is not None}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        if self._checkpoint is not None:
            copy_checkpoint(Path(self._checkpoint), Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint: str | None) -> None:
        """The directory is only lent for the call: keep a copy until the workers have read it."""
        if checkpoint is None or not any(Path(checkpoint).iterdir()):
            return
        self._close()
        start = self._settings.train_runs / f"{self._name}-start"
        shutil.rmtree(start, ignore_errors=True)
        copy_checkpoint(Path(checkpoint), start)
        self._checkpoint = str(start)
        self._inherited = Path(checkpoint).parent.name != self._name

    def cleanup(self) -> None:
        self._close()
        shutil.rmtree(self._settings.train_runs / f"{self._name}-start", ignore_errors=True)

    def _start(self) -> None:
        common = self._settings
        config = with_params(common.config, self._params, self._name)
        settings = WorkerSettings(config, common.inputs, self._checkpoint, self._inherited)
        self._run = TrainRun(
            settings, self._name, common.train_runs, common.workers, common.mailbox
        )
        self._reports = self._run.reports()

    def _close(self) -> None:
        if self._run is not None:
            self._run.close()
            self._run = None
