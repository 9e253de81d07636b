"""From YAML text and ``a.b=c`` overrides to checked objects, with errors a person can act on."""

from __future__ import annotations

import copy
import reprlib
import typing
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from trainables.errors import ConfigError, did_you_mean
from trainables.files import read_input

Model = TypeVar("Model", bound=BaseModel)


class _UniqueKeyLoader(yaml.SafeLoader):
    """The safe loader, refusing a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key `{key}` stands here twice", key_node.start_mark
                )
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file whose top is a mapping; an empty file is an empty mapping."""
    mapping = load_yaml(read_input(path, "a YAML file"), str(path))
    if mapping is None:
        return {}
    if not isinstance(mapping, dict):
        raise ConfigError(f"{path}: must be a mapping of keys to values")
    return mapping


def load_yaml(text: str, where: str) -> Any:
    """PyYAML's constructors raise whatever the conversion of a tagged value raises."""
    try:
        return yaml.load(text, _UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except (
        yaml.YAMLError,
        RecursionError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        OverflowError,
    ) as error:
        raise ConfigError(f"{where}: not valid YAML: {_one_line(error)}") from None


def apply_overrides(mapping: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of ``mapping`` with every ``a.b=c`` applied; c is read as YAML."""
    result = copy.deepcopy(dict(mapping))
    for override in overrides:
        dotted, separator, text = override.partition("=")
        keys = [key.strip() for key in dotted.split(".")]
        if not separator or not all(keys):
            raise ConfigError(f"--set {override}: must have the form a.b=c")
        value = load_yaml(text, f"--set {override}")
        set_dotted(result, keys, value, f"--set {override}")
    return result


def set_dotted(mapping: dict[str, Any], keys: Sequence[str], value: Any, where: str) -> None:
    """``mapping[k0][k1]... = value``, making the mappings on the way.

    Two keys that stand as one in ``mapping``, such as ``model.dropout``, are taken as one.
    """
    while True:
        together = 2 if ".".join(keys[:2]) in mapping else 1
        key, keys = ".".join(keys[:together]), keys[together:]
        if not keys:
            mapping[key] = value
            return
        below = mapping.get(key)
        if below is None:
            below = mapping[key] = {}
        if not isinstance(below, dict):
            raise ConfigError(f"{where}: `{key}` is {shown(below)}, which has no keys below it")
        mapping = below


def build(cls: type[Model], mapping: Mapping[str, Any], source: str) -> Model:
    """``cls`` from a mapping; the first problem becomes one ConfigError."""
    try:
        return cls.model_validate(mapping)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise ConfigError(f"{source}: {_explain(cls, problem)}") from None


# What pydantic's types of errors want, in the words of a YAML file.
MAPPING = ("model_type", "model_attributes_type", "dict_type")
WHOLE = ("int_type", "int_parsing", "int_from_float", "int_parsing_size")
WANTED = {
    **dict.fromkeys(MAPPING, "a mapping of keys to values"),
    **dict.fromkeys(WHOLE, "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "finite_number": "a finite number",
    "list_type": "a list",
    "string_type": "a text",
    "string_too_short": "a text that is not empty",
}


def _explain(cls: type[BaseModel], problem: ErrorDetails) -> str:
    path = [str(part) for part in problem["loc"]]
    key = ".".join(_as_written(cls, path))
    value = problem["input"]
    match problem["type"]:
        case "extra_forbidden":
            known = sorted(_known_keys(cls, path[:-1]))
            hint = did_you_mean(path[-1], known)
            return f"unknown key `{key}`{hint}; allowed here: {', '.join(known) or 'none'}"
        case "missing":
            return f"`{key}` is missing and must be given"
        case "value_error":
            message = problem["msg"].removeprefix("Value error, ")
            return f"`{key}`: {message}" if path else message
        case "union_tag_not_found":
            return f"`{key}` needs the key `type`"
        case "union_tag_invalid":
            context = problem["ctx"]
            tags = [tag.strip("' ") for tag in str(context["expected_tags"]).split(",")]
            hint = did_you_mean(str(context["tag"]), tags)
            return f"`{key}.type` is {context['tag']!r}{hint}, but must be one of {', '.join(tags)}"
        case kind if kind in WANTED:
            where = f"`{key}` is {shown(value)}, but" if path else f"is {shown(value)}, but"
            return f"{where} must be {WANTED[kind]}"
        case _:
            message = problem["msg"]
            message = message[0].lower() + message[1:]
            message = message.replace("input should be", "must be").replace("input ", "value ")
            return f"`{key}` is {shown(value)}, but {message}"


def _as_written(cls: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The path without the names of types, which pydantic puts where a union's member is chosen."""
    root = cls.model_fields.get("root")
    if root is not None:  # a mapping of any names to models
        tags = {_tag(m) for m in _models_in(root.annotation)}
        return [part for i, part in enumerate(path) if i != 1 or part not in tags]
    written: list[str] = []
    for i, part in enumerate(path):
        members = [m for a in _annotations(cls, path[:i]) for m in _models_in(a)]
        if part not in {_tag(m) for m in members}:
            written.append(part)
    return written


def _annotations(cls: type[BaseModel], path: Sequence[str]) -> list[Any]:
    """The annotation that stands at a path of keys; none where a tag stands."""
    if not path:
        return []
    models = [cls]
    for part in path[:-1]:
        found = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        models = [m for a in found for m in _models_in(a)] or models
    return [m.model_fields[path[-1]].annotation for m in models if path[-1] in m.model_fields]


def _known_keys(cls: type[BaseModel], path: Sequence[str]) -> set[str]:
    """The keys that may stand at ``path`` below ``cls``, as far as the annotations tell."""
    candidates: list[type[BaseModel]] = [cls]
    for part in path:
        annotations = [
            m.model_fields[part].annotation for m in candidates if part in m.model_fields
        ]
        below = [m for annotation in annotations for m in _models_in(annotation)]
        tagged = [m for m in candidates if _tag(m) == part]
        candidates = below or tagged or candidates
    return {name for m in candidates for name in m.model_fields}


def _tag(cls: type[BaseModel]) -> str | None:
    field = cls.model_fields.get("type")
    values = typing.get_args(field.annotation) if field else ()
    return values[0] if len(values) == 1 else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for part in typing.get_args(annotation) for m in _models_in(part)]


def shown(value: Any) -> str:
    """A value in an error message: short, however large or nested it is."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother, short.maxlong = 2, 80, 80, 60
    try:
        return short.repr(value)
    except ValueError:  # a number with more digits than Python prints
        return f"a {type(value).__name__} of enormous size"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
