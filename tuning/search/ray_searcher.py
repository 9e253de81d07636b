"""Optuna's suggestions as a Ray Tune searcher: what goes on first, then what is new."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from tuning.history.record import SweepRecord
from tuning.search.suggestions import Params, Suggestions


@dataclass(frozen=True)
class Start:
    """A trial that goes on: where, and from which checkpoint (None: from the beginning)."""

    number: int
    params: Params
    checkpoint: Path | None


class OptunaSearcher(Searcher):
    """Hands ``{"number": i, "params": {...}, ...}`` to Ray Tune: what goes on, then what is new.

    ``requested`` in a suggestion is the time at which it was asked for, in seconds since 1970.
    ``room`` is told how many of those handed out have not ended, and tells whether there may be
    one more. A trial that waits at a rung is only taken up when the rung is decided, which
    ``goes_on`` tells; ``stop`` is told of those that end there.
    """

    def __init__(
        self,
        suggestions: Suggestions,
        record: SweepRecord,
        starts: Sequence[Start],
        *,
        room: Callable[[int], bool],
        goes_on: Callable[[Start], bool | None],
        stop: Callable[[int], None],
    ) -> None:
        super().__init__(metric=record.metric, mode=record.mode)
        self._suggestions = suggestions
        self._starts = list(starts)
        self._live: set[str] = set()
        known = {t.number for t in record.trials.values()}
        self._new = [n for n in range(record.num_trials) if n not in known]
        self._room = room
        self._goes_on = goes_on
        self._stop = stop

    @property
    def has_ended(self) -> bool:
        """Whether nothing goes on and nothing is new; trials whose end is known are ended."""
        self._drop_stopped()
        return not self.left

    @property
    def left(self) -> int:
        """Trials still to be handed out, at most."""
        return len(self._starts) + len(self._new)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if not self._room(len(self._live)):
            return None
        if self.has_ended:
            return str(Searcher.FINISHED)
        found = self._next()
        if found is not None:
            self._live.add(trial_id)
        return found

    def _next(self) -> dict[str, Any] | None:
        requested = time.time()
        # Before anything new: they stand at epochs that decisions about newer trials wait for.
        for start in self._starts:
            if self._goes_on(start):
                self._starts.remove(start)
                checkpoint = str(start.checkpoint) if start.checkpoint else None
                return {
                    "number": start.number,
                    "params": start.params,
                    "start": checkpoint,
                    "requested": requested,
                }
        if not self._new or not self._suggestions.ready(self._new[0]):
            return None
        number = self._new.pop(0)  # in order: a suggestion may know of all lower numbers
        drawn = self._suggestions.draw(number)
        return {
            "number": number,
            "params": drawn.params,
            "start": None,
            "state": drawn.state,
            "requested": requested,
        }

    def _drop_stopped(self) -> None:
        """One ending may decide another's."""
        while stopped := [s for s in self._starts if self._goes_on(s) is False]:
            for start in stopped:
                self._starts.remove(start)
                self._stop(start.number)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """The history tells it."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._live.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """There is nothing to save: the history is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """See ``save``."""
