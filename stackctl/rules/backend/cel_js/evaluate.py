"""What the backend's evaluator makes of a condition: cel-js 0.8, as functions. A test holds them against cel-js itself.

Numbers are JavaScript's, texts are counted and ordered by UTF-16 units, and an error is the end of the whole.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from stackctl.rules.backend.cel_js.operators import FailedError, calculate, compare, get, is_truthy, kind, negate, size
from stackctl.rules.backend.cel_js.patterns import counts_units, has_spaces, is_same_to_both, read_pattern
from stackctl.rules.backend.cel_js.read import CALL_NAME, Token, find_calls, read_tokens
from stackctl.rules.cel.patterns import compile_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_DEPTH = 60  # brackets within brackets that are followed
_MACROS = ("all", "exists", "exists_one", "filter", "map")
_RESERVED = {
    "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package",
    "namespace", "return", "var", "void", "while",
}  # fmt: skip


class UnreadableError(Exception):
    """cel-js does not take the text; `token` is the first that does not fit."""

    def __init__(self, token: Token) -> None:
        super().__init__(token.text)
        self.token = token


class UndecidedError(Exception):
    """It can't be told here: a pattern that JavaScript reads otherwise than RE2, brackets too deep."""


class _Scope(dict[str, Any]):
    in_has = False


_Run: TypeAlias = "Callable[[_Scope], Any]"


class _Part(NamedTuple):
    """A part of a condition. `name`: it is this name alone."""

    run: _Run
    name: str | None = None


class BackendCondition:
    """A condition as the backend has it. Raises UnreadableError, UndecidedError.

    `calls`: what is answered beforehand. `passed`: where characters stand that it passes over.
    """

    def __init__(self, condition: str, fields: Mapping[str, Any]) -> None:
        self.calls = [call for call in find_calls(condition) if isinstance(fields.get(call.field), str)]
        self.tokens, self.passed = read_tokens(condition, self.calls)
        self._run = _Parser(self.tokens).parse().run

    def evaluate(self, fields: Mapping[str, Any], guess: bool | None = None) -> bool:
        """True or false; `guess` is the answer of calls that can't be told here. Raises FailedError, UndecidedError."""
        scope = _Scope(fields)
        scope["riskScores"] = {name: float(score) for name, score in fields["riskScores"].items()}
        for number, call in enumerate(self.calls):
            scope[f"{CALL_NAME}{number}"] = _call_method(call.method, fields[call.field], call.argument, guess)
        value = self._run(scope)
        if not isinstance(value, bool):
            raise FailedError("neither true nor false")
        return value


def _call_method(method: str, text: str, argument: str, guess: bool | None) -> bool:
    match method:
        case "contains":
            return argument in text
        case "startsWith":
            return text.startswith(argument)
        case "endsWith":
            return text.endswith(argument)
        case _:
            try:
                pieces = read_pattern(argument, javascript=True)
            except ValueError as error:
                raise FailedError(str(error)) from None
            plain = text.isascii() or not (counts_units(pieces) or has_spaces(pieces))
            if plain and is_same_to_both(argument):
                with contextlib.suppress(ValueError):
                    return compile_pattern(argument)(text)
            if guess is None:
                raise UndecidedError
            return guess


