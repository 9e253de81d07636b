"""Successive halving that does not depend on which trial is faster.

Trials are numbered, and ``group`` consecutive ones stand together. At a rung (an epoch) a trial
waits until every trial of its group and of those before has reached the rung or ended; it goes on
if it is then among the best 1/``reduction_factor`` of them. So the same losses give the same
decisions in whatever order they arrive. What a suggestion may know is bounded in the same way.

Synchronous successive halving: Jamieson and Talwalkar, 2016, arXiv:1502.07943; the groups are
what lets the next trials start before the last survivor of the first ones has ended.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

from tuning.history.record import SweepRecord


@dataclass
class Halving:
    """The decisions of one sweep; ``rungs`` are ascending epochs, all before the last one.

    Without rungs nobody is stopped, and every trial settles when it ends.
    """

    rungs: tuple[int, ...]
    reduction_factor: int
    group: int
    num_trials: int
    maximize: bool = False
    _values: defaultdict[int, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    _ended: set[int] = field(default_factory=set)

    @classmethod
    def of_record(
        cls, record: SweepRecord, rungs: tuple[int, ...], reduction_factor: int, group: int
    ) -> Halving:
        """With everything that a sweep's history tells."""
        halving = cls(
            rungs, reduction_factor, group, record.num_trials, maximize=record.mode == "max"
        )
        for trial in record.trials.values():
            for epoch, metrics in trial.reports.items():
                if record.metric in metrics:
                    halving.report(trial.number, epoch, float(metrics[record.metric]))
            if trial.ended is not None:
                halving.end(trial.number)
        return halving

    def report(self, number: int, epoch: int, value: float) -> None:
        if epoch in self.rungs:
            self._values[epoch][number] = value

    def end(self, number: int) -> None:
        self._ended.add(number)

    def go_on(self, number: int) -> None:
        """A trial that had ended is taken up again."""
        self._ended.discard(number)

    def goes_on(self, number: int, epoch: int) -> bool | None:
        """Whether a trial may train beyond ``epoch``; None while that cannot be known."""
        if epoch not in self.rungs:
            return True
        compared = range(min(self._group_end(number), self.num_trials))
        if not all(self._settled(other, epoch) for other in compared):
            return None
        sign = -1 if self.maximize else 1
        values = self._values[epoch]
        ranking = sorted((sign * values[other], other) for other in compared if other in values)
        return number in [other for _, other in ranking[: self._survivors(len(ranking))]]

    def known_until(self, number: int, older: int) -> float:
        """The last epoch of trial ``older`` that the suggestion of ``number`` may depend on.

        A group sees the first rung of the group before, and each further rung
        ``reduction_factor`` times as far back, because trials need as much longer to get there.
        """
        distance = number // self.group - older // self.group
        if distance < 1:
            return 0
        level = 0
        while distance >= self.reduction_factor ** (level + 1) and level < len(self.rungs):
            level += 1
        return self.rungs[level] if level < len(self.rungs) else math.inf

    def knows_enough(self, number: int) -> bool:
        """Whether every result that the suggestion of ``number`` depends on has come."""
        return all(
            self._settled(older, self.known_until(number, older))
            for older in range(number // self.group * self.group)
        )

    def _settled(self, number: int, epoch: float) -> bool:
        return number in self._ended or number in self._values.get(int(min(epoch, 1e9)), {})

    def _group_end(self, number: int) -> int:
        return (number // self.group + 1) * self.group

    def _survivors(self, compared: int) -> int:
        return max(1, compared // self.reduction_factor)
