"""Writes the tables of ``docs/sweep-file.md`` from the models that check the files.

    python -m docs.make_reference

A table stands between ``<!-- table NAME -->`` and ``<!-- end -->``; all else in the page is written
by hand and stays. ``tests/docs/test_reference.py`` fails where a table is out of date.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from search_spaces.schema import SCALARS, Choice, Range, Scalar, SearchSpace
from trainables.config import (
    DEFAULT_CONFIG,
    MOST_SOFT_TOKENS,
    Multiplier,
    PathText,
    PretrainConfig,
    PromptConfig,
    SoftTokens,
)
from trainables.metrics import OBJECTIVES
from tuning.config.sweep import (
    DEFAULT_SPACE,
    DEFAULT_TYPES,
    PART,
    TYPED,
    Count,
    Duration,
    SweepConfig,
)
from tuning.terminal import PROJECT

PAGE = PROJECT / "docs" / "sweep-file.md"
TABLE = re.compile(r"(<!-- table ([a-z.]+) -->\n).*?(<!-- end -->)", re.S)
HEAD = ("| key | allowed | default | meaning |", "|---|---|---|---|")
PARTS: dict[Any, str] = {
    PretrainConfig: str(DEFAULT_CONFIG.relative_to(PROJECT)),
    SearchSpace: str(DEFAULT_SPACE.relative_to(PROJECT)),
}
# What a type allows, in words; more than the type says where a function checks the value.
WORDS: dict[Any, str] = {
    Count: "`auto` or a whole number, 1 to 1000000",
    Duration: "a time: `45s`, `90m`, `12h`, `2d`",
    PathText: "a path or a name",
    PromptConfig: "`{before: ..., after: ...}`, texts or lists of token ids",
    Multiplier: "`auto` or a number, 0 to 1000",
    SoftTokens: f"`auto` or a whole number, 1 to {MOST_SOFT_TOKENS}",
    Scalar: SCALARS,
    get_type_hints(Choice, include_extras=True)["choices"]: "`auto` or a list of values",
    list[dict[str, Any]]: "a list of mappings",
    dict[str, Scalar]: "a mapping of keys to values",
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "`true`, `false`",
    type(None): "`null`",
}
ALLOWED = {"metric": ", ".join(f"`{key}`" for key in OBJECTIVES)}  # checked by no type


def tables() -> dict[str, list[str]]:
    """The rows of every table by its name."""
    found = {
        f"train.{name}": list(_rows(section.annotation, f"{name}."))
        for name, section in PretrainConfig.model_fields.items()
    }
    found["sweep"] = list(_rows(SweepConfig))
    for key, union in TYPED.items():
        found[key] = list(_union_rows(union, f"{key}.", DEFAULT_TYPES[key]))
    found["ranges"] = list(_union_rows(Range, "", None))
    return found


def written(page: str) -> str:
    """The page with all of its tables made anew."""
    made, there = tables(), [name for _, name, _ in TABLE.findall(page)]
    if sorted(there) != sorted(made):
        raise ValueError(f"the page has the tables {there}, but must have {sorted(made)}")
    return TABLE.sub(lambda m: "\n".join((m[1], *HEAD, *made[m[2]], "", m[3])), page)


def _rows(cls: Any, prefix: str = "") -> Iterator[str]:
    hints = get_type_hints(cls, include_extras=True)
    for name, field in cls.model_fields.items():
        if name != "type":
            allowed = ALLOWED.get(name) or _allowed(hints[name], field)
            yield _row(prefix + name, allowed, _default(field), field.description or "")


def _union_rows(union: Any, prefix: str, default: str | None) -> Iterator[str]:
    """The key ``type`` with its choices, then every key with the types that have it."""
    members = {_tag(cls): cls for cls in get_args(get_args(union)[0])}
    meaning = "<br>".join(f"`{tag}`: {_sentence(cls)}" for tag, cls in members.items())
    tags = ", ".join(f"`{tag}`" for tag in members)
    yield _row(f"{prefix}type", tags, f"`{default}`" if default else "must be given", meaning)
    rows = {tag: list(_rows(cls, prefix)) for tag, cls in members.items()}
    for row in dict.fromkeys(row for of_type in rows.values() for row in of_type):
        having = [f"`{tag}`" for tag, of_type in rows.items() if row in of_type]
        of_some = f" Only with {', '.join(having)}. |"
        yield row if len(having) == len(members) else row.removesuffix(" |") + of_some


def _row(key: str, allowed: str, default: str, meaning: str) -> str:
    return f"| `{key}` | {allowed} | {default} | {meaning} |"


def _tag(cls: type[BaseModel]) -> str:
    return str(get_args(cls.model_fields["type"].annotation)[0])


def _sentence(cls: type[BaseModel]) -> str:
    return " ".join((cls.__doc__ or "").split()).replace("``", "`")


def _allowed(hint: Any, field: FieldInfo) -> str:
    if hint in TYPED.values():
        return "a mapping, see below"
    if hint in PARTS:
        return PART
    bounds = [bound for rule in field.metadata if (bound := _bound(rule))]
    return ", ".join([" or ".join(_in_words(hint)), *bounds])


def _in_words(hint: Any) -> Iterator[str]:
    if hint in WORDS:
        yield WORDS[hint]
    elif get_origin(hint) is Literal:
        yield ", ".join(f"`{value}`" for value in get_args(hint))
    elif get_origin(hint) in (Union, types.UnionType):
        for part in get_args(hint):
            yield from _in_words(part)
    else:
        raise TypeError(f"{hint} has no words yet; add them to WORDS")


def _bound(rule: Any) -> str:
    match rule:
        case Ge(ge=value):
            return f"at least {value}"
        case Gt(gt=value):
            return f"above {value}"
        case Le(le=value):
            return f"at most {value}"
        case Lt(lt=value):
            return f"below {value}"
        case MinLen(min_length=1):
            return "not empty"
        case _:
            return ""


def _default(field: FieldInfo) -> str:
    if field.annotation in PARTS:
        return f"`{PARTS[field.annotation]}`"
    if field.is_required():
        return "must be given"
    value = field.default
    if isinstance(value, BaseModel):
        return f"`{{type: {_tag(type(value))}}}`"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
