"""One Ray Train run, driven from outside: its reports as they come, its end in order."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.train import Checkpoint, UserCallback

from trainables.training.reports import Report, from_plain
from trainables.workers.dedicated import WorkerSettings, make_trainer
from tuning.execution.fleet import ABORT_SECONDS, end_run, introduce_controller
from tuning.ray_internals import ControllerStarted

POLL_SECONDS = 1.0  # how late a run that has died without a word is noticed


class ForwardReports(UserCallback):
    """Sends every report, with the checkpoint's path, from the Train controller to the driver."""

    def __init__(self, mailbox: ActorHandle, key: str) -> None:
        self._mailbox = mailbox
        self._key = key

    def after_report(
        self,
        run_context: Any,
        metrics: list[dict[str, Any]],
        checkpoint: Checkpoint | None,
    ) -> None:
        item = (from_plain(metrics[0]), checkpoint.path if checkpoint else None)
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
                ControllerStarted(partial(introduce_controller, mailbox, self._controller)),
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
                self._said_last = report.last
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
            end_run(self._mailbox, self._controller)
        self._pool.shutdown(wait=False)
        for key in (self._name, self._controller):
            self._mailbox.close.remote(key)
        shutil.rmtree(self._directory, ignore_errors=True)
