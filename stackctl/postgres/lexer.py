"""PostgreSQL's lexical rules, as far as needed to tell comments from SQL and one statement from the next."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Kind = Literal["comment", "quoted", "word", "other"]

_LETTER = r"[A-Za-z_\x80-\U0010ffff]"
_INNER = r"A-Za-z0-9_\x80-\U0010ffff"
# An escape string goes on over a line break, with or without comments, into the next literal, and takes its backslash
# rules along.
_ESCAPED = r"'(?:[^'\\]|\\.|'')*'"
_GAP = r"[ \t\f\v]*(?:--[^\n\r]*)?[\r\n](?:[ \t\r\n\f\v]|--[^\n\r]*[\r\n])*"
# A name may not begin with a digit or a dollar, and swallows both afterwards: so `a$b$` opens no dollar-quoted body.
# Every character beyond ASCII counts as a letter, blanks included; space and digits are ASCII's.
_TOKEN = re.compile(
    rf"""
      (?P<space>[\ \t\r\n\f\v]+)
    | (?P<comment>--[^\n\r]*|/\*)
    | (?P<quoted>[eE]{_ESCAPED}(?:{_GAP}{_ESCAPED})*
        | (?:[bBnNxX]|[uU]&)?'(?:[^']|'')*'
        | (?:[uU]&)?"(?:[^"]|"")*"
        | \$(?P<tag>(?:{_LETTER}[{_INNER}]*)?)\$.*?\$(?P=tag)\$)
    | (?P<word>{_LETTER}[{_INNER}$]*)
    | (?P<other>\$?[0-9][{_INNER}.]*|::|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_UNCLOSED = re.compile(rf"""[eEbBnNxX]?'|(?:[uU]&)?['"]|\$(?:{_LETTER}[{_INNER}]*)?\$""")


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

    A semicolon in brackets (CREATE RULE) or between BEGIN ATOMIC and END of a function's body ends nothing. That END
    stands behind a semicolon, or behind ATOMIC where the body is empty; any other `end` is a CASE's, or a name.
    """
    statement: list[Token] = []
    brackets = blocks = 0
    for token in source:
        if token.text == ";" and brackets <= 0 and blocks == 0:
            if statement:
                yield statement
            statement, brackets, blocks = [], 0, 0
            continue
        before = statement[-1].text if statement else ""
        statement.append(token)
        if token.text == "(":
            brackets += 1
        elif token.text == ")":
            brackets -= 1
        elif token.kind == "word":
            word = token.text.upper()
            if word == "ATOMIC" and before.upper() == "BEGIN" and _defines_routine(statement):
                blocks += 1
            elif word == "END" and blocks and (before == ";" or before.upper() == "ATOMIC"):
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
    kind = first[3] if first[1:3] == ["OR", "REPLACE"] else first[1]
    return first[0] == "CREATE" and kind in ("FUNCTION", "PROCEDURE")


def _block_comment_end(text: str, start: int) -> int:
    depth = 0
    for edge in _BLOCK_EDGE.finditer(text, start):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    raise Unclosed("comment", start)