class _Parser:
    """The grammar, one method a rule."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def parse(self) -> _Part:
        found = self._expression()
        if self._next.kind != "end":
            raise UnreadableError(self._next)
        return found

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _is(self, *texts: str) -> bool:
        return self._next.kind in ("sign", "comparison") and self._next.text in texts

    def _take(self, *texts: str) -> Token:
        token = self._next
        if texts and not self._is(*texts):
            raise UnreadableError(token)
        self._at += 1
        return token

    def _takes(self, *texts: str) -> bool:
        if self._is(*texts):
            self._at += 1
            return True
        return False

    def _expression(self) -> _Part:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UndecidedError
        when = self._any()
        if self._takes("?"):
            then = self._expression().run
            self._take(":")
            otherwise = self._expression().run
            test = when.run
            when = _Part(lambda scope: then(scope) if is_truthy(test(scope)) else otherwise(scope))
        self._depth -= 1
        return when

    def _any(self) -> _Part:
        first = self._all()
        runs = [first.run]
        while self._takes("||"):
            runs.append(self._all().run)
        return first if len(runs) == 1 else _Part(lambda scope: _join(runs, scope, decisive=True))

    def _all(self) -> _Part:
        first = self._relation()
        runs = [first.run]
        while self._takes("&&"):
            runs.append(self._relation().run)
        return first if len(runs) == 1 else _Part(lambda scope: _join(runs, scope, decisive=False))

    def _relation(self) -> _Part:
        left = self._chain(("+", "-"), lambda: self._chain(("*", "/", "%"), self._unary))
        if self._next.kind != "comparison":
            return left
        sign = self._take().text
        one, other = left.run, self._chain(("+", "-"), lambda: self._chain(("*", "/", "%"), self._unary)).run
        return _Part(lambda scope: compare(sign, one(scope), other(scope)))

    def _chain(self, signs: tuple[str, ...], operand: Callable[[], _Part]) -> _Part:
        found = operand()
        if not self._is(*signs):
            return found
        first = found.run
        rest: list[tuple[str, _Run]] = []
        while self._is(*signs):
            rest.append((self._take().text, operand().run))

        def run(scope: _Scope) -> Any:
            value = first(scope)
            for sign, other in rest:
                value = calculate(sign, value, other(scope))
            return value

        return _Part(run)

    def _unary(self) -> _Part:
        signs: list[str] = []
        while self._is("!", "-"):
            signs.append(self._take().text)
        atom = self._atom()
        of = atom.run
        return _Part(lambda scope: negate(signs, of(scope))) if signs else atom

    def _atom(self) -> _Part:
        token = self._take()
        match token.kind:
            case "constant" if token.text == "null":
                return _Part(lambda scope: None)
            case "constant":
                return _value(token.text == "true")
            case "string":
                return _value(token.text[1:-1])
            case "float":
                return _value(float(token.text))
            case "int":
                return _value(float(token.text.rstrip("uU")))
            case "hex":
                return _value(_to_float(int(token.text.rstrip("uU"), 16)))
            case "name" if self._takes("("):
                return self._function(token.text, self._arguments())
            case "name":
                return self._name(token.text)
            case "sign" if token.text == "(":
                inner = self._expression()
                self._take(")")
                return _Part(_outside_has(inner.run))
            case "sign" if token.text == "[":
                return self._list()
            case "sign" if token.text == "{":
                return self._map()
            case _:
                raise UnreadableError(token)

    def _arguments(self) -> list[_Part]:
        """What stands in the brackets that were just opened."""
        if self._takes(")"):
            return []
        found = [self._expression()]
        while self._takes(","):
            found.append(self._expression())
        self._take(")")
        return found

    def _function(self, name: str, arguments: list[_Part]) -> _Part:
        runs = [argument.run for argument in arguments]
        if name == "has":
            return _Part(lambda scope: _has(runs, scope))
        if name == "size":
            return _Part(_outside_has(lambda scope: size([run(scope) for run in runs])))

        def fail(_: _Scope) -> Any:
            raise FailedError(f"there is no {name}")

        return _Part(_outside_has(fail))

    def _name(self, name: str) -> _Part:
        steps = self._steps()
        if not steps:

            def run(scope: _Scope) -> Any:
                if scope.in_has:
                    raise FailedError("has() takes a field", strict=True)
                if name in _RESERVED:
                    raise FailedError("a reserved word")
                return get(scope, name)

            return _Part(run, name)

        def follow(scope: _Scope) -> Any:
            if scope.in_has and not any(dotted for dotted, _ in steps):
                raise FailedError("has() takes a field", strict=True)
            return _follow(steps, scope, get(scope, name))

        return _Part(follow)

    def _steps(self) -> list[tuple[bool, Callable[[_Scope, Any], Any]]]:
        """`.name`, `.name(…)` and `[…]` behind a name or a map; whether it has a dot."""
        found: list[tuple[bool, Callable[[_Scope, Any], Any]]] = []
        while self._is(".", "["):
            if self._take().text == "[":
                by = self._expression().run
                self._take("]")
                found.append((False, _index(by)))
                continue
            token = self._take()
            if token.kind != "name":
                raise UnreadableError(token)
            if self._takes("("):
                found.append((True, _method(token.text, self._arguments())))
            else:
                found.append((True, _field(token.text)))
        return found

    def _list(self) -> _Part:
        runs: list[_Run] = []
        if not self._takes("]"):
            runs.append(self._expression().run)
            while self._takes(","):
                runs.append(self._expression().run)
            self._take("]")
        by = None
        if self._takes("["):
            by = self._expression().run
            self._take("]")

        def run(scope: _Scope) -> Any:
            items = [run(scope) for run in runs]
            if by is None or not runs:
                return items
            at = by(scope)
            if kind(at) != "int" or not 0 <= at < len(items):
                raise FailedError("no such place in the list", strict=True)
            return items[int(at)]

        return _Part(_outside_has(run))

    def _map(self) -> _Part:
        entries: list[tuple[_Run, _Run]] = []
        while not self._takes("}"):
            key = self._expression().run
            self._take(":")
            entries.append((key, self._expression().run))
            self._takes(",")
        steps = self._steps()

        def run(scope: _Scope) -> Any:
            pairs = [(key(scope), value(scope)) for key, value in entries]
            if any(not isinstance(key, str) for key, _ in pairs) or len({kind(value) for _, value in pairs}) > 1:
                raise FailedError("keys are texts, values of one kind", strict=True)
            return _follow(steps, scope, dict(pairs)) if pairs else {}

        return _Part(_outside_has(run))


def _value(value: Any) -> _Part:
    return _Part(_outside_has(lambda scope: value))


def _to_float(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _outside_has(run: _Run) -> _Run:
    def checked(scope: _Scope) -> Any:
        if scope.in_has:
            raise FailedError("has() takes a field", strict=True)
        return run(scope)

    return checked


def _has(runs: list[_Run], scope: _Scope) -> bool:
    if scope.in_has or not runs:
        raise FailedError("has() takes a field", strict=True)
    scope.in_has = True
    try:
        runs[0](scope)
    except FailedError as error:
        if error.strict:
            raise
        return False
    finally:
        scope.in_has = False
    return True


def _follow(steps: list[tuple[bool, Callable[[_Scope, Any], Any]]], scope: _Scope, value: Any) -> Any:
    for _, step in steps:
        value = step(scope, value)
    return value


def _field(name: str) -> Callable[[_Scope, Any], Any]:
    return lambda scope, holder: get(holder, name)


def _index(by: _Run) -> Callable[[_Scope, Any], Any]:
    return lambda scope, holder: get(holder, by(scope))


def _method(name: str, arguments: list[_Part]) -> Callable[[_Scope, Any], Any]:
    def step(scope: _Scope, holder: Any) -> Any:
        if name not in _MACROS or not isinstance(holder, list | dict) or len(arguments) < 2:
            raise FailedError(f"there is no method {name}", strict=True)
        variable = arguments[0].name
        if variable is None or (name == "map" and len(arguments) > 3):
            raise FailedError("a macro takes a name and an expression", strict=True)

        def evaluate(part: _Part, item: Any) -> Any:
            inner = _Scope(scope)
            inner.in_has = scope.in_has
            inner[variable] = item
            return part.run(inner)

        return _expand(name, list(holder), arguments[1:], evaluate)

    return step


def _expand(name: str, items: list[Any], parts: list[_Part], evaluate: Callable[[_Part, Any], Any]) -> Any:
    def holds(item: Any) -> bool:
        return is_truthy(evaluate(parts[0], item))

    match name:
        case "all":
            return all(holds(item) for item in items)
        case "exists":
            return any(holds(item) for item in items)
        case "exists_one":
            return sum([holds(item) for item in items]) == 1
        case "filter":
            return [item for item in items if holds(item)]
        case _ if len(parts) == 1:
            return [evaluate(parts[0], item) for item in items]
        case _:
            return [evaluate(parts[1], item) for item in items if holds(item)]


def _join(runs: list[_Run], scope: _Scope, *, decisive: bool) -> Any:
    value = runs[0](scope)
    if not decisive and value is False:
        return False
    for run in runs[1:]:
        other = run(scope)
        if not isinstance(value, bool) or not isinstance(other, bool):
            raise FailedError("neither true nor false")
        value = (value or other) if decisive else (value and other)
    return value
