"""The sweep in the terminal: a live table, or plain lines where the output is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from trainables.statuses import OVER, Status
from trainables.training.reports import EpochReport
from tuning.history.record import Event, EventKind, SweepRecord, TrialRecord
from tuning.monitors.fitting_table import FittingTable, Shown
from tuning.terminal import duration, live_on, short_params, shown_number

MAX_ROWS = 24  # a live table that is higher than the terminal flickers
PARAMETERS = 24  # cells in which a key and its value can be read
COLOURS = {
    Status.RUNNING: "cyan",
    Status.FINISHED: "green",
    Status.STOPPED_EARLY: "yellow",
    Status.DIVERGED: "red",
    Status.OUT_OF_MEMORY: "red",
    Status.FAILED: "red",
}


class TimeLeft:
    """An estimate from how long epochs have taken, and the share of them that trials needed.

    Trials run beside each other: what N epochs of a duration d still take is N·d / trials at a
    time, less what the epochs that are running have behind them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}  # when each running trial began its epoch
        self._spent, self._epochs = 0.0, 0

    def see(self, event: Event) -> None:
        trial, now = str(event.get("trial_id")), self._clock()
        match event["event"]:
            case EventKind.START:
                self._since[trial] = now
            case EventKind.EPOCH if trial in self._since:
                self._spent += now - self._since[trial]
                self._epochs += 1
                self._since[trial] = now
            case EventKind.END:
                self._since.pop(trial, None)

    def seconds(self, record: SweepRecord) -> float | None:
        """None until a trial has ended: before that nobody knows how many epochs one needs."""
        ended = [t for t in record.trials.values() if t.status in OVER]
        if not self._epochs or not ended:
            return None
        per_epoch, now = self._spent / self._epochs, self._clock()
        per_trial = sum(t.epoch for t in ended) / len(ended)
        running = [t for t in record.trials.values() if t.status not in OVER]
        epochs = sum(max(per_trial - t.epoch, 1) for t in running)
        epochs += per_trial * max(0, record.num_trials - len(record.trials))
        begun = sum(min(now - since, per_epoch) for since in self._since.values())
        return max(0.0, epochs * per_epoch - begun) / max(1, len(self._since))


def summary_line(record: SweepRecord, left: float | None) -> str:
    ended = sum(t.status in OVER for t in record.trials.values())
    best = record.best()
    line = f"{ended}/{record.num_trials} trials ended"
    if best is not None:
        line += f"; best {record.metric} {shown_number(record.value(best))} ({best.trial_id})"
    if ended < record.num_trials:
        line += f"; about {duration(left)} left" if left is not None else "; estimating time left"
    return line


def trial_table(record: SweepRecord, max_rows: int = MAX_ROWS) -> FittingTable:
    """The running trials and the newest of the others, as many as fit, in their order.

    A trial that is over shows the figures of the epoch by which it counts; the best is marked. Of
    the columns a narrow terminal shows those that matter most.
    """
    trials = list(record.trials.values())
    running = [t for t in trials if t.status not in OVER]
    others = [t for t in trials if t.status in OVER][-max(1, max_rows - len(running)) :]
    chosen = {t.trial_id for t in [*running, *others]}
    return _table(record, [t for t in record.ordered() if t.trial_id in chosen])


def ranked_table(record: SweepRecord) -> FittingTable:
    """All trials, the best first; what has no value in the order of numbers at the end."""
    ranked = record.by_value()
    names = {t.trial_id for t in ranked}
    return _table(record, [*ranked, *(t for t in record.ordered() if t.trial_id not in names)])


def _table(record: SweepRecord, trials: Sequence[TrialRecord]) -> FittingTable:
    columns = {
        "trial": Shown(0),
        "status": Shown(1, least=len("stopped early ")),
        "epoch": Shown(3, justify="right"),
        record.metric: Shown(2, justify="right"),
        "α": Shown(5, justify="right"),
        "retention": Shown(6, justify="right"),
        "finding": Shown(4),
        "parameters": Shown(7, least=PARAMETERS, wraps=True),
    }
    table = FittingTable(columns, header_style="bold")
    best = record.best()
    for trial in trials:
        table.add_row(*_row(record, trial, trial is best))
    return table


def _row(record: SweepRecord, trial: TrialRecord, best: bool) -> list[Text | str]:
    over = trial.status in OVER
    metrics = record.figures(trial) if over else trial.metrics
    epoch = record.epoch_of(trial)
    status, _, _ = trial.described_status.partition(":")
    return [
        Text(trial.trial_id),
        Text(status, style=COLOURS.get(trial.status, "")),
        f"{epoch} of {trial.epoch}" if over and epoch < trial.epoch else str(trial.epoch),
        f"{'* ' if best else ''}{shown_number(metrics.get(record.metric))}",
        shown_number(metrics.get("gate_alpha"), 3),
        shown_number(metrics.get("semantic_retention"), 3),
        Text(", ".join(finding["id"] for finding in trial.found), style="yellow"),
        Text(short_params(trial.params)),
    ]


class TableMonitor:
    """A live table on a terminal; otherwise one line per epoch and ending."""

    def __init__(self, record: SweepRecord, num_epochs: int, console: Console) -> None:
        self._console = console
        self._num_epochs = num_epochs
        self._left = TimeLeft()
        self._record = record
        self._live: Live | None = None
        self._shown = ExitStack()
        if self._console.is_terminal:
            # What others write to stderr goes to the log file, not above the table.
            self._live = Live(
                self._screen(),
                console=self._console,
                refresh_per_second=4,
                redirect_stderr=False,
                redirect_stdout=False,
            )
            self._shown.enter_context(self._live)
            self._shown.enter_context(live_on(console))

    def on_event(self, record: SweepRecord, event: Event, report: EpochReport | None) -> None:
        self._record = record
        self._left.see(event)
        if self._live is not None:
            self._live.update(self._screen())
        elif event["event"] in (EventKind.START, EventKind.EPOCH, EventKind.END):
            trial = record.trials[event["trial_id"]]
            self._console.print(self._line(event, trial), soft_wrap=True, highlight=False)
            for finding in trial.news if event["event"] == EventKind.EPOCH else ():
                line = f"{trial.trial_id} {finding['id']}: {finding['text']}"
                self._console.print(line, soft_wrap=True, highlight=False)

    def close(self) -> None:
        self._shown.close()

    def _screen(self) -> Group:
        return Group(
            trial_table(self._record),
            Text(summary_line(self._record, self._left.seconds(self._record)), style="bold"),
        )

    def _line(self, event: Event, trial: TrialRecord) -> str:
        match event["event"]:
            case EventKind.START:
                return f"{trial.trial_id} started: {short_params(trial.params)}"
            case EventKind.EPOCH:
                m = trial.metrics
                losses = ", ".join(
                    f"{k} {shown_number(m.get(k))}" for k in ("train_loss", "val_loss")
                )
                return (
                    f"{trial.trial_id} epoch {trial.epoch}/{self._num_epochs}: {losses}, "
                    f"α {shown_number(m.get('gate_alpha'))}, "
                    f"retention {shown_number(m.get('semantic_retention'), 3)}"
                )
            case _:
                left = self._left.seconds(self._record)
                return (
                    f"{trial.trial_id} {trial.described_status}. {summary_line(self._record, left)}"
                )
