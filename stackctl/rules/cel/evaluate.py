"""Conditions as functions, with CEL's answers: a closure for each node of the tree.

cel-python's interpreter is the reference (see reference.py) and forty times slower; where the two differ, the
specification decides. What the closures do not know (macros, conversions) is left to the reference.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from stackctl.rules.cel import patterns
from stackctl.rules.cel.nodes import (
    Binary,
    Call,
    Conditional,
    Field,
    Index,
    ListLiteral,
    Literal,
    Logical,
    Name,
    Node,
    Unary,
    Unsupported,
    walk,
)
from stackctl.rules.cel.operators import BINARY, to_int64
from stackctl.rules.cel.parse import parse
from stackctl.rules.cel.values import (
    CompiledCondition,
    EvaluationError,
    Fields,
    NamedList,
    describe_kind,
    is_int,
    is_number,
)

if TYPE_CHECKING:
    from collections.abc import Callable


class NotSupported(Exception):
    """The closures do not know this part of CEL."""


def compile_condition(condition: str) -> CompiledCondition:
    """A function from the fields of a context to what the condition yields; it raises EvaluationError.

    Raises ConditionSyntaxError.
    """
    tree = parse(condition)
    try:
        return compile_node(tree)
    except NotSupported:
        from stackctl.rules.cel.reference import compile_with_reference

        return compile_with_reference(condition)


def can_compile(tree: Node) -> bool:
    """Whether the closures know all of it."""
    return all(map(knows, walk(tree)))


def knows(node: Node) -> bool:
    """Whether the closures know this part, whatever is below it."""
    if not isinstance(node, Call | Unsupported):
        return True
    try:
        _require_supported(node)
    except NotSupported:
        return False
    return True


def _require_supported(node: Node) -> None:
    match node:
        case Unsupported(kind=what):
            raise NotSupported(what)
        case Call(of=None, name="has", arguments=(Field(),)) | Call(of=None, name="size", arguments=(_,)):
            pass
        case Call(of=of, name="size", arguments=()) if of is not None:
            pass
        case Call(of=of, name=name, arguments=(_,)) if of is not None and name in _ON_STRINGS:
            pass
        case Call(name=name):
            raise NotSupported(name)
        case _:
            pass


def compile_node(node: Node) -> CompiledCondition:
    """The function of a part of a condition. Raises NotSupported."""
    if isinstance(node, Call):
        _require_supported(node)
    match node:
        case Literal(value=value):
            return lambda fields: value
        case Name(name=name):
            return _name(name)
        case Field(of=of, name=name):
            return _field(compile_node(of), name)
        case Index(of=of, by=by):
            return _index(compile_node(of), compile_node(by))
        case ListLiteral(items=items):
            parts = [compile_node(item) for item in items]
            if all(isinstance(item, Literal) for item in items):
                constant = [part({}) for part in parts]
                return lambda fields: constant
            return lambda fields: [part(fields) for part in parts]
        case Logical(operator=sign, parts=nodes):
            return _group([compile_node(part) for part in nodes], decisive=sign == "||")
        case Unary(operator=sign, of=of):
            return _not(compile_node(of)) if sign == "!" else _minus(compile_node(of))
        case Conditional(when=when, then=then, otherwise=otherwise):
            return _choice(compile_node(when), compile_node(then), compile_node(otherwise))
        case Binary(operator="in", left=left, right=ListLiteral(items=items)) if all(map(_is_constant, items)):
            return _in_constants(
                compile_node(left), frozenset(item.value for item in items if isinstance(item, Literal))
            )
        case Binary(operator="in", left=left, right=Name(name=name)):
            return _in_field(compile_node(left), name)
        case Binary(operator=sign, left=left, right=right):
            return _binary(BINARY[sign], compile_node(left), compile_node(right))
        case Call(of=of, name=name, arguments=arguments):
            return _call(of, name, arguments)
        case Unsupported(kind=what):
            raise NotSupported(what)


# -- names, fields


def _name(name: str) -> CompiledCondition:
    look_up = _look_up(name)

    def value(fields: Fields) -> Any:
        found = look_up(fields)
        if isinstance(found, NamedList):
            raise EvaluationError(f"the list {name} stands behind `in` alone")
        return found

    return value


def _look_up(name: str) -> CompiledCondition:
    def value(fields: Fields) -> Any:
        try:
            return fields[name]
        except KeyError:
            raise EvaluationError(f"there is no field {name}") from None

    return value


def _field(of: CompiledCondition, name: str) -> CompiledCondition:
    def value(fields: Fields) -> Any:
        found = of(fields)
        if not isinstance(found, dict):
            raise EvaluationError(f"{describe_kind(found)} has no field {name}")
        if name not in found:
            raise EvaluationError(f"there is no field {name}")
        return found[name]

    return value


def _index(of: CompiledCondition, by: CompiledCondition) -> CompiledCondition:
    def value(fields: Fields) -> Any:
        found, key = of(fields), by(fields)
        if isinstance(found, dict):
            if key not in found:
                raise EvaluationError("there is no such key")
            return found[key]
        if isinstance(found, list) and is_int(key):
            if not 0 <= key < len(found):
                raise EvaluationError("the index is out of range")
            return found[key]
        raise EvaluationError(f"{describe_kind(found)} has no [{describe_kind(key)}]")

    return value


# -- logic: an error is absorbed by a part that decides without it


def _group(parts: list[CompiledCondition], *, decisive: bool) -> CompiledCondition:
    def value(fields: Fields) -> Any:
        wrong: EvaluationError | None = None
        for part in parts:
            try:
                found = part(fields)
            except EvaluationError as error:
                wrong = wrong or error
                continue
            if found is decisive:
                return decisive
            if found is not (not decisive):
                wrong = wrong or EvaluationError(f"{describe_kind(found)} is not true or false")
        if wrong is not None:
            raise wrong
        return not decisive

    return value


def _not(of: CompiledCondition) -> CompiledCondition:
    return lambda fields: not _boolean(of(fields))


def _choice(when: CompiledCondition, then: CompiledCondition, otherwise: CompiledCondition) -> CompiledCondition:
    return lambda fields: then(fields) if _boolean(when(fields)) else otherwise(fields)


def _boolean(value: Any) -> bool:
    if value is True or value is False:
        return value
    raise EvaluationError(f"{describe_kind(value)} is not true or false")


def _is_constant(node: Node) -> bool:
    return isinstance(node, Literal) and (isinstance(node.value, str) or is_number(node.value))


def _in_constants(of: CompiledCondition, constants: frozenset[Any]) -> CompiledCondition:
    """Membership in texts and numbers, which Python compares as CEL does."""

    def value(fields: Fields) -> bool:
        found = of(fields)
        return (isinstance(found, str) or is_number(found)) and found in constants

    return value


def _in_field(of: CompiledCondition, name: str) -> CompiledCondition:
    return _binary(BINARY["in"], of, _look_up(name))


def _minus(of: CompiledCondition) -> CompiledCondition:
    def value(fields: Fields) -> Any:
        found = of(fields)
        if is_int(found):
            return to_int64(-found)
        if isinstance(found, float):
            return -found
        raise EvaluationError(f"-{describe_kind(found)} is not possible")

    return value


def _binary(apply: Callable[[Any, Any], Any], left: CompiledCondition, right: CompiledCondition) -> CompiledCondition:
    return lambda fields: apply(left(fields), right(fields))


# -- functions


def _call(of: Node | None, name: str, arguments: tuple[Node, ...]) -> CompiledCondition:
    if name == "size":
        return _size(compile_node(arguments[0] if of is None else of))
    if of is None:
        return _has(arguments[0])
    subject, argument = compile_node(of), compile_node(arguments[0])
    if name == "matches":
        pattern = arguments[0]
        if isinstance(pattern, Literal) and isinstance(pattern.value, str):
            return _matches_constant(subject, pattern.value)
    return _on_strings(name, _ON_STRINGS[name], subject, argument)


_ON_STRINGS: dict[str, Callable[[str, str], bool]] = {
    "contains": operator.contains,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "matches": patterns.has_match,
}
METHODS = (*_ON_STRINGS, "size")


def _on_strings(
    name: str, apply: Callable[[str, str], bool], subject: CompiledCondition, argument: CompiledCondition
) -> CompiledCondition:
    def value(fields: Fields) -> bool:
        left, right = subject(fields), argument(fields)
        if isinstance(left, str) and isinstance(right, str):
            return apply(left, right)
        raise EvaluationError(f"{describe_kind(left)}.{name}({describe_kind(right)}) is not possible")

    return value


def _matches_constant(subject: CompiledCondition, pattern: str) -> CompiledCondition:
    try:
        search = patterns.compile_pattern(pattern)
    except ValueError as error:
        wrong = str(error)

        def never(fields: Fields) -> bool:
            raise EvaluationError(f"invalid pattern: {wrong}")

        return never

    def value(fields: Fields) -> bool:
        found = subject(fields)
        if isinstance(found, str):
            return search(found)
        raise EvaluationError(f"{describe_kind(found)}.matches(string) is not possible")

    return value


def _size(of: CompiledCondition) -> CompiledCondition:
    def value(fields: Fields) -> int:
        found = of(fields)
        if isinstance(found, str | list | dict):
            return len(found)
        raise EvaluationError(f"size({describe_kind(found)}) is not possible")

    return value


def _has(field: Node) -> CompiledCondition:
    assert isinstance(field, Field)
    owner, name = compile_node(field.of), field.name

    def value(fields: Fields) -> bool:
        found = owner(fields)
        if isinstance(found, dict):
            return name in found
        raise EvaluationError(f"{describe_kind(found)} has no fields")

    return value
