"""The dedicated execution: a Tune trial that drives one Ray Train run of its own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.train import Checkpoint as TrainCheckpoint
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2.api.callback import UserCallback
from ray.util.queue import Empty, Queue

from trainables.config import PretrainConfig
from trainables.ray_train import WorkerSettings, make_trainer
from tuning.space import with_params

POLL_SECONDS = 0.05


class ForwardReports(UserCallback):
    """Sends every report, with the checkpoint's path, from the Train controller to the trial."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def after_report(
        self,
        run_context: TrainRunContext,
        metrics: list[dict[str, Any]],
        checkpoint: TrainCheckpoint | None,
    ) -> None:
        self._queue.put((metrics[0], checkpoint.path if checkpoint else None))


class DedicatedTrial:
    """``tune.run``'s trainable: builds the trial's trainer and forwards what it reports.

    Ray's own forwarding hides checkpoints from Tune; here each report reaches Tune together with
    its checkpoint, so that restore, PBT and ``ResultGrid`` see what is really there.
    """

    def __init__(
        self,
        config: PretrainConfig,
        inputs: ray.ObjectRef,
        workers: int,
        train_runs: Path,
    ) -> None:
        self._config = config
        self._inputs = inputs
        self._workers = workers
        self._train_runs = train_runs

    def __call__(self, suggestion: dict[str, Any]) -> None:
        name = trial_name(suggestion["number"])
        checkpoint = tune.get_checkpoint()
        settings = WorkerSettings(
            with_params(self._config, suggestion["params"], name),
            self._inputs,
            checkpoint.path if checkpoint else None,
        )
        for report, path in train_and_forward(settings, name, self._train_runs, self._workers):
            tune.report(report, checkpoint=tune.Checkpoint(path) if path else None)


def trial_name(number: int) -> str:
    return f"trial_{number:04d}"


def train_and_forward(
    settings: WorkerSettings, name: str, train_runs: Path, workers: int
) -> Iterator[tuple[dict[str, Any], str | None]]:
    """A Ray Train run from start to end: every report with its checkpoint's path.

    Each attempt is a Ray Train run of its own below ``train_runs``, removed at its end: where to
    go on from is the caller's knowledge, not what an older attempt left there.
    """
    attempt = f"{name}-{time.time_ns() // 1_000_000}"
    queue = Queue(actor_options={"num_cpus": 0})
    trainer = make_trainer(
        settings,
        name=attempt,
        storage_path=str(train_runs),
        workers=workers,
        callbacks=[ForwardReports(queue)],
    )
    with ThreadPoolExecutor(1, thread_name_prefix="ray_train") as pool:
        fit = pool.submit(trainer.fit)
        yield from _until_ended(queue, fit)
        fit.result()
    queue.shutdown()
    shutil.rmtree(train_runs / attempt, ignore_errors=True)


def _until_ended(queue: Queue, fit: Future[Any]) -> Iterator[tuple[dict[str, Any], str | None]]:
    while True:
        ended = fit.done()
        try:
            yield queue.get(timeout=POLL_SECONDS)
        except Empty:
            if ended:
                return
