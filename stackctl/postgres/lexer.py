"""PostgreSQL's lexical rules, as far as needed to tell comments from SQL and one statement from the next."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Kind = Literal["comment", "quoted", "word", "other"]

# A name may not begin with a digit or a dollar, and swallows both afterwards: so `a$b$` opens no dollar-quoted body.
# An escape string goes on over a line break into the next literal, and its backslash rules go with it.
_TOKEN = re.compile(
    r"""
      (?P<space>[\ \t\r\n\f\v]+)
    | (?P<comment>--[^\n\r]*|/\*)
    | (?P<quoted>[eE]'(?:[^'\\]|\\.|'')*'(?:[ \t]*[\r\n]\s*'(?:[^'\\]|\\.|'')*')*
        | (?:[bBnNxX]|[uU]&)?'(?:[^']|'')*'
        | (?:[uU]&)?"(?:[^"]|"")*"
        | \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$)
    | (?P<word>[^\W\d][\w$]*)
    | (?P<other>\$?\d[\w.]*|::|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_UNCLOSED = re.compile(r"""[eEbBnNxX]?'|(?:[uU]&)?['"]|\$(?:[^\W\d]\w*)?\$""")


@dataclass(frozen=True)
class Token:
    """A token with its place; `start` and `end` count characters from the beginning of the text."""

    kind: Kind
    text: str
    start: int
    end: int


class Unclosed(ValueError):
    """A comment, string or body that begins at `start` and never ends."""

    def __init__(self, what: str, start: int) -> None:
        super().__init__(what)
        self.what = what
        self.start = start


def tokenize(text: str) -> Iterator[Token]:
    """The tokens of `text`, comments included and white space left out.

    Strings are read with standard_conforming_strings on. Raises Unclosed.
    """
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match is not None and match.lastgroup is not None  # the last alternative takes any character
        kind = "quoted" if match.lastgroup == "tag" else match.lastgroup
        end = match.end()
        if kind == "comment" and match.group() == "/*":
            end = _block_comment_end(text, at)
        elif kind in ("word", "other") and (unclosed := _UNCLOSED.match(text, at)):
            raise Unclosed("dollar-quoted body" if unclosed.group().startswith("$") else "quoted text", at)
        if kind != "space":
            yield Token(_kind(kind), text[at:end], at, end)
        at = end


def split_statements(source: Sequence[Token]) -> Iterator[list[Token]]:
    """Part tokens without comments at the semicolons that end a statement; the semicolons are dropped.

    A semicolon in brackets (CREATE RULE) or between BEGIN and END of a SQL-standard function body ends nothing.
    """
    statement: list[Token] = []
    brackets = blocks = 0
    for token in source:
        if token.text == ";" and brackets <= 0 and blocks == 0:
            if statement:
                yield statement
            statement, brackets, blocks = [], 0, 0
            continue
        statement.append(token)
        if token.text == "(":
            brackets += 1
        elif token.text == ")":
            brackets -= 1
        elif token.kind == "word" and _defines_routine(statement):
            word = token.text.upper()
            if word == "BEGIN" or (word == "CASE" and blocks):
                blocks += 1
            elif word == "END" and blocks:
                blocks -= 1
    if statement:
        yield statement


def hide_literals(text: str) -> str:
    """A statement of somebody else's on one line, to be shown: literals as `…`, and no comments.

    It may be cut off anywhere, as pg_stat_activity cuts it.
    """
    shown: list[str] = []
    end = 0
    try:
        for token in tokenize(text):
            if token.start > end or token.kind == "comment":
                shown.append(" ")
            end = token.end
            if token.kind == "quoted" and not token.text.endswith('"'):
                if token.text.endswith("\\'") and token.text[0] not in "eE":
                    raise Unclosed("quoted text", token.start)  # for a server whose strings know backslashes
                shown.append("'…'")
            elif token.kind != "comment":
                shown.append("…" if token.text[0].isdigit() else token.text)
    except Unclosed:
        shown.append(" …")
    return " ".join("".join(shown).split())


def first_words(statement: Sequence[Token], count: int) -> list[str]:
    """The first `count` tokens in upper case; quoted ones as they are."""
    return [token.text.upper() if token.kind == "word" else token.text for token in statement[:count]]


def _kind(group: str) -> Kind:
    match group:
        case "comment" | "quoted" | "word":
            return group
        case _:
            return "other"


def _defines_routine(statement: Sequence[Token]) -> bool:
    first = first_words(statement, 4)
    return first[0] == "CREATE" and ("FUNCTION" in first or "PROCEDURE" in first)


def _block_comment_end(text: str, start: int) -> int:
    depth = 0
    for edge in _BLOCK_EDGE.finditer(text, start):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    raise Unclosed("comment", start)
