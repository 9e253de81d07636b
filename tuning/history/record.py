"""What a sweep's events tell: its trials with their parameters, figures and endings.

Nothing here imports Ray or torch.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from trainables.statuses import GOOD, Status

TUNE_DIR = "tune"
TRIAL_ID = re.compile(r"trial_\d{1,9}")
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")  # never a way to another directory
HISTORY_KEYS = ("epoch", "train_loss", "val_loss", "gate_alpha", "semantic_retention")
MAX_FIGURE = 1e300  # sums and differences of what is read stay finite
Event = dict[str, Any]  # a line of the history


class EventKind(StrEnum):
    """What a line of the history tells; see ``SweepRecord.apply``."""

    CREATED = "created"
    SWEEP = "sweep"
    TRIAL = "trial"
    PARAMS = "params"
    START = "start"
    FIRST_STEP = "first_step"
    EPOCH = "epoch"
    HISTORY = "history"
    CHECKPOINT = "checkpoint"
    BEST = "best"
    CHECKPOINT_REMOVED = "checkpoint_removed"
    END = "end"
    HOSTS = "hosts"


# Their names in histories of format 2.
EARLIER_KINDS = {"pruned": EventKind.CHECKPOINT_REMOVED}


class SweepState(StrEnum):
    """What becomes of a sweep, written into histories as these texts."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass
class TrialRecord:
    """One trial as its events tell it."""

    trial_id: str
    params: dict[str, Any]
    status: Status = Status.PENDING
    message: str = ""
    started: float | None = None
    ended: float | None = None
    waited: float | None = None  # seconds from being requested to the end of the first step
    checkpoint: str | None = None  # of the last epoch; relative to the sweep's directory
    best_epoch: int | None = None  # the one with the best value, where a trial counts by that
    best_checkpoint: str | None = None  # its weights
    checkpoint_removed: bool = False  # it was not worth its room
    reports: dict[int, dict[str, Any]] = field(default_factory=dict)  # by epoch
    findings: dict[int, list[dict[str, str]]] = field(default_factory=dict)  # by epoch, if any
    search_state: dict[str, Any] = field(default_factory=dict)  # what a sampler keeps with it

    @property
    def number(self) -> int:
        return int(self.trial_id.rpartition("_")[2])

    @property
    def epoch(self) -> int:
        return max(self.reports, default=0)

    @property
    def metrics(self) -> dict[str, Any]:
        """The figures of the last epoch."""
        return self.reports[self.epoch] if self.reports else {}

    @property
    def history(self) -> list[dict[str, Any]]:
        return [{k: self.reports[e].get(k) for k in HISTORY_KEYS} for e in sorted(self.reports)]

    @property
    def found(self) -> list[dict[str, str]]:
        """What is wrong with it as of its last epoch: id and text of each finding."""
        return self.findings.get(self.epoch, [])

    @property
    def news(self) -> list[dict[str, str]]:
        """Those of ``found`` that no epoch before had."""
        known = {f["id"] for e, found in self.findings.items() if e < self.epoch for f in found}
        return [finding for finding in self.found if finding["id"] not in known]

    @property
    def described_status(self) -> str:
        """The status with its reason, as a person reads it."""
        at = f" at epoch {self.epoch}" if self.status == Status.STOPPED_EARLY else ""
        return f"{self.status}{at}: {self.message}" if self.message else f"{self.status}{at}"

    def _forget_after(self, epoch: int) -> None:
        self.reports = {e: r for e, r in self.reports.items() if e <= epoch}
        self.findings = {e: f for e, f in self.findings.items() if e <= epoch}
        if self.best_epoch not in self.reports:
            self.best_epoch = self.best_checkpoint = None


