"""Conditions as functions, with CEL's answers: a closure for each node of the tree.

cel-python's interpreter is the reference (see reference.py) and forty times slower; where the two differ, the
specification decides. What the closures do not know (macros, conversions) is left to the reference.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from stackctl.rules import patterns
from stackctl.rules.syntax import (
    Binary,
    Call,
    Choice,
    Field,
    Foreign,
    Group,
    Index,
    Items,
    Literal,
    Name,
    Node,
    Unary,
    parse,
    walk,
)

Fields: TypeAlias = Mapping[str, Any]
Evaluate: TypeAlias = Callable[[Fields], Any]

METHODS = ("contains", "startsWith", "endsWith", "matches", "size")
_BITS = 2**63


class NoValue(Exception):
    """CEL's error value. The message says what is wrong, and holds nothing of the user's."""


class NotKnown(Exception):
    """The closures do not know this part of CEL."""


def compiled(condition: str) -> Evaluate:
    """A function from the fields of a context to what the condition yields; it raises NoValue.

    Raises syntax.Unreadable.
    """
    tree = parse(condition)
    try:
        return evaluator(tree)
    except NotKnown:
        from stackctl.rules.reference import program

        return program(condition)


def known(tree: Node) -> bool:
    """Whether the closures know all of it."""
    try:
        for node in walk(tree):
            _check(node)
    except NotKnown:
        return False
    return True


def _check(node: Node) -> None:
    match node:
        case Foreign(what=what):
            raise NotKnown(what)
        case Call(of=None, name=name) if name not in ("size", "has"):
            raise NotKnown(name)
        case Call(name=name) if node.of is not None and name not in METHODS:
            raise NotKnown(name)
        case _:
            pass


def evaluator(node: Node) -> Evaluate:
    """The function of a part of a condition. Raises NotKnown."""
    _check(node)
    match node:
        case Literal(value=value):
            return lambda fields: value
        case Name(name=name):
            return _name(name)
        case Field(of=of, name=name):
            return _field(evaluator(of), name)
        case Index(of=of, by=by):
            return _index(evaluator(of), evaluator(by))
        case Items(items=items):
            parts = [evaluator(item) for item in items]
            if all(isinstance(item, Literal) for item in items):
                constant = [part({}) for part in parts]
                return lambda fields: constant
            return lambda fields: [part(fields) for part in parts]
        case Group(operator=sign, parts=nodes):
            return _group([evaluator(part) for part in nodes], decisive=sign == "||")
        case Unary(operator=sign, of=of):
            return _not(evaluator(of)) if sign == "!" else _minus(evaluator(of))
        case Choice(when=when, then=then, otherwise=otherwise):
            return _choice(evaluator(when), evaluator(then), evaluator(otherwise))
        case Binary(operator="in", left=left, right=Items(items=items)) if all(
            isinstance(item, Literal) and isinstance(item.value, str) for item in items
        ):
            return _in_strings(evaluator(left), frozenset(item.value for item in items if isinstance(item, Literal)))
        case Binary(operator=sign, left=left, right=right):
            return _binary(BINARY[sign], evaluator(left), evaluator(right))
        case Call(of=of, name=name, arguments=arguments):
            return _call(of, name, arguments)
        case Foreign(what=what):
            raise NotKnown(what)


# -- names, fields


def _name(name: str) -> Evaluate:
    def value(fields: Fields) -> Any:
        try:
            return fields[name]
        except KeyError:
            raise NoValue(f"there is no field {name}") from None

    return value


def _field(of: Evaluate, name: str) -> Evaluate:
    def value(fields: Fields) -> Any:
        found = of(fields)
        if not isinstance(found, dict):
            raise NoValue(f"{_kind(found)} has no field {name}")
        if name not in found:
            raise NoValue(f"there is no field {name}")
        return found[name]

    return value


def _index(of: Evaluate, by: Evaluate) -> Evaluate:
    def value(fields: Fields) -> Any:
        found, key = of(fields), by(fields)
        if isinstance(found, dict):
            if key not in found:
                raise NoValue("there is no such key")
            return found[key]
        if isinstance(found, list) and _is_int(key):
            if not 0 <= key < len(found):
                raise NoValue("the index is out of range")
            return found[key]
        raise NoValue(f"{_kind(found)} has no [{_kind(key)}]")

    return value


# -- logic: an error is absorbed by a part that decides without it


def _group(parts: list[Evaluate], *, decisive: bool) -> Evaluate:
    def value(fields: Fields) -> Any:
        wrong: NoValue | None = None
        for part in parts:
            try:
                found = part(fields)
            except NoValue as error:
                wrong = wrong or error
                continue
            if found is decisive:
                return decisive
            if found is not (not decisive):
                wrong = wrong or NoValue(f"{_kind(found)} is not true or false")
        if wrong is not None:
            raise wrong
        return not decisive

    return value


def _not(of: Evaluate) -> Evaluate:
    return lambda fields: not _boolean(of(fields))


def _choice(when: Evaluate, then: Evaluate, otherwise: Evaluate) -> Evaluate:
    return lambda fields: then(fields) if _boolean(when(fields)) else otherwise(fields)


def _boolean(value: Any) -> bool:
    if value is True or value is False:
        return value
    raise NoValue(f"{_kind(value)} is not true or false")


# -- comparison


def equal(left: Any, right: Any) -> bool:
    """CEL's equality: numbers by value, other kinds only among themselves."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left == right
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return left == right


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def value(left: Any, right: Any) -> bool:
        numbers = _is_number(left) and _is_number(right)
        if not numbers and not (type(left) is type(right) and isinstance(left, str | bool)):
            raise NoValue(f"{_kind(left)} and {_kind(right)} have no order")
        return compare(left, right)

    return value


