"""A sweep while a process runs it: what all that works on it has in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainables.files import wait_for_room
from trainables.llm.place.prompt import Prompt
from tuning.config.sweep import PBT, SweepConfig
from tuning.history.event_log import EventLog
from tuning.history.record import TUNE_DIR, SweepRecord
from tuning.sweep.directory import write_config
from tuning.sweep.history_writer import SweepCallback
from tuning.sweep.stopping import StopRequests
from tuning.terminal import Say


@dataclass
class RunningSweep:
    """State only: the functions of this room take it and say what they do with it.

    ``config`` is the only configuration there is; ``settle`` fills in what the cluster decides.
    """

    directory: Path
    config: SweepConfig
    record: SweepRecord
    say: Say
    requests: StopRequests
    history: SweepCallback

    @property
    def trials(self) -> Path:
        """Where each trial has a folder of its checkpoints."""
        return self.directory / TUNE_DIR

    @property
    def ray_log(self) -> Path:
        return self.directory / "logs" / "ray.log"

    def settle(self, has_gpu: bool) -> None:
        """Fill in ``deterministic``, for the sweep and its trainings alike.

        What the cluster has decided is written down, and counts on any other cluster, too.
        """
        if self.config.deterministic is None:
            self.config = self.config.model_copy(update={"deterministic": not has_gpu})
            write_config(self.directory, self.config, self.say)
        train = self.config.train
        training = train.training.model_copy(update={"deterministic": self.config.deterministic})
        train = train.model_copy(update={"training": training})
        self.config = self.config.model_copy(update={"train": train})

    def settle_prompt(self, prompt: Prompt) -> None:
        """Write down the tokens around the soft tokens, if ``auto`` or a text stood there.

        From then on nothing makes them again: a chat template may say another day's date.
        """
        train = self.config.train
        model = train.model.model_copy(update={"prompt": prompt.as_config})
        if model == train.model:
            return
        train = train.model_copy(update={"model": model})
        self.config = self.config.model_copy(update={"train": train})
        write_config(self.directory, self.config, self.say)

    def when_there_is_room(self, write: Callable[[], object]) -> None:
        """Call ``write`` again and again while the disk is full; a stop request ends that."""
        wait_for_room(write, self.directory, self.say, self.requests.wait)


def open_sweep(directory: Path, config: SweepConfig, record: SweepRecord, say: Say) -> RunningSweep:
    """The sweep with its history open; whoever opens it closes that at the end."""
    requests = StopRequests(directory, config.time_budget)
    log = EventLog(directory, say, requests.wait)
    # A population takes over any trial's weights: all keep theirs.
    keep_best = None if isinstance(config.scheduler, PBT) else config.keep_best
    history = SweepCallback(record, log, directory, keep_best)
    return RunningSweep(directory, config, record, say, requests, history)
