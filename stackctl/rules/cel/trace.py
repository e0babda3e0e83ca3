"""Why a condition says what it says of a user: its comparisons, each with its value and the fields it looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackctl.rules.cel.evaluate import can_compile, compile_condition, compile_node
from stackctl.rules.cel.nodes import Conditional, Field, Literal, Logical, Name, Node, Unary, children
from stackctl.rules.cel.parse import ConditionSyntaxError, parse
from stackctl.rules.cel.values import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.rules.cel.values import CompiledCondition, Lists
    from stackctl.rules.model import Context, Rule

_LONGEST = 100  # characters of a part


@dataclass(frozen=True)
class ConditionPart:
    """One comparison or call. `value`: what it yields, or `error`; `fields`: what it looked at."""

    text: str
    value: Any
    error: str | None
    fields: dict[str, Any]


def trace_condition(rule: Rule, context: Context) -> tuple[ConditionPart, ...]:
    """The parts between && and || and !, in order of place; none when the condition can't be read."""
    condition = rule.condition or ""
    try:
        tree = parse(condition)
    except ConditionSyntaxError:
        return ()
    fields = context.fields()
    return tuple(_trace_part(condition, leaf, fields, rule.lists) for leaf in _leaves(tree))


def list_parts(rule: Rule) -> list[tuple[str, CompiledCondition]]:
    """The parts as text and function; none when the condition can't be read."""
    condition = rule.condition or ""
    try:
        tree = parse(condition)
    except ConditionSyntaxError:
        return []
    texts = [condition[leaf.span.start : leaf.span.end] for leaf in _leaves(tree) if not isinstance(leaf, Literal)]
    return [(" ".join(text.split()), compile_condition(text)) for text in texts]


def _leaves(node: Node) -> Iterator[Node]:
    match node:
        case Logical() | Conditional() | Unary(operator="!"):
            for child in children(node):
                yield from _leaves(child)
        case _:
            yield node


def _trace_part(condition: str, node: Node, fields: dict[str, Any], lists: Lists) -> ConditionPart:
    text = " ".join(condition[node.span.start : node.span.end].split())
    shown = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    seen = dict(_find_fields(node, fields))
    if not can_compile(node):
        return ConditionPart(shown, None, "only the whole condition can be evaluated", seen)
    try:
        return ConditionPart(shown, compile_node(node)({**fields, **lists}), None, seen)
    except EvaluationError as error:
        return ConditionPart(shown, None, str(error), seen)


def _find_fields(node: Node, fields: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    match node:
        case Field(of=Name(name="riskScores"), name=name) if name in fields["riskScores"]:
            yield f"riskScores.{name}", fields["riskScores"][name]
        case Name(name=name) if name in fields:
            yield name, fields[name]
        case _:
            for child in children(node):
                yield from _find_fields(child, fields)
