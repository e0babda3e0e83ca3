"""How the backend reads a condition: calls of four methods are answered in the text, cel-js reads what is left.

The language is that of cel-js 0.8, not CEL's: characters that fit nothing are passed over, a word may begin with
`true`, a comparison takes two sides and no third.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

SPACE = "\t\n\v\f\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"  # what JavaScript's \s matches
_ESCAPED = "\\\\[^\n\r\u2028\u2029]"
_CALL = re.compile(
    r"(?<![A-Za-z0-9_])([A-Za-z0-9_]+)\.(contains|startsWith|endsWith|matches)"
    rf'[{SPACE}]*\([{SPACE}]*"((?:{_ESCAPED}|[^"\\])*)"[{SPACE}]*\)'
)
_STRING = {quote: re.compile(rf"{quote}((?:[^{quote}\n\\]|{_ESCAPED})*){quote}") for quote in "\"'"}
_TOKEN = re.compile(
    rf"(?P<skipped>//[^\n]*|[{SPACE}]+)|(?P<float>-?[0-9]+\.[0-9]+)|(?P<hex>0x[0-9a-fA-F]+)[uU]?"
    r"|(?P<int>0|[1-9][0-9]*)[uU]?|(?P<constant>true|false|null)"
    r"|(?P<comparison>[=!<>]=|[<>]|(?<![A-Za-z0-9_])in(?![A-Za-z0-9_]))"
    r"|(?P<sign>\|\||&&|[][(){}.,:?!*/%+-])|(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)"
)
CALL_NAME = "_method_"


@dataclass(frozen=True)
class MethodCall:
    """A call that is answered beforehand, wherever it stands: in a string or a comment, too."""

    field: str
    method: str
    argument: str
    start: int
    end: int


class Token(NamedTuple):
    """`kind`: string, float, hex, int, constant, comparison, sign, name, or "end". `start`, `end`: in the condition."""

    kind: str
    text: str
    start: int
    end: int


def find_calls(condition: str) -> list[MethodCall]:
    """The calls that are rewritten if their field is a text."""
    return [
        MethodCall(found[1], found[2], found[3].replace("\\\\", "\\").replace('\\"', '"'), *found.span())
        for found in _CALL.finditer(condition)
    ]


def read_tokens(condition: str, calls: list[MethodCall]) -> tuple[list[Token], list[int]]:
    """The tokens with a name in place of each call, and where characters stand that are passed over."""
    text, begins, shifts = _replace(condition, calls)

    def place(at: int) -> int:
        return at + shifts[bisect_right(begins, at) - 1]

    tokens: list[Token] = []
    passed: list[int] = []
    for kind, written, at in _split(text):
        if kind == "passed":
            passed.append(place(at))
        else:
            tokens.append(Token(kind, written, place(at), place(at + len(written) - 1) + 1))
    return [*tokens, Token("end", "", len(condition), len(condition))], passed


def _replace(condition: str, calls: list[MethodCall]) -> tuple[str, list[int], list[int]]:
    """The text, and from which of its offsets on how much must be added for the place in the condition."""
    parts: list[str] = []
    begins, shifts = [0], [0]
    done = length = 0
    for number, call in enumerate(calls):
        name = f"{CALL_NAME}{number}"
        parts += [condition[done : call.start], name]
        length += call.start - done + len(name)
        done = call.end
        begins.append(length)
        shifts.append(done - length)
    return "".join((*parts, condition[done:])), begins, shifts


def _split(text: str) -> Iterator[tuple[str, str, int]]:
    at = 0
    closed = dict.fromkeys(_STRING, 0)  # before this offset, no string of these quotes is ever closed
    while at < len(text):
        quote = text[at]
        if quote in _STRING:
            found = _STRING[quote].match(text, at) if at >= closed[quote] else None
            if found is None and at >= closed[quote]:
                # All quotes of the kind in the rest of the line are escaped ones, then: it is searched once.
                end = text.find("\n", at)
                closed[quote] = len(text) if end < 0 else end
            kind = "string" if found else "passed"
        else:
            found = _TOKEN.match(text, at)
            kind = (found.lastgroup or "") if found else "passed"
        if kind != "skipped":
            yield kind, found[0] if found else text[at], at
        at = found.end() if found else at + 1
