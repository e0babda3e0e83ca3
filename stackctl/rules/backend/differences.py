"""Where a condition means something else, or nothing, to the backend that enforces it than CEL says.

The backend evaluates with cel-js, a JavaScript library, after answering method calls in the text. What is known to
differ is found part by part, each with the spelling that means the same to both; what else does, by trying users.
"""

from __future__ import annotations

import contextlib
import re
from math import isinf
from typing import TYPE_CHECKING

from stackctl.rules.backend.cel_js.patterns import (
    counts_units,
    has_nested_repeats,
    has_spaces,
    is_same_to_both,
    read_pattern,
)
from stackctl.rules.backend.cel_js.read import MethodCall, find_calls
from stackctl.rules.backend.trial import FEW, MANY, Trial, shorten
from stackctl.rules.cel.nodes import (
    Binary,
    Call,
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
from stackctl.rules.cel.patterns import compile_pattern
from stackctl.rules.cel.types import CONVERSIONS, MACROS, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.rules.cel.values import Lists

_METHODS = ("contains", "startsWith", "endsWith", "matches")
_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=", "in")
_BODY = "a part that repeats within a part that repeats"
_UNITS = "it counts UTF-16 units, CEL characters: they differ for emoji"
_WHOLE = 2**53  # from here on, JavaScript does not tell whole numbers apart
_TEXTS = ("email", "emailDomain", "countryCode", "authMethod", "oauthProvider")
_INSTEAD = {
    r"\A": "^", r"\z": "$", "[[:alpha:]]": "[A-Za-z]", "[[:digit:]]": "[0-9]", "[[:alnum:]]": "[0-9A-Za-z]",
    "[[:lower:]]": "[a-z]", "[[:upper:]]": "[A-Z]", "[[:space:]]": r"[\t\n\v\f\r ]",
    "(?P<": "(?<", "[]": r"[\]", "[^]": r"[^\]",
}  # fmt: skip


def check_backend(condition: str, lists: Lists | None = None, *, refused: bool = False) -> Iterator[Problem]:
    """Problems of the kind `backend`. `refused`: the condition has errors besides, so that CEL does not take it.

    Of what is known to differ, nothing where no user among many shows a difference.
    """
    try:
        tree = parse(condition)
    except ConditionSyntaxError:
        tree = None
    known = list(_Checker(condition).check(tree)) if tree is not None else []
    if tree is not None:
        yield from _find_slow_patterns(tree)
    trial = Trial(condition, tree, lists or {})
    shown = trial.find_difference(MANY if known or refused else FEW)
    if shown or not trial.is_thorough:
        yield from known
    if all(problem.severity == "info" for problem in known):
        plain = shown if not known else trial.find_difference(FEW, plain=True)
        yield from [plain] if plain else []


class _Checker:
    """What is known to differ, part by part."""

    def __init__(self, condition: str) -> None:
        self._condition = condition
        self._calls = {(call.start, call.end): call for call in find_calls(condition) if call.field in _TEXTS}
        self._arguments: set[int] = set()  # where those of methods begin, which are checked with the call

    def check(self, tree: Node) -> Iterator[Problem]:
        for node in walk(tree):
            match node:
                case Call(of=of, name="size") if of is not None:
                    yield _problem(node, "it has no .size()", f"size({self._text(of)})")
                case Call(of=of, name=name) if of is not None and name in MACROS:
                    if not (isinstance(of, Name) and of.name == "riskScores"):
                        yield _problem(
                            node, f"it has no macro {name} of a list", "spell the cases out, joined by || or &&"
                        )
                case Call(of=None, name="size", arguments=(argument,)) if not isinstance(argument, ListLiteral):
                    yield Problem(node.span.start, "backend", "info", _UNITS)
                case Call(of=None, name=name, arguments=arguments) if name in CONVERSIONS:
                    instead = self._convert(name, arguments)
                    yield _problem(node, f"it has no {name}(), and the condition is an error there", instead)
                case Call(of=of, name=name, arguments=(argument,)) if of is not None and name in _METHODS:
                    self._arguments.add(argument.span.start)
                    yield from self._check_call(node, of, argument)
                case Literal(value=str() as value) if node.span.start not in self._arguments:
                    yield from self._check_string(node, value)
                case Literal(value=int() | float() as value) if not isinstance(value, bool):
                    yield from self._check_number(node, value)
                case Binary(operator=operator, left=left) if operator in _COMPARISONS and self._is_chained(node, left):
                    what = "it takes no second comparison without brackets, and the condition is an error there"
                    yield _problem(
                        node, what, f"({self._text(left)}) {self._condition[left.span.end : node.span.end].strip()}"
                    )
                case Binary(operator="%", left=Unary(operator="-", of=of), right=right):
                    what = "where nothing is left, it is -0 there, which does not equal 0"
                    yield _problem(node, what, f"-({self._text(of)} % {self._text(right)})")
                case Binary(operator="/", left=left, right=right):
                    yield from self._check_division(node, left, right)
                case Field(of=of) | Index(of=of) if of.span.start != node.span.start:
                    what = "it knows no field of what stands in brackets, and the condition is an error there"
                    yield _problem(
                        node, what, self._text(of) + self._condition[of.span.end : node.span.end].lstrip(") \t\n")
                    )
                case Logical(parts=parts):
                    yield from self._check_failures(node, parts)
                case Unsupported(kind="bytes" | "a name with a leading dot" as kind):
                    yield _problem(node, f"it does not know {kind}, and the condition is an error there")
                case _:
                    pass

    def _text(self, node: Node) -> str:
        return self._condition[node.span.start : node.span.end]

    def _check_call(self, node: Call, of: Node, argument: Node) -> Iterator[Problem]:
        name = node.name
        call = self._calls.get((node.span.start, node.span.end))
        value = argument.value if isinstance(argument, Literal) and isinstance(argument.value, str) else None
        if value is None:
            yield _problem(argument, f"it takes nothing but a string in double quotes in {name}(…)")
        elif call is not None:
            yield from self._check_argument(argument, call, value)
        else:
            text = self._text(argument)
            field = of.name if isinstance(of, Name) else None
            instead = f"{field}.{name}({_quote_argument(value, name)})" if field else None
            if text.startswith("'"):
                yield _problem(argument, f"it takes no single quotes in {name}(…)", _quote_argument(value, name))
            elif text.startswith(('"""', "r", "R")):
                what = f"it takes nothing but a string in double quotes in {name}(…)"
                yield _problem(argument, what, _quote_argument(value, name))
            elif field:
                yield _problem(node, f"it takes {name} right behind the field and its dot, without brackets", instead)
            else:
                yield _problem(node, f"it takes {name} of nothing but a field: email.{name}(…)")

    def _check_argument(self, argument: Node, call: MethodCall, value: str) -> Iterator[Problem]:
        if call.method != "matches":
            if call.argument != value:
                what = f'it knows no escapes but \\\\ and \\" in {call.method}(…)'
                yield _problem(argument, what, _quote_argument(value, call.method))
            return
        if is_same_to_both(call.argument, value):
            pieces = read_pattern(call.argument, javascript=True)
            if counts_units(pieces) or has_spaces(pieces):
                what = _UNITS if counts_units(pieces) else r"\s is more kinds of space there: no-break spaces, for one"
                yield Problem(argument.span.start, "backend", "info", what)
            return
        if call.argument != value:
            if "\b" in value:
                yield _problem(
                    argument, r"\b is a backspace in CEL and a word boundary there", r"\\b for a word boundary"
                )
            else:
                what = "it leaves escapes to the pattern, which has others than CEL's strings"
                yield _problem(argument, what, _quote_argument(value, call.method))
            return
        what = "its patterns are JavaScript's, which reads this one otherwise than RE2"
        try:
            read_pattern(value, javascript=True)
            compile_pattern(value)
        except ValueError as error:
            what = f"its patterns are JavaScript's, which takes this one: {error}"
            with contextlib.suppress(ValueError):
                compile_pattern(value)
                what = f"its patterns are JavaScript's, and this one is an error there: {error}"
        yield _problem(argument, what, _suggest_pattern(value))

    def _check_string(self, node: Node, value: str) -> Iterator[Problem]:
        text = self._text(node)
        taken = [call for call in self._calls.values() if node.span.start < call.start and call.end < node.span.end]
        if taken:
            yield _problem(node, f"it takes what looks like a call for one, in a string too: {taken[0].method}(…)")
        elif text[0] in "rR":
            yield _problem(node, "it has no raw strings, and the condition is an error there", _spell(value))
        elif text.startswith(('"""', "'''")) and len(text) >= 6:
            yield _problem(node, "it has no triple quotes, and the condition is an error there", _spell(value))
        elif text[1:-1] != value:
            what = f"it knows no escapes in strings: {shorten(text)} is {len(text) - 2} characters there"
            yield _problem(node, what, _spell(value))

    def _check_number(self, node: Node, value: float) -> Iterator[Problem]:
        text = self._text(node).lstrip("-").strip()
        minus = "-" if value < 0 else ""
        if text[:2].lower() == "0x":
            readable = True
        elif isinstance(value, int):
            readable = text == "0" or not text.startswith("0")
        else:
            readable = re.fullmatch(r"[0-9]+\.[0-9]+", text) is not None
            if readable and self._condition[node.span.start] == "-" and value == 0:
                yield _problem(node, "-0.0 is not 0 there", "0.0")
        if not readable:
            what = f"it does not take {shorten(text)} for a number, and the condition is an error there"
            yield _problem(node, what, None if isinf(value) else f"{minus}{_to_plain(abs(value))}")
        elif isinstance(value, int) and abs(value) > _WHOLE:
            yield _problem(node, f"whole numbers beyond {_WHOLE} are not told apart there")

    def _is_chained(self, node: Node, left: Node) -> bool:
        return isinstance(left, Binary) and left.operator in _COMPARISONS and node.span.start == left.span.start

    def _check_division(self, node: Node, left: Node, right: Node) -> Iterator[Problem]:
        one, other = self._text(left), self._text(right)
        if any(isinstance(part, Literal) and isinstance(part.value, float) for part in walk(node)):
            yield _problem(node, "it divides whole numbers alone, and the condition is an error there")
            return
        match left, right:
            case Literal(value=int() as whole), Literal(value=int() as by) if by != 0 and whole % by == 0:
                return
            case _:
                pass
        if isinstance(left, Binary):
            one = f"({one})"
        if isinstance(right, Binary):
            other = f"({other})"
        what = "a division of whole numbers is a fraction there: 7 / 2 is 3.5, and 3 in CEL"
        yield _problem(node, what, f"({one} - {one} % {other}) / {other}")

    def _convert(self, name: str, arguments: tuple[Node, ...]) -> str | None:
        match name, arguments:
            case ("int" | "double" | "dyn", (Name() | Field() as field,)):
                return self._text(field) + ", which is compared with numbers of either kind"
            case ("string", (Literal(value=str()) as literal,)) | ("dyn", (literal,)):
                return self._text(literal)
            case ("int" | "double" | "uint", (Literal(value=str() | int() | float() as value),)):
                try:
                    return _to_plain(int(value) if name != "double" else float(value))
                except (ValueError, OverflowError):
                    return None
            case _:
                return None

    def _check_failures(self, node: Logical, parts: tuple[Node, ...]) -> Iterator[Problem]:
        """Of `&&`, a first part that is false ends it there, too; no other part of either decides before an error."""
        failing = [place for place, part in enumerate(parts) if _can_fail(part)]
        if not failing or (node.operator == "&&" and len(parts) == 2 and failing == [1]):
            return
        what = "the whole condition is an error there when this fails, even beside a part that decides"
        yield _problem(parts[failing[0]], what, "write it so that it can't fail")


def _find_slow_patterns(tree: Node) -> Iterator[Problem]:
    for node in walk(tree):
        match node:
            case Call(name="matches", arguments=(Literal(value=str() as value) as argument,)) if has_nested_repeats(
                value
            ):
                what = f"its patterns are JavaScript's, and this one can hang it for seconds: {_BODY}"
                yield _problem(argument, what)
            case _:
                pass


def _can_fail(node: Node) -> bool:
    """Whether it may end without a value, of a condition without errors."""
    for part in walk(node):
        match part:
            case Binary(operator="/" | "%", right=Literal(value=int() | float() as by)) if by != 0:
                pass
            case Binary(operator="/" | "%"):
                return True
            case Index(by=Literal(value=str())):
                pass
            case Index():
                return True
            case Call(of=None, name=name) if name in CONVERSIONS:
                return True
            case _:
                pass
    return False


def _quote_argument(value: str, method: str) -> str:
    """The argument of a method as both read it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if method != "matches" else '"' + escaped.replace("\n", "\\\\n").replace("\r", "\\\\r") + '"'


def _spell(value: str) -> str | None:
    """A string as both read it, which has no escapes; None where there is none."""
    if "\\" in value or "\n" in value:
        return f"text.matches({_quote_argument(f'^{_escape_pattern(value)}$', 'matches')})"
    for quote in '"', "'":
        if quote not in value:
            return f"{quote}{value}{quote}"
    return " + ".join(f"'{part}'" if part == '"' else f'"{part}"' for part in re.split('(")', value) if part)


def _escape_pattern(value: str) -> str:
    return re.sub(r"[\\.*+?()\[\]{}|^$]", r"\\\g<0>", value)


def _to_plain(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.20f}".rstrip("0") + ("0" if value == int(value) else "")


def _suggest_pattern(pattern: str) -> str | None:
    if pattern.startswith("(?i)"):
        return "leave (?i) out: email is lower-cased, countryCode upper-cased"
    return next((f"{instead} for {part}" for part, instead in _INSTEAD.items() if part in pattern), None)


def _problem(node: Node, what: str, suggestion: str | None = None) -> Problem:
    return Problem(node.span.start, "backend", "warning", f"the backend's evaluator differs: {what}", suggestion)
