"""Why a condition says what it says of a user: its comparisons, each with its value and the fields it looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackctl.rules.cel.evaluate import evaluator, known
from stackctl.rules.cel.parse import Choice, Field, Group, Name, Node, Unary, Unreadable, children, parse
from stackctl.rules.cel.values import NoValue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.rules.model import Context

_LONGEST = 100  # characters of a part


@dataclass(frozen=True)
class Part:
    """One comparison or call. `value`: what it yields, or `error`; `fields`: what it looked at."""

    text: str
    value: Any
    error: str | None
    fields: dict[str, Any]


def parts(condition: str, context: Context) -> tuple[Part, ...]:
    """The parts between && and || and !, in order of place; none when the condition can't be read."""
    try:
        tree = parse(condition)
    except Unreadable:
        return ()
    fields = context.fields()
    return tuple(_part(condition, leaf, fields) for leaf in _leaves(tree))


def _leaves(node: Node) -> Iterator[Node]:
    match node:
        case Group() | Choice() | Unary(operator="!"):
            for child in children(node):
                yield from _leaves(child)
        case _:
            yield node


def _part(condition: str, node: Node, fields: dict[str, Any]) -> Part:
    text = " ".join(condition[node.span.start : node.span.end].split())
    shown = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    seen = dict(_fields(node, fields))
    if not known(node):
        return Part(shown, None, "only the whole condition can be evaluated", seen)
    try:
        return Part(shown, evaluator(node)(fields), None, seen)
    except NoValue as error:
        return Part(shown, None, str(error), seen)


def _fields(node: Node, fields: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    match node:
        case Field(of=Name(name="riskScores"), name=name) if name in fields["riskScores"]:
            yield f"riskScores.{name}", fields["riskScores"][name]
        case Name(name=name) if name in fields:
            yield name, fields[name]
        case _:
            for child in children(node):
                yield from _fields(child, fields)
