"""Conditions as predicates of PostgreSQL, with CEL's answers: what is an error there is NULL here.

SQL's three-valued AND, OR and NOT take in a NULL just as CEL's take in an error. A part that can't be expressed is
NULL, too; so a row for which a condition is NULL is one that only Python can judge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString
from typing import Literal as OneOf

from psycopg import sql

from stackctl.rules.cel.nodes import Binary, Call, Conditional, Field, ListLiteral, Literal, Logical, Name, Node, Unary
from stackctl.rules.cel.parse import ConditionSyntaxError, parse
from stackctl.rules.cel.pattern_sql import translate_pattern
from stackctl.rules.model import RISKS

if TYPE_CHECKING:
    from stackctl.rules.cel.values import Lists

Composable = sql.Composable

# Columns of the relation: texts of collation C, and integers. The text of an unknown field is NULL.
TEXTS = {
    "email": "email",
    "emailDomain": "email_domain",
    "countryCode": "country_code",
    "authMethod": "auth_method",
    "oauthProvider": "oauth_provider",
}
_SIGNS: dict[str, LiteralString] = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_UNKNOWN = sql.SQL("NULL::boolean")


@dataclass(frozen=True)
class _Value:
    kind: OneOf["text", "number", "bool"]
    sql: Composable


class _NotTranslatable(Exception):
    """SQL can't say it."""


_NO_LISTS: Lists = {}


def to_predicate(condition: str, lists: Lists = _NO_LISTS) -> Composable:
    """A boolean expression over a relation with the columns of TEXTS and those of the risk scores.

    `lists`: those that the condition may use by name.
    """
    try:
        return _boolean(parse(condition), lists)
    except ConditionSyntaxError:
        return _UNKNOWN


def _boolean(node: Node, lists: Lists) -> Composable:
    try:
        return _condition(node, lists)
    except _NotTranslatable:
        return _UNKNOWN


def _condition(node: Node, lists: Lists) -> Composable:
    match node:
        case Literal(value=bool() as value):
            return sql.SQL("TRUE" if value else "FALSE")
        case Logical(operator=sign, parts=parts):
            joint = sql.SQL(" AND " if sign == "&&" else " OR ")
            joined = parts if sign == "&&" else _gather_equalities(parts)
            return sql.SQL("({})").format(joint.join([_boolean(part, lists) for part in joined]))
        case Unary(operator="!", of=of):
            return sql.SQL("(NOT {})").format(_boolean(of, lists))
        case Conditional(when=when, then=then, otherwise=otherwise):
            # `when` once: conditionals within it would double the text each.
            return sql.SQL("(CASE {} WHEN TRUE THEN {} WHEN FALSE THEN {} END)").format(
                _boolean(when, lists), _boolean(then, lists), _boolean(otherwise, lists)
            )
        case Binary(operator="in", left=left, right=ListLiteral(items=items)):
            return _in(_value(left), items)
        case Binary(operator="in", left=left, right=Name(name=name)) if name in lists:
            # One array, which the server hashes, however long the list is.
            return sql.SQL("({} = ANY ({}::text[]))").format(_text(left), sql.Literal(list(lists[name].entries)))
        case Binary(operator=sign, left=left, right=right) if sign in _SIGNS:
            return _compare(sign, _value(left), _value(right))
        case Call(of=of, name=name, arguments=(argument,)) if of is not None:
            return _on_text(name, _text(of), argument)
        case Call(of=None, name="has", arguments=(Field(of=Name(name="riskScores"), name=name),)):
            return sql.SQL("TRUE" if name in RISKS else "FALSE")
        case _:
            raise _NotTranslatable


def _gather_equalities(parts: tuple[Node, ...]) -> list[Node]:
    """Of an OR, what compares one field with texts as one IN, which the server hashes: thousands are no chain then."""
    found: list[Node] = []
    same: dict[str, list[Binary]] = {}
    for part in parts:
        match part:
            case Binary(operator="==", left=Name(name=name), right=Literal(value=str() as text)) if "\0" not in text:
                same.setdefault(name, []).append(part)
            case _:
                found.append(part)
    for equalities in same.values():
        texts = ListLiteral(tuple(one.right for one in equalities), equalities[0].span)
        found.append(Binary("in", equalities[0].left, texts, texts.span))
    return found


def _in(value: _Value, items: tuple[Node, ...]) -> Composable:
    own = [found.sql for item in items if (found := _value(item)).kind == value.kind]
    if not own:
        return _unless_null(value, "FALSE") if items else sql.SQL("FALSE")
    return sql.SQL("({} IN ({}))").format(value.sql, sql.SQL(", ").join(own))


def _compare(sign: str, left: _Value, right: _Value) -> Composable:
    if left.kind == right.kind and (left.kind != "bool" or sign in ("==", "!=")):
        return sql.SQL("({} {} {})").format(left.sql, sql.SQL(_SIGNS[sign]), right.sql)
    if left.kind != right.kind and sign in ("==", "!="):  # values of different types are unequal
        answer = "FALSE" if sign == "==" else "TRUE"
        return sql.SQL("({} AND {})" if answer == "TRUE" else "({} OR {})").format(
            _unless_null(left, answer), _unless_null(right, answer)
        )
    raise _NotTranslatable


def _unless_null(value: _Value, answer: OneOf["TRUE", "FALSE"]) -> Composable:
    return sql.SQL("(CASE WHEN {} IS NOT NULL THEN {} END)").format(value.sql, sql.SQL(answer))


def _on_text(name: str, subject: Composable, argument: Node) -> Composable:
    if name == "matches":
        value = argument.value if isinstance(argument, Literal) else None
        if not isinstance(value, str) or (pattern := translate_pattern(value)) is None:
            raise _NotTranslatable
        return sql.SQL("({} ~ {})").format(subject, sql.Literal(pattern))
    text = _text(argument)
    match name:
        case "contains":
            return sql.SQL("(strpos({}, {}) > 0)").format(subject, text)
        case "startsWith":
            return sql.SQL("starts_with({}, {})").format(subject, text)
        case "endsWith":
            return sql.SQL("(right({0}, char_length({1})) = {1})").format(subject, text)
        case _:
            raise _NotTranslatable


def _text(node: Node) -> Composable:
    found = _value(node)
    if found.kind != "text":
        raise _NotTranslatable
    return found.sql


def _value(node: Node) -> _Value:
    match node:
        case Name(name=name) if name in TEXTS:
            return _Value("text", sql.Identifier(TEXTS[name]))
        case Field(of=Name(name="riskScores"), name=name) if name in RISKS:
            return _Value("number", sql.Identifier(name))
        case Literal(value=str() as value) if "\0" not in value:
            return _Value("text", sql.SQL("{}::text").format(sql.Literal(value)))
        case Literal(value=bool() as value):
            return _Value("bool", sql.SQL("TRUE" if value else "FALSE"))
        case Literal(value=int() | float() as value) if abs(value) < 2**53:
            return _Value("number", sql.Literal(value))
        case Call(of=None, name="size", arguments=(of,)):
            return _Value("number", sql.SQL("char_length({})").format(_text(of)))
        case Call(of=of, name="size", arguments=()) if of is not None:
            return _Value("number", sql.SQL("char_length({})").format(_text(of)))
        case _:
            raise _NotTranslatable