@dataclass
class SweepRecord:
    """Everything the events of one sweep tell.

    ``metric_at`` says what a trial's value is: the metric of its ``best`` epoch, or of the
    ``last``, as it was in sweeps from before that key.
    """

    name: str
    metric: str
    mode: str
    num_trials: int
    metric_at: str = "last"
    trials: dict[str, TrialRecord] = field(default_factory=dict)
    state: SweepState = SweepState.RUNNING
    message: str = ""
    busy: float | None = None  # share of the hosts' time that was spent in training steps

    def ordered(self) -> list[TrialRecord]:
        """The trials by number."""
        return sorted(self.trials.values(), key=lambda trial: trial.number)

    def apply(self, event: Event) -> None:
        """Take in one event; an epoch that is told again replaces what followed it before."""
        check_event(event)
        if event["event"] == EventKind.CREATED:
            self.num_trials = event["manifest"].get("num_trials", self.num_trials)
            return
        if event["event"] == EventKind.SWEEP:
            self.state, self.message = SweepState(event["state"]), event.get("message", "")
            self.num_trials = event.get("num_trials", self.num_trials)
            return
        if event["event"] == EventKind.HOSTS:
            self.busy = _share_in_steps(event["hosts"], event["time"])
            return
        trial_id = event["trial_id"]
        # A line may be damaged: whatever event comes first makes the trial.
        if trial_id not in self.trials:  # by `trial`, or by another that has all one must know
            state = event.get("state", {})
            self.trials[trial_id] = TrialRecord(trial_id, event["params"], search_state=state)
        trial = self.trials[trial_id]
        match event["event"]:
            case EventKind.TRIAL if trial.params != event["params"]:
                self.trials[trial_id] = TrialRecord(trial_id, event["params"])
            case EventKind.HISTORY:
                best = self.value(trial)
                trial.reports = {m["epoch"]: m for m in event["history"]}
                trial._forget_after(trial.epoch)
                if self.value(trial) != best:  # it has another's epochs now
                    trial.best_epoch = trial.best_checkpoint = None
            case EventKind.CHECKPOINT_REMOVED:
                trial.checkpoint, trial.checkpoint_removed = None, True
                trial.best_checkpoint = None
            case EventKind.PARAMS:  # of a population: the trial goes on with others
                trial.params = event["params"]
            case EventKind.START:
                trial.status, trial.message, trial.ended = Status.RUNNING, "", None
                trial.started = trial.started or event["time"]
            case EventKind.FIRST_STEP:
                trial.waited = trial.waited or event["waited"]
            case EventKind.EPOCH:
                epoch = event["metrics"]["epoch"]
                trial._forget_after(epoch - 1)
                trial.reports[epoch] = event["metrics"]
                if found := event.get("findings"):
                    trial.findings[epoch] = found
            case EventKind.CHECKPOINT:
                trial.checkpoint, trial.checkpoint_removed = event["path"], False
            case EventKind.BEST:
                trial.best_epoch, trial.best_checkpoint = event["epoch"], event["path"]
            case EventKind.END:
                trial.status, trial.message = Status(event["status"]), event.get("message", "")
                trial.ended = event["time"]

    def epoch_of(self, trial: TrialRecord) -> int:
        """The epoch by which a trial counts; 0 if it has none yet."""
        return trial.best_epoch or trial.epoch

    def figures(self, trial: TrialRecord) -> dict[str, Any]:
        """The figures of that epoch."""
        return trial.reports.get(self.epoch_of(trial), {})

    def weights(self, trial: TrialRecord) -> str | None:
        """The checkpoint of that epoch, relative to the sweep's directory."""
        return trial.best_checkpoint or trial.checkpoint

    def value(self, trial: TrialRecord) -> float | None:
        """The objective at that epoch, if it is a finite number."""
        return finite(self.figures(trial).get(self.metric))

    def better(self, one: float, other: float) -> bool:
        """Whether a value is better than another, not only as good."""
        return one < other if self.mode == "min" else one > other

    def by_value(self) -> list[TrialRecord]:
        """Trials that have ended well with a value, best first; ties: the earlier."""
        ended = [t for t in self.ordered() if t.status in GOOD]
        scored = [(value, t) for t in ended if (value := self.value(t)) is not None]
        sign = 1 if self.mode == "min" else -1
        return [t for _, t in sorted(scored, key=lambda pair: sign * pair[0])]

    def ranked(self) -> list[TrialRecord]:
        """Those of ``by_value`` that have left a checkpoint."""
        return [trial for trial in self.by_value() if trial.checkpoint]

    def best(self) -> TrialRecord | None:
        return next(iter(self.ranked()), None)

    def counts(self) -> dict[str, int]:
        return dict(Counter(t.status for t in self.trials.values()))


EVENT_FIELDS: dict[str, dict[str, Any]] = {
    EventKind.CREATED: {"manifest": dict, "sweep": str},
    EventKind.SWEEP: {"state": str},
    EventKind.HISTORY: {"trial_id": str, "history": list},
    EventKind.CHECKPOINT_REMOVED: {"trial_id": str},
    EventKind.HOSTS: {"hosts": list, "time": int | float},
    EventKind.FIRST_STEP: {"trial_id": str, "waited": int | float},
    EventKind.TRIAL: {"trial_id": str, "params": dict},
    EventKind.PARAMS: {"trial_id": str, "params": dict},
    EventKind.START: {"trial_id": str, "time": int | float},
    EventKind.EPOCH: {"trial_id": str, "metrics": dict},
    EventKind.CHECKPOINT: {"trial_id": str, "path": str},
    EventKind.BEST: {"trial_id": str, "path": str, "epoch": int},
    EventKind.END: {"trial_id": str, "status": str, "time": int | float},
}


def _share_in_steps(hosts: list[dict[str, Any]], until: float) -> float | None:
    """Of the time since each host joined; None for hosts that never trained."""
    up = sum(until - host["joined"] for host in hosts)
    return sum(host.get("seconds_in_steps", 0.0) for host in hosts) / up if up > 0 else None


def check_event(event: Event) -> None:
    """A line that is JSON but no event of ours must not reach those who show it."""
    for key, kind in EVENT_FIELDS[event["event"]].items():
        if not isinstance(event[key], kind):
            raise TypeError(f"`{key}` is {type(event[key]).__name__}")
    if not isinstance(event.get("params", {}), dict):
        raise TypeError("`params` is no mapping")
    told = [event["metrics"]] if event["event"] == EventKind.EPOCH else event.get("history", [])
    for metrics in told:
        if not all(type(v) in (int, float) and abs(v) < MAX_FIGURE for v in metrics.values()):
            raise TypeError("a metric is no number")
        if type(metrics["epoch"]) is not int:
            raise TypeError("`epoch` is no whole number")
    for finding in event.get("findings", []):
        if not all(isinstance(finding[key], str) for key in ("id", "text")):
            raise TypeError("a finding is no text")
    if "trial_id" in event and not TRIAL_ID.fullmatch(event["trial_id"]):
        raise TypeError("`trial_id` is not one of ours")
    if event["event"] in (EventKind.CHECKPOINT, EventKind.BEST):
        folder, _, name = event["path"].rpartition("/")
        if folder != f"{TUNE_DIR}/{event['trial_id']}" or not FILE_NAME.fullmatch(name):
            raise ValueError(f"`path` is none of {event['trial_id']}'s checkpoints")


def finite(value: Any) -> float | None:
    """A finite number, or None."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def trial_name(number: int) -> str:
    """What a trial is called everywhere."""
    return f"trial_{number:04d}"
