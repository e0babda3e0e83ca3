"""The reference evaluator: cel-python's interpreter, with its errors kept in and its deviations corrected.

Its compiling runner gives wrong answers under threads and is not used. Numbers of different types are compared by
value, and values of different types are unequal, as the specification says and cel-python does not.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, cast

from stackctl.rules.cel import patterns
from stackctl.rules.cel.cost import refuse_costly
from stackctl.rules.cel.nodes import Call, Field, walk
from stackctl.rules.cel.operators import BINARY
from stackctl.rules.cel.parse import parse
from stackctl.rules.cel.tokens import spell_plainly
from stackctl.rules.cel.values import EvaluationError, NamedList

if TYPE_CHECKING:
    from celpy.evaluation import Context

    from stackctl.rules.cel.values import CompiledCondition, Fields

FRAMES = 50_000  # its walk over a tree takes some dozen frames for each level
_LIMIT = threading.Lock()


def compile_with_reference(condition: str) -> CompiledCondition:
    """A function from the fields of a context to what the condition yields; it raises EvaluationError.

    Raises ConditionSyntaxError.
    """
    from celpy import Environment, InterpretedRunner
    from celpy.adapter import json_to_cel
    from celpy.celparser import CELParseError

    tree = parse(condition)
    refuse_costly(condition, tree)
    for node in walk(tree):
        if isinstance(node, Call) and (node.of, node.name) == (None, "has") and not _takes_field(node):
            raise EvaluationError("has() takes a field of something: has(riskScores.bot)")
    environment = Environment(runner_class=InterpretedRunner)
    _raise_recursion_limit()
    try:
        # Its own tokens take exponential time for some strings.
        compiled = environment.compile(spell_plainly(condition))
    except CELParseError:
        raise EvaluationError("cel-python can't read it") from None
    built = environment.program(compiled, functions=_functions())

    def value(fields: Fields) -> Any:
        try:
            lists = {name: found for name, found in fields.items() if isinstance(found, NamedList)}
            values = {name: json_to_cel(found) for name, found in fields.items() if name not in lists}
            return _to_python(built.evaluate(cast("Context", values | lists)))
        except EvaluationError:
            raise
        # Whatever it raises is CEL's error value; the message may hold kilobytes of the user's own data.
        except Exception as error:  # noqa: BLE001
            raise EvaluationError(_describe_error(error)) from None

    return value


def _takes_field(call: Call) -> bool:
    return len(call.arguments) == 1 and isinstance(call.arguments[0], Field)


def _raise_recursion_limit() -> None:
    with _LIMIT:
        sys.setrecursionlimit(max(sys.getrecursionlimit(), FRAMES))


def _describe_error(error: Exception) -> str:
    from celpy.evaluation import CELEvalError

    if isinstance(error, CELEvalError) and error.args and isinstance(error.args[0], str):
        known = ("no such overload", "no matching overload", "no such member", "divide by zero", "modulus by zero",
                 "overflow", "undeclared reference", "no such key", "invalid_argument")  # fmt: skip
        for words in known:
            if words in error.args[0]:
                return words
    return "it can't be evaluated"


def _functions() -> dict[str, Any]:
    from celpy import celtypes

    def pair(name: str) -> Any:
        apply = BINARY[name]

        def function(left: Any, right: Any) -> Any:
            # It hands errors on as values.
            for operand in (left, right):
                if isinstance(operand, Exception):
                    return operand
            return celtypes.BoolType(apply(_to_python(left), _to_python(right)))

        return function

    def matches(text: Any, pattern: Any) -> Any:
        if not isinstance(text, str) or not isinstance(pattern, str):
            raise EvaluationError("matches takes strings")
        return celtypes.BoolType(patterns.has_match(str(text), str(pattern)))

    return {
        "_==_": pair("=="), "_!=_": pair("!="), "_<_": pair("<"), "_<=_": pair("<="), "_>_": pair(">"),
        "_>=_": pair(">="), "_in_": pair("in"), "matches": matches,
    }  # fmt: skip


def _to_python(value: Any) -> Any:
    """cel-python's value as Python's own."""
    from celpy import celtypes

    match value:
        case celtypes.BoolType():
            return bool(value)
        case celtypes.StringType():
            return str(value)
        case celtypes.UintType() | celtypes.IntType():
            return int(value)
        case celtypes.DoubleType():
            return float(value)
        case celtypes.ListType():
            return [_to_python(item) for item in value]
        case celtypes.MapType():
            return {_to_python(key): _to_python(item) for key, item in value.items()}
        case _:
            return value
