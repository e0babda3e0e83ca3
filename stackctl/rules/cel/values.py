"""CEL's values, and the functions that yield them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Fields: TypeAlias = Mapping[str, Any]
CompiledCondition: TypeAlias = Callable[[Fields], Any]


@dataclass(frozen=True)
class NamedList:
    """A list of texts that conditions know by name, behind `in` alone. `entries`: each with its line in the file."""

    name: str
    entries: Mapping[str, int]


Lists: TypeAlias = Mapping[str, NamedList]


class EvaluationError(Exception):
    """CEL's error value. The message says what is wrong, and holds nothing of the user's."""


def is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def describe_kind(value: Any) -> str:
    match value:
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case int():
            return "an int"
        case float():
            return "a double"
        case list():
            return "a list"
        case NamedList():
            return "a list by name"
        case dict():
            return "a map"
        case _:
            return "null"
