"""What a sampler learns from, without the time that it takes to add trials one by one."""

from __future__ import annotations

from collections.abc import Container

from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState


class KnownTrials(InMemoryStorage):
    """A storage whose one study has these trials already, and the one that is asked for."""

    def __init__(self, trials: list[FrozenTrial]) -> None:
        super().__init__()
        self._trials = trials
        for number, trial in enumerate(trials):
            trial.number = number

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Those that were given; they are never changed, and so not copied."""
        if states is None:
            return self._trials
        return [trial for trial in self._trials if trial.state in states]

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """The one that is asked for, behind all others: samplers ask for its number."""
        self._asked = super().create_new_trial(study_id, template_trial)
        self.asked().number = len(self._trials)
        return self._asked

    def asked(self) -> FrozenTrial:
        """It, as far as it has been drawn."""
        return self.get_trial(self._asked)