def _in(left: Any, right: Any) -> bool:
    if isinstance(right, list):
        return any(equal(left, item) for item in right)
    if isinstance(right, dict):
        return any(equal(left, key) for key in right)
    raise NoValue(f"nothing is in {_kind(right)}: in takes a list")


def _in_strings(of: Evaluate, strings: frozenset[Any]) -> Evaluate:
    def value(fields: Fields) -> bool:
        found = of(fields)
        return isinstance(found, str) and found in strings

    return value


# -- arithmetic, in 64 bits


def _whole(value: int) -> int:
    if not -_BITS <= value < _BITS:
        raise NoValue("the number does not fit into 64 bits")
    return value


def _arithmetic(sign: str, ints: Callable[[int, int], int], floats: Callable[[float, float], float] | None) -> Any:
    def value(left: Any, right: Any) -> Any:
        if _is_int(left) and _is_int(right):
            return _whole(ints(left, right))
        if floats is not None and isinstance(left, float) and isinstance(right, float):
            return floats(left, right)
        if sign == "+" and type(left) is type(right) and isinstance(left, str | list):
            return left + right
        raise NoValue(f"{_kind(left)} {sign} {_kind(right)} is not possible")

    return value


def _divided(left: int, right: int) -> int:
    if right == 0:
        raise NoValue("division by zero")
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


def _rest(left: int, right: int) -> int:
    return left - right * _divided(left, right)


def _quotient(left: float, right: float) -> float:
    if right:
        return left / right
    return float("nan") if left == 0 or left != left else float("inf") if left > 0 else float("-inf")


def _minus(of: Evaluate) -> Evaluate:
    def value(fields: Fields) -> Any:
        found = of(fields)
        if _is_int(found):
            return _whole(-found)
        if isinstance(found, float):
            return -found
        raise NoValue(f"-{_kind(found)} is not possible")

    return value


# What stands for each operator; the reference borrows the comparisons.
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "==": equal, "!=": lambda left, right: not equal(left, right), "in": _in,
    "<": _ordered(operator.lt), "<=": _ordered(operator.le), ">": _ordered(operator.gt), ">=": _ordered(operator.ge),
    "+": _arithmetic("+", operator.add, operator.add), "-": _arithmetic("-", operator.sub, operator.sub),
    "*": _arithmetic("*", operator.mul, operator.mul), "/": _arithmetic("/", _divided, _quotient),
    "%": _arithmetic("%", _rest, None),
}  # fmt: skip


def _binary(apply: Callable[[Any, Any], Any], left: Evaluate, right: Evaluate) -> Evaluate:
    return lambda fields: apply(left(fields), right(fields))


# -- functions


def _call(of: Node | None, name: str, arguments: tuple[Node, ...]) -> Evaluate:
    if name == "has":
        return _has(arguments)
    if name == "size":
        (measured,) = arguments if of is None else (of,)
        return _size(evaluator(measured))
    if of is None or len(arguments) != 1:
        raise NotKnown(name)
    subject, argument = evaluator(of), evaluator(arguments[0])
    if name == "matches":
        pattern = arguments[0]
        if isinstance(pattern, Literal) and isinstance(pattern.value, str):
            return _matches_constant(subject, pattern.value)
        return _on_strings(name, patterns.found, subject, argument)
    return _on_strings(name, _ON_STRINGS[name], subject, argument)


_ON_STRINGS: dict[str, Callable[[str, str], bool]] = {
    "contains": operator.contains,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
}


def _on_strings(name: str, apply: Callable[[str, str], bool], subject: Evaluate, argument: Evaluate) -> Evaluate:
    def value(fields: Fields) -> bool:
        left, right = subject(fields), argument(fields)
        if isinstance(left, str) and isinstance(right, str):
            return apply(left, right)
        raise NoValue(f"{_kind(left)}.{name}({_kind(right)}) is not possible")

    return value


def _matches_constant(subject: Evaluate, pattern: str) -> Evaluate:
    try:
        search = patterns.compiled(pattern)
    except ValueError as error:
        wrong = str(error)

        def never(fields: Fields) -> bool:
            raise NoValue(f"invalid pattern: {wrong}")

        return never

    def value(fields: Fields) -> bool:
        found = subject(fields)
        if isinstance(found, str):
            return search(found)
        raise NoValue(f"{_kind(found)}.matches(string) is not possible")

    return value


def _size(of: Evaluate) -> Evaluate:
    def value(fields: Fields) -> int:
        found = of(fields)
        if isinstance(found, str | list | dict):
            return len(found)
        raise NoValue(f"size({_kind(found)}) is not possible")

    return value


def _has(arguments: tuple[Node, ...]) -> Evaluate:
    match arguments:
        case (Field(of=of, name=name),):
            owner = evaluator(of)

            def value(fields: Fields) -> bool:
                found = owner(fields)
                if isinstance(found, dict):
                    return name in found
                raise NoValue(f"{_kind(found)} has no fields")

            return value
        case _:
            raise NotKnown("has")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: Any) -> str:
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
        case dict():
            return "a map"
        case _:
            return "null"
