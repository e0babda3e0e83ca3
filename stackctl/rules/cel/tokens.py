"""The text of a condition as tokens, in one pass that takes linear time whatever the text."""

from __future__ import annotations

import re
from typing import NamedTuple

# Each alternative is told from the others by how it begins, and gives nothing back: no text is looked at twice.
_TOKEN = re.compile(
    r"""[ \t\n\f\r]+|//[^\n]*
    |(?P<string>[bB]?(?:
        [rR](?:\"{3}(?:[^"]++|"(?!""))*+\"{3}|'{3}(?:[^']++|'(?!''))*+'{3}|"(?!"")[^"\n\r]*+"|'(?!'')[^'\n\r]*+')
        |\"{3}(?:[^"\\]++|\\.|"(?!""))*+\"{3}|'{3}(?:[^'\\]++|\\.|'(?!''))*+'{3}
        |"(?!"")(?:[^"\\\n\r]++|\\[^\n\r])*+"|'(?!'')(?:[^'\\\n\r]++|\\[^\n\r])*+'))
    |(?P<double>[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+)
    |(?P<int>0x[0-9a-fA-F]+[uU]?|[0-9]+[uU]?)
    |(?P<name>[_a-zA-Z][_a-zA-Z0-9]*)
    |(?P<sign>&&|\|\||[<>=!]=|[-+*/%<>!?:.,()\[\]{}])""",
    re.DOTALL | re.VERBOSE,
)
_QUOTES = re.compile(r"""([bB]?)([rR]?)("{3}|'{3}|"|')""")
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"} | {c: c for c in "\\?\"'`"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))", re.DOTALL)
_TO_ESCAPE = re.compile(r'\\.|["\n\r]', re.DOTALL)


class ConditionSyntaxError(Exception):
    """The text is no condition; `at` is the offset of the place, from 0."""

    def __init__(self, what: str, at: int) -> None:
        super().__init__(what)
        self.reason = what
        self.at = at


class Token(NamedTuple):
    """`kind`: string, double, int, name, sign; at the last place `end`, or `wrong` where the text is none of these."""

    kind: str | None
    text: str
    start: int
    end: int


def find_tokens(text: str) -> list[Token]:
    found: list[Token] = []
    at = 0
    while match := _TOKEN.match(text, at):
        at = match.end()
        if match.lastgroup:
            found.append(Token(match.lastgroup, match[0], match.start(), at))
    found.append(Token("end", "", len(text.rstrip()), at) if at == len(text) else Token("wrong", text[at], at, at + 1))
    return found


def is_bytes(string: Token) -> bool:
    return string.text[0] in "bB"


def decode_string(string: Token) -> str:
    """The text that the token of a string stands for. Raises ConditionSyntaxError."""
    quotes = _QUOTES.match(string.text)
    assert quotes
    body = string.text[quotes.end() : -len(quotes[3])]
    if quotes[2]:
        return body
    base = string.start + quotes.end()

    def decoded(found: re.Match[str]) -> str:
        coded = found[1] or found[2] or found[3]
        if coded or found[4]:
            code = int(coded, 16) if coded else int(found[4], 8)
            if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                raise ConditionSyntaxError(f"{found[0]} is no character", base + found.start())
            return chr(code)
        if found[5] not in _ESCAPES:
            raise ConditionSyntaxError(
                f'{found[0]} is not a CEL escape; write \\\\ for a backslash, or the string as r"…"',
                base + found.start(),
            )
        return _ESCAPES[found[5]]

    return _ESCAPE.sub(decoded, body)


def spell_plainly(text: str) -> str:
    """The same condition with every string in double quotes on one line, neither raw nor triple-quoted."""
    return " ".join(_requote(token.text) if token.kind == "string" else token.text for token in find_tokens(text))


def _requote(string: str) -> str:
    quotes = _QUOTES.match(string)
    assert quotes
    body = string[quotes.end() : -len(quotes[3])]
    if quotes[2]:
        body = body.replace("\\", "\\\\")
    escapes = {'"': '\\"', "\n": "\\n", "\r": "\\r"}
    return f'{quotes[1]}"{_TO_ESCAPE.sub(lambda found: escapes.get(found[0], found[0]), body)}"'
