"""From Ray Tune's callbacks to events: written to the store, shown by the monitors."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.tune import Callback
from ray.tune.experiment import Trial

from trainables.files import without_home
from trainables.metrics import Metrics, scalars
from trainables.packing.protocol import HostFacts
from trainables.statuses import Status
from trainables.training.reports import EpochReport
from tuning.execution.failures import last_line, reason_of
from tuning.history.event_log import EventLog, now
from tuning.history.record import Event, EventKind, SweepRecord, SweepState
from tuning.monitors.base import Monitor
from tuning.ray_internals import keep_no_running_means
from tuning.sweep.kept_checkpoints import keep_best, remove_surplus
from tuning.tune_edge import MESSAGE, TIME_ATTRIBUTE, status_of, take_report

_log = logging.getLogger(__name__)


class SweepCallback(Callback):
    """The one place where a sweep's history is made."""

    def __init__(
        self,
        record: SweepRecord,
        log: EventLog,
        directory: Path,
        keep_best: int | None = None,
    ) -> None:
        """Of the trials that ended, the ``keep_best`` best keep their checkpoint; None: all."""
        self._record = record
        self._log = log
        self._directory = directory
        self._monitors: list[Monitor] = []
        self._keep_best = keep_best
        self._introduced = 0

    def watch(self, monitors: Sequence[Monitor]) -> None:
        """Tell these of everything from here on."""
        self._monitors += monitors

    def _params_of(self, trial: Trial) -> dict[str, Any] | None:
        known = self._record.trials.get(_trial_id(trial))
        return known.params if known else None

    def sweep_event(self, state: SweepState, message: str = "") -> None:
        self._emit({"event": EventKind.SWEEP, "state": state, "message": without_home(message)})

    def hosts_event(self, hosts: Sequence[HostFacts]) -> None:
        """What the hosts say of themselves at the end, the seconds spent in steps among it."""
        self._emit({"event": EventKind.HOSTS, "hosts": [asdict(host) for host in hosts]})

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        for trial in trials[self._introduced :]:
            self._introduced += 1
            keep_no_running_means(trial)
            if self._params_of(trial) != trial.config["params"]:
                state = trial.config.get("state")
                more = {"state": state} if state else {}
                self.tell(EventKind.TRIAL, _trial_id(trial), params=trial.config["params"], **more)

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self.on_step_begin(iteration, trials)
        if self._params_of(trial) != trial.config["params"]:  # a population has changed them
            self.tell(EventKind.PARAMS, _trial_id(trial), params=trial.config["params"])
        params = self._record.trials[_trial_id(trial)].params
        self.tell(
            EventKind.START, _trial_id(trial), params=params
        )  # twice, should a line be damaged

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        report = take_report(result)  # Tune would write it with every snapshot
        if not isinstance(report, EpochReport):
            return  # on_trial_complete tells of an ending without a new epoch
        trial_id = _trial_id(trial)
        self._check_complete(trial_id, report)
        self._tell_first_step(trial, report)
        self._fill_gap(trial_id, report)
        findings = [asdict(finding) for finding in report.findings]
        more = {"findings": findings} if findings else {}
        self.tell(EventKind.EPOCH, trial_id, report=report, metrics=scalars(report.metrics), **more)

    def _check_complete(self, trial_id: str, report: EpochReport) -> None:
        """A scheduler goes on in silence without its metric; field_accuracy comes at the end."""
        at_end = report.status != Status.FINISHED and self._record.metric == "field_accuracy"
        for key in (self._record.metric, TIME_ATTRIBUTE):
            if key not in report.metrics and not (at_end and key == self._record.metric):
                raise RuntimeError(f"the report of {trial_id} has no `{key}`")

    def _tell_first_step(self, trial: Trial, report: EpochReport) -> None:
        at, trial_id = report.first_step_at, _trial_id(trial)
        if at is not None and self._record.trials[trial_id].waited is None:
            waited = round(at - trial.config["requested"], 4)
            self.tell(EventKind.FIRST_STEP, trial_id, at=at, waited=waited)

    def _fill_gap(self, trial_id: str, report: EpochReport) -> None:
        """A trial that took over weights ahead of its own gets the epochs between the two."""
        own = self._record.trials[trial_id].reports
        known: dict[int, Metrics] = {row["epoch"]: row for row in report.lineage} | own
        history = [scalars(known[e]) for e in sorted(known) if e < report.epoch]
        if len(history) > sum(e < report.epoch for e in own):
            self.tell(EventKind.HISTORY, trial_id, history=history)

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Any, **info: Any
    ) -> None:
        self.checkpointed(_trial_id(trial), Path(checkpoint.path))

    def checkpointed(self, trial_id: str, path: Path) -> None:
        """A trial's last epoch is saved there, with whatever it has of the next one."""
        self.tell(EventKind.CHECKPOINT, trial_id, path=os.path.relpath(path, self._directory))
        trial, room = self._record.trials[trial_id], self._log.when_there_is_room
        keep_best(self._record, trial, self._directory, self.tell, room)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        result = trial.last_result or {}
        status = status_of(result)
        if status == Status.RUNNING:  # the scheduler has ended it
            status = Status.STOPPED_EARLY
        self._end(_trial_id(trial), status, result.get(MESSAGE, ""))

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._end(_trial_id(trial), Status.FAILED, _reason(trial))

    def stopped_early(self, trial_id: str) -> None:
        """A trial that waited at a rung when the sweep was interrupted does not go on."""
        self._end(trial_id, Status.STOPPED_EARLY, "")

    def _end(self, trial_id: str, status: Status, message: str) -> None:
        self.tell(EventKind.END, trial_id, status=status, message=without_home(message))
        if self._keep_best is not None:
            remove_surplus(self._record, self._directory, self._keep_best, self.tell)

    def close(self) -> None:
        for monitor in self._monitors:
            monitor.close()
        self._log.close()

    def tell(
        self, event: EventKind, trial_id: str, *, report: EpochReport | None = None, **content: Any
    ) -> None:
        """One event of a trial; ``report`` is for those that watch, and not written down."""
        self._emit({"event": event, "trial_id": trial_id, **content}, report)

    def _emit(self, event: Event, report: EpochReport | None = None) -> None:
        event["time"] = now()
        self._log.write(event)
        self._record.apply(event)
        for monitor in list(self._monitors):
            try:
                monitor.on_event(self._record, event, report)
            except Exception as error:  # noqa: BLE001 - watching must never end the sweep
                _log.warning("%s stopped watching: %r", type(monitor).__name__, error)
                self._monitors.remove(monitor)


def _trial_id(trial: Trial) -> str:
    """Its name: the configuration's own number may become another's, in a population."""
    return str(trial)


def _reason(trial: Trial) -> str:
    """What went wrong, of the files that Ray Tune has written here: it brings them to the trial's
    directory only at the end, where ``trial.get_error`` looks for them.
    """
    files = [Path(path) for path in (trial.error_file, trial.pickled_error_file) if path]
    text, pickled, *_ = [*(p.read_bytes() if p.is_file() else b"" for p in files), b"", b""]
    told = text.decode("utf-8", "replace").strip()
    if pickled:
        error = cloudpickle.loads(pickled)
        if told.endswith(str(error).strip()):  # else it is of an attempt before
            return reason_of(error)
    return last_line(told) or "the trial's process died"
