"""What is wrong with a condition before any user is there: a type check over the declared fields."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from typing import Literal as OneOf

from stackctl.rules.cel import patterns
from stackctl.rules.cel.cost import MACROS, refuse_costly
from stackctl.rules.cel.evaluate import METHODS, can_compile
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
from stackctl.rules.cel.parse import ConditionSyntaxError, parse
from stackctl.rules.model import RISKS

if TYPE_CHECKING:
    from collections.abc import Collection

Type = OneOf["string", "int", "double", "bool", "null", "list", "map", "any"]
Severity = OneOf["error", "warning", "info"]

FIELDS: dict[str, Type] = {
    "email": "string", "emailDomain": "string", "countryCode": "string", "authMethod": "string",
    "oauthProvider": "string", "riskScores": "map",
}  # fmt: skip
FUNCTIONS = ("size", "has", *METHODS)
# What CEL has besides macros; the reference evaluates both, and the backend's own evaluator does not know them.
CONVERSIONS: dict[str, Type] = {"int": "int", "uint": "int", "double": "double", "string": "string", "bool": "bool",
                                "bytes": "any", "dyn": "any", "type": "any"}  # fmt: skip
_NUMBERS = ("int", "double")


@dataclass(frozen=True)
class Problem:
    """`at`: offset in the condition, from 0. An error keeps the condition from ever being evaluated as it is meant."""

    at: int
    rule: str
    severity: Severity
    message: str
    suggestion: str | None = None


def check_types(condition: str, lists: Collection[str] = ()) -> tuple[Problem, ...]:
    """Everything that is wrong with a condition, in order of place. `lists`: names of lists that it may use."""
    return _check_types(condition, frozenset(lists))


@lru_cache(maxsize=8192)
def _check_types(condition: str, lists: frozenset[str]) -> tuple[Problem, ...]:
    try:
        tree = parse(condition)
    except ConditionSyntaxError as error:
        return (Problem(error.at, "syntax", "error", error.reason),)
    checker = _Checker(lists)
    found = checker.type_of(tree)
    if found not in ("bool", "any"):
        checker.wrong(tree, "not-boolean", f"a condition is true or false, and this is {_with_article(found)}")
    if not checker.problems and not can_compile(tree):
        try:
            refuse_costly(condition, tree)
        except ConditionSyntaxError as error:
            return (Problem(error.at, "cost", "error", error.reason),)
    return tuple(sorted(checker.problems, key=lambda problem: problem.at))


class _Checker:
    def __init__(self, lists: Collection[str]) -> None:
        self.problems: list[Problem] = []
        self._lists = lists
        self._bound: set[str] = set()  # variables of macros

    def wrong(self, node: Node, rule: str, message: str, suggestion: str | None = None) -> Type:
        self.problems.append(Problem(node.span.start, rule, "error", message, suggestion))
        return "any"

    def type_of(self, node: Node) -> Type:
        match node:
            case Literal(value=value):
                return _TYPES[type(value)]
            case Name(name=name):
                return self._name(node, name)
            case Field(of=of, name=name):
                return self._field(node, self.type_of(of), of, name)
            case Index(of=of, by=by):
                return self._index(node, of, by)
            case ListLiteral(items=items):
                for item in items:
                    self.type_of(item)
                return "list"
            case Logical(operator=sign, parts=parts):
                for part in parts:
                    self._boolean(part, f"a side of {sign}")
                return "bool"
            case Unary(operator="!", of=of):
                self._boolean(of, "what ! negates")
                return "bool"
            case Unary(of=of):
                found = self.type_of(of)
                return found if found in (*_NUMBERS, "any") else self._not_possible(node, f"-{found}")
            case Conditional(when=when, then=then, otherwise=otherwise):
                self._boolean(when, "what stands before ?")
                one, other = self.type_of(then), self.type_of(otherwise)
                return one if one == other else "any"
            case Binary(operator=sign, left=left, right=right):
                return self._binary(node, sign, left, right)
            case Call():
                return self._call(node)
            case Unsupported():
                return "any"

    def _not_possible(self, node: Node, what: str) -> Type:
        return self.wrong(node, "type", f"{what} is not possible")

    def _boolean(self, node: Node, what: str) -> None:
        found = self.type_of(node)
        if found not in ("bool", "any"):
            self.wrong(node, "type", f"{what} is {_with_article(found)}, not true or false", _suggest_comparison(found))

    def _name(self, node: Node, name: str) -> Type:
        if name in FIELDS:
            return FIELDS[name]
        if name in self._bound:
            return "any"
        if name in self._lists:
            return self.wrong(node, "type", f"the list {name} stands behind in alone", f"emailDomain in {name}")
        near = difflib.get_close_matches(name, [*FIELDS, *self._lists], n=1, cutoff=0.5)
        known = ", ".join([*FIELDS, *self._lists])
        what = f"there is no field or list {name}" if self._lists else f"there is no field {name}"
        return self.wrong(node, "unknown-field", what, near[0] if near else f"one of {known}")

    def _field(self, node: Node, owner: Type, of: Node, name: str) -> Type:
        if isinstance(of, Name) and of.name == "riskScores":
            if name in RISKS:
                return "int"
            near = difflib.get_close_matches(name, RISKS, n=1, cutoff=0.3)
            return self.wrong(node, "unknown-field", f"riskScores has no {name}", f"riskScores.{(near or RISKS)[0]}")
        return (
            "any"
            if owner == "any"
            else self.wrong(node, "unknown-field", f"{_with_article(owner)} has no field {name}")
        )

    def _index(self, node: Node, of: Node, by: Node) -> Type:
        owner, key = self.type_of(of), self.type_of(by)
        if owner == "map" and isinstance(by, Literal) and isinstance(by.value, str):
            return self._field(node, owner, of, by.value)
        if (owner, key) == ("list", "int") or "any" in (owner, key):
            return "any"
        return self._not_possible(node, f"[{key}] of {_with_article(owner)}")

    def _binary(self, node: Node, sign: str, left: Node, right: Node) -> Type:
        if sign == "in" and isinstance(right, Name) and right.name in self._lists and right.name not in self._bound:
            self._comparable(left, self.type_of(left), "string")
            return "bool"
        one, other = self.type_of(left), self.type_of(right)
        if sign == "in":
            if other not in ("list", "map", "any"):
                return self.wrong(
                    node, "in-takes-a-list", f"nothing is in {_with_article(other)}",
                    'text.contains("…") looks for a part of a text' if other == "string" else "x in [a, b]",
                )  # fmt: skip
            if isinstance(right, ListLiteral) and one != "any":
                for item in right.items:
                    self._comparable(item, one, self.type_of(item))
            return "bool"
        if sign in ("==", "!="):
            self._comparable(node, one, other)
            return "bool"
        if sign in ("<", "<=", ">", ">="):
            if not _is_comparable(one, other) or one in ("null", "list", "map"):
                self.wrong(node, "type", f"{_with_article(one)} and {_with_article(other)} have no order")
            return "bool"
        return self._arithmetic(node, sign, one, other)

    def _comparable(self, node: Node, one: Type, other: Type) -> None:
        if not _is_comparable(one, other):
            self.wrong(node, "type", f"{_with_article(one)} never equals {_with_article(other)}")

    def _arithmetic(self, node: Node, sign: str, one: Type, other: Type) -> Type:
        if "any" in (one, other):
            return "any"
        if one == other and (one == "int" or (one == "double" and sign != "%")):
            return one
        if sign == "+" and one == other and one in ("string", "list"):
            return one
        return self._not_possible(node, f"{_with_article(one)} {sign} {_with_article(other)}")

    def _call(self, node: Call) -> Type:
        name, arguments = node.name, node.arguments
        if node.of is not None and name in MACROS:
            return self._macro(node)
        if name == "has":
            if len(arguments) != 1 or not isinstance(arguments[0], Field):
                return self.wrong(node, "has", "has() takes a field of something", "has(riskScores.bot)")
            self.type_of(arguments[0])
            return "bool"
        types = [self.type_of(argument) for argument in arguments]
        subject = None if node.of is None else self.type_of(node.of)
        if name == "size":
            measured = types if subject is None else [subject, *types]
            if len(measured) != 1 or measured[0] not in ("string", "list", "map", "any"):
                return self._not_possible(node, f"size({', '.join(measured)})")
            return "int"
        if name in METHODS:
            if subject is None:
                return self.wrong(node, "type", f"{name} belongs behind a text", f'email.{name}("…")')
            if len(types) != 1 or subject not in ("string", "any") or types[0] not in ("string", "any"):
                return self._not_possible(node, f"{_with_article(subject)}.{name}({', '.join(types)})")
            self._pattern(node)
            return "bool"
        if node.of is None and name in CONVERSIONS:
            return CONVERSIONS[name]
        known = (*FUNCTIONS, *CONVERSIONS, *MACROS)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        return self.wrong(
            node,
            "unknown-function",
            f"there is no function {name}",
            near[0] if near else f"one of {', '.join(FUNCTIONS)}",
        )

    def _pattern(self, node: Call) -> None:
        match node:
            case Call(name="matches", arguments=(Literal(value=str() as pattern, span=span),)):
                try:
                    patterns.compile_pattern(pattern)
                except ValueError as error:
                    self.problems.append(Problem(span.start, "pattern", "error", f"invalid pattern: {error}"))
            case _:
                pass

    def _macro(self, node: Call) -> Type:
        assert node.of is not None
        self.type_of(node.of)
        variable = node.arguments[0] if node.arguments else None
        if not isinstance(variable, Name) or len(node.arguments) < 2:
            return self.wrong(
                node, "type", f"{node.name} takes a variable and an expression", 'list.exists(x, x == "…")'
            )
        before = set(self._bound)
        self._bound.add(variable.name)
        for argument in node.arguments[1:]:
            self.type_of(argument)
        self._bound = before
        return "bool" if node.name in ("all", "exists", "exists_one") else "list"


_TYPES: dict[type, Type] = {str: "string", int: "int", float: "double", bool: "bool", type(None): "null"}


def _is_comparable(one: Type, other: Type) -> bool:
    return one == other or "any" in (one, other) or (one in _NUMBERS and other in _NUMBERS)


def _with_article(type_: Type) -> str:
    return {"int": "an int", "bool": "a boolean", "null": "null", "any": "any value"}.get(type_, f"a {type_}")


def _suggest_comparison(type_: Type) -> str | None:
    return {"string": 'compare it: … == ""', "int": "compare it: … > 0"}.get(type_)


def find_constants(node: Node) -> list[tuple[str, str, object]]:
    """Comparisons of a field with a constant, the node's own and those below: field, operator or function, constant."""
    return [one for part in walk(node) for one in own_constants(part)]


def own_constants(node: Node) -> list[tuple[str, str, object]]:
    """As `find_constants`, without what is below."""
    match node:
        case Binary(operator="in", left=left, right=ListLiteral(items=items)) if field_path(left):
            return [(field_path(left), "in", item.value) for item in items if isinstance(item, Literal)]
        case Binary(operator=sign, left=left, right=Literal(value=value)) if field_path(left):
            return [(field_path(left), sign, value)]
        case Binary(operator=sign, left=Literal(value=value), right=right) if field_path(right):
            return [(field_path(right), _MIRRORED.get(sign, sign), value)]
        case Call(of=of, name=name, arguments=(Literal(value=value),)) if of is not None and field_path(of):
            return [(field_path(of), name, value)]
        case _:
            return []


_MIRRORED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


def field_path(node: Node) -> str:
    """`email`, `riskScores.bot`; empty for what is no field."""
    match node:
        case Name(name=name):
            return name
        case Field(of=Name(name="riskScores"), name=name):
            return f"riskScores.{name}"
        case _:
            return ""
