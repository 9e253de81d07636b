"""Search spaces: dotted configuration keys mapped to ranges. Bounds are inclusive."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, RootModel, model_validator

SCALARS = "true, false, null, a finite number or a text"
LARGEST = 2**53  # up to here every whole number is a float of its own, as which Optuna keeps it
FINEST = 1e-7  # of the larger bound; Optuna cannot tell whether a value is on a finer step


def _is_scalar(value: Any) -> bool:
    if type(value) is float:
        return -float("inf") < value < float("inf")
    return value is None or type(value) in (bool, int, str)


def _scalar(value: Any) -> Any:
    if not _is_scalar(value):
        raise ValueError(f"must be {SCALARS}")
    return value


def _choices(value: Any) -> Any:
    if value != "auto" and not (isinstance(value, list) and all(map(_is_scalar, value))):
        raise ValueError(f"must be `auto` or a list, each value of it {SCALARS}")
    return value


Scalar = Annotated[bool | int | float | str | None, PlainValidator(_scalar)]


class _Range(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    when: dict[str, Scalar] | None = Field(
        None, description="Varies only in trials where these searched keys have these values."
    )


class FloatRange(_Range):
    """A real number in [low, high]; ``log`` draws its logarithm evenly.

    With ``step``: low, low + step, and so on, as far as ``high`` allows.
    """

    type: Literal["float"]
    low: float = Field(description="The smallest value, included.")
    high: float = Field(description="The largest value, included.")
    log: bool = Field(False, description="Draw the logarithm evenly; not together with step.")
    step: float | None = Field(None, gt=0, description="Only low, low + step and so on.")

    @model_validator(mode="after")
    def _check(self) -> FloatRange:
        _check_bounds(self.low, self.high, self.log, self.step)
        return self


class IntRange(_Range):
    """A whole number in [low, high], both ends included where ``step`` reaches them."""

    type: Literal["int"]
    low: int = Field(ge=-LARGEST, le=LARGEST, description="The smallest value, included.")
    high: int = Field(ge=-LARGEST, le=LARGEST, description="The largest value, included.")
    log: bool = Field(False, description="Draw the logarithm evenly; not together with step.")
    step: int = Field(1, ge=1, le=LARGEST, description="Only low, low + step and so on.")

    @model_validator(mode="after")
    def _check(self) -> IntRange:
        _check_bounds(self.low, self.high, self.log, None if self.step == 1 else self.step)
        return self


class Choice(_Range):
    """One of a list; ``auto`` is filled in from the LLM's hidden size for attention heads."""

    type: Literal["choice"]
    choices: Annotated[
        Literal["auto"] | list[bool | int | float | str | None], PlainValidator(_choices)
    ] = Field(description="The values; auto: the powers of two that divide D, for heads alone.")

    @model_validator(mode="after")
    def _check(self) -> Choice:
        if isinstance(self.choices, list):
            if not self.choices:
                raise ValueError("`choices` is empty, but must name at least one value")
            if len({(type(c), c) for c in self.choices}) < len(self.choices):
                raise ValueError("`choices` names a value twice")
        return self


class Fixed(_Range):
    """A value that does not vary, set for every trial."""

    type: Literal["fixed"]
    value: Scalar = Field(description="The value of every trial.")


Range = Annotated[FloatRange | IntRange | Choice | Fixed, Field(discriminator="type")]


class SearchSpace(RootModel[dict[str, Range]]):
    """Dotted keys of the training configuration, each with its range, in order."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="after")
    def _check(self) -> SearchSpace:
        if not self.root:
            raise ValueError("the search space is empty, but must vary at least one key")
        seen: set[str] = set()
        for key, spec in self.root.items():
            for other in spec.when or {}:
                if other not in seen:
                    raise ValueError(f"`{key}` depends on `{other}`, which must stand before it")
            seen.add(key)
        return self


def _check_bounds(low: float, high: float, log: bool, step: float | None) -> None:
    if low > high:
        raise ValueError(f"`low` is {low}, but must be at most `high`, {high}")
    if log and low <= 0:
        raise ValueError(f"`low` is {low}, but must be above 0 where `log` is true")
    if not math.isfinite(high - low + (step or 0)):
        raise ValueError(f"`high` is {high}, too far from `low`, {low}, to be reckoned with")
    finest = FINEST * max(abs(low), abs(high))
    if isinstance(step, float) and step < finest:
        raise ValueError(
            f"`step` is {step}, but must be at least {finest:g}, a ten-millionth of the larger "
            "bound; leave it out to draw any value"
        )
    if step is not None and number_of_steps(low, high, step) < 1:
        raise ValueError(f"`step` is {step}, but must be at most `high` - `low`, {high - low:g}")
    if log and step is not None:
        raise ValueError("`log` and `step` cannot be given together")


def number_of_steps(low: float, high: float, step: float) -> int:
    """How often ``step`` fits between two bounds, reckoned with the decimals that were written.

    Floats would find no room for 0.2 between 0.1 and 0.3. Optuna reckons in the same way.
    """
    return int((Decimal(str(high)) - Decimal(str(low))) // Decimal(str(step)))
