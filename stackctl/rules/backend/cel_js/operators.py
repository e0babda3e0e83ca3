"""What the operators of the backend's evaluator make of values, which are as JavaScript has them."""

from __future__ import annotations

import math
from typing import Any

from stackctl.rules.cel.values import NamedList


class FailedError(Exception):
    """The evaluation ends with an error. `strict`: `has` does not make false of it."""

    def __init__(self, what: str, *, strict: bool = False) -> None:
        super().__init__(what)
        self.strict = strict


def size(values: list[Any]) -> float:
    """As `size(…)` counts its first argument, texts by UTF-16 units. Raises FailedError."""
    match values:
        case [str() as text, *_]:
            return float(len(text.encode("utf-16-le", "surrogatepass")) // 2)
        case [list() | dict() as many, *_]:
            return float(len(many))
        case _:
            raise FailedError("it has no size", strict=True)


def get(holder: Any, name: Any) -> Any:
    """A field of a map, or what stands at a place of a list. Raises FailedError."""
    if not isinstance(holder, dict | list):
        raise FailedError("it has no fields")
    if isinstance(name, float) and name.is_integer():
        name = str(int(name))
    if isinstance(holder, list):
        if isinstance(name, str) and name.isdecimal() and int(name) < len(holder):
            return holder[int(name)]
        raise FailedError("no such place in the list")
    if not isinstance(name, str) or name not in holder:
        raise FailedError("no such field")
    return holder[name]


def is_truthy(value: Any) -> bool:
    """As JavaScript sees it: empty lists and maps are."""
    return bool(value) or isinstance(value, list | dict)


def kind(value: Any) -> str:
    """What cel-js calls the value's type. Raises FailedError for a number that is not finite."""
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case float():
            if not math.isfinite(value):
                raise FailedError("no number")
            return "int" if value.is_integer() else "float"
        case str():
            return "string"
        case list():
            return "list"
        case _:
            return "map"


def _is_number(value: Any) -> bool:
    return kind(value) in ("int", "float")


def negate(signs: list[str], value: Any) -> Any:
    """With these signs before it, each of them `!` or `-`. Raises FailedError."""
    odd = len(signs) % 2 == 1
    if "-" not in signs:
        if value is None:
            return odd
        if not isinstance(value, bool):
            raise FailedError("neither true nor false")
        return value != odd
    if "!" in signs or not _is_number(value):
        raise FailedError("no number")
    return 0.0 if odd and value == 0 else -value if odd else value


def calculate(sign: str, one: Any, other: Any) -> Any:
    """By `+`, `-`, `*`, `/` or `%`; a division is a fraction. Raises FailedError."""
    if sign in "/%":
        if isinstance(other, float) and other == 0:
            raise FailedError("division by zero", strict=True)
        if kind(one) != "int" or kind(other) != "int":
            raise FailedError("whole numbers alone are divided")
        return one / other if sign == "/" else math.fmod(one, other)
    if _is_number(one) and _is_number(other):
        return one + other if sign == "+" else one - other if sign == "-" else one * other
    if sign == "+" and isinstance(one, str) and isinstance(other, str):
        return one + other
    if sign == "+" and isinstance(one, list) and isinstance(other, list):
        if one and other and _typeof(one[0]) != _typeof(other[0]):
            raise FailedError("lists of different kinds")
        return [*one, *other]
    raise FailedError("no numbers")


def _typeof(value: Any) -> str:
    return {"int": "number", "float": "number", "list": "object", "map": "object", "null": "object"}.get(
        kind(value), kind(value)
    )


def compare(sign: str, one: Any, other: Any) -> bool:
    """By a comparison, or `in`. Raises FailedError for what has no order."""
    match sign:
        case "==":
            return _equals(one, other)
        case "!=":
            return not _equals(one, other)
        case "in":
            if isinstance(other, list):
                return any(_is_same(one, item) for item in other)
            if isinstance(other, NamedList):  # which is written out before it gets there
                return isinstance(one, str) and one in other.entries
            if isinstance(other, dict):
                return isinstance(one, str) and one in other
            raise FailedError("in takes a list")
        case _:
            pass
    if isinstance(one, str) and isinstance(other, str):
        one, other = (text.encode("utf-16-be", "surrogatepass") for text in (one, other))
    elif not (_is_number(one) and _is_number(other)):
        raise FailedError("no order")
    return (
        one < other if sign == "<" else one <= other if sign == "<=" else one > other if sign == ">" else one >= other
    )


def _equals(one: Any, other: Any) -> bool:
    """0 and -0 are not equal; lists and maps are by what they hold."""
    if isinstance(one, float) and isinstance(other, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equals, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equals(value, other[key]) for key, value in one.items())
    return one == other


def _is_same(one: Any, other: Any) -> bool:
    """As a list is searched: lists and maps are never found."""
    return type(one) is type(other) and not isinstance(one, list | dict) and one == other
