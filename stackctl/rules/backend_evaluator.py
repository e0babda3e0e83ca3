"""Where a condition that is right CEL means something else, or nothing, to the backend that enforces it.

The backend evaluates with cel-js, a JavaScript library, after rewriting method calls by a regular expression.
"""

from __future__ import annotations

import re
import re._parser as pattern_parser  # the standard library's own, for the structure of a pattern
import warnings
from typing import TYPE_CHECKING, Any

from stackctl.rules.cel.parse import Call, ConditionSyntaxError, ListLiteral, Literal, Logical, Node, parse, walk
from stackctl.rules.cel.types import MACROS, Problem
from stackctl.rules.reachability import can_fail

if TYPE_CHECKING:
    from collections.abc import Iterator

_METHODS = ("contains", "startsWith", "endsWith", "matches")
# What RE2 takes and JavaScript reads as something else or not at all.
_ONLY_RE2 = re.compile(r"\(\?(?:[imsU-]+[:)]|P)|\\[AzQ]|\\[pP]|\[\[:|\\C")
_BODY = "a part that repeats within a part that repeats"


def check_backend(condition: str) -> Iterator[Problem]:
    """What to write otherwise, as problems of the kind `backend`; of a condition that can't be read, nothing."""
    try:
        tree = parse(condition)
    except ConditionSyntaxError:
        return
    for node in walk(tree):
        match node:
            case Call(of=of, name="size") if of is not None:
                yield _problem(node, "it has no .size()", f"size({condition[of.span.start : of.span.end]})")
            case Call(name=name) if name in MACROS:
                yield _problem(node, f"it has no macro {name}", "spell the cases out, joined by || or &&")
            case Call(name="size", arguments=(argument,)) if not isinstance(argument, ListLiteral):
                yield Problem(
                    node.span.start, "backend", "info", "it counts UTF-16 units, CEL characters: they differ for emoji"
                )
            case Call(of=of, name=name, arguments=(argument,)) if of is not None and name in _METHODS:
                yield from _check_argument(condition, name, argument)
            case Literal(value=str() as value):
                yield from _check_string(condition, node, value)
            case Logical(parts=parts) if any(can_fail(part) for part in parts):
                part = next(part for part in parts if can_fail(part))
                what = "the whole condition is an error there when this fails, even beside a part that decides"
                yield _problem(part, what, "write it so that it can't fail")
            case _:
                pass


def _check_argument(condition: str, name: str, argument: Node) -> Iterator[Problem]:
    text = condition[argument.span.start : argument.span.end]
    if not isinstance(argument, Literal):
        yield _problem(argument, f"it takes nothing but a string in double quotes in {name}(…)")
    elif text.startswith("'"):
        yield _problem(argument, f"it takes no single quotes in {name}(…)", _quote(str(argument.value)))
    if name == "matches" and isinstance(argument, Literal):
        pattern = str(argument.value)
        if found := _ONLY_RE2.search(pattern):
            yield _problem(argument, f"its patterns are JavaScript's, which do not know {found[0]}")
        if _is_exponential(pattern):
            yield _problem(argument, f"its patterns are JavaScript's, and this one can hang it for seconds: {_BODY}")


def _check_string(condition: str, node: Literal, value: str) -> Iterator[Problem]:
    text = condition[node.span.start : node.span.end]
    if text[0] in "rR":
        yield _problem(node, "it has no raw strings", _quote(value))
    elif "\b" in value:
        yield _problem(node, r"\b is a backspace in CEL and a word boundary there", r"\\b for a word boundary")


def _quote(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _problem(node: Node, what: str, suggestion: str | None = None) -> Problem:
    return Problem(node.span.start, "backend", "warning", f"the backend's evaluator differs: {what}", suggestion)


def _is_exponential(pattern: str) -> bool:
    """Whether an unbounded repeat holds another, as in (a+)+: a backtracking matcher may need exponential time."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what may change in Python's own patterns, such as `[[a]`
            return _has_nested_repeat(pattern_parser.parse(pattern), within=False)
    except (re.error, RecursionError, OverflowError):
        return False


def _has_nested_repeat(parsed: Any, *, within: bool) -> bool:
    for operation, argument in parsed:
        match str(operation):
            case "MAX_REPEAT" | "MIN_REPEAT":
                low, high, body = argument
                unbounded = high is pattern_parser.MAXREPEAT or high - low > 10
                bodies = [body]
                if unbounded and within:
                    return True
            case "SUBPATTERN":
                unbounded, bodies = False, [argument[-1]]
            case "BRANCH":
                unbounded, bodies = False, argument[1]
            case _:
                continue
        if any(_has_nested_repeat(body, within=within or unbounded) for body in bodies):
            return True
    return False
