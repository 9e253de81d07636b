"""A search space as a model of it is told: a list of numbers is an order, not a set of names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, IntDistribution

from search_spaces.ranges import Draw, draw
from search_spaces.schema import Choice, SearchSpace
from tuning.search.ranges import distributions, holds

NUMBERS = (int, float)


class OrderedSpace:
    """A space in which each list of three numbers or more is drawn by the place of its value.

    Heads of 1, 2, 4, 8 and 16 are then one axis, on which 4 lies between 2 and 8; as names they
    would be five kinds that tell nothing of each other.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._orders = {
            key: order
            for key, spec in space.root.items()
            if isinstance(spec, Choice) and (order := _order(spec.choices))
        }
        places = {k: IntDistribution(0, len(order) - 1) for k, order in self._orders.items()}
        self.distributions: dict[str, BaseDistribution] = distributions(space) | places

    def draw(self, trial: Draw) -> dict[str, Any]:
        """A point of the space, in its own terms."""
        return draw(self._space, _OrderedDraw(trial, self._orders))

    def inside(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters in the terms of ``distributions``; what is in none of them is left out."""
        found = {}
        for key, value in params.items():
            if key in self._orders:
                if value in self._orders[key]:
                    found[key] = self._orders[key].index(value)
            elif holds(self.distributions[key], value):
                found[key] = value
        return found


def _order(choices: Any) -> list[Any]:
    """The numbers in their order, if there are three or more and nothing else; or nothing."""
    numbers = len(choices) > 2 and all(type(choice) in NUMBERS for choice in choices)
    return sorted(choices) if numbers else []


class _OrderedDraw:
    """A trial that is asked for the place of a number where it is asked for the number."""

    def __init__(self, trial: Draw, orders: Mapping[str, list[Any]]) -> None:
        self._trial = trial
        self._orders = orders

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        return self._trial.suggest_float(name, low, high, step=step, log=log)

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        return self._trial.suggest_int(name, low, high, step=step, log=log)

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        order = self._orders.get(name)
        if order is None:
            return self._trial.suggest_categorical(name, choices)
        return order[self._trial.suggest_int(name, 0, len(order) - 1, step=1, log=False)]
