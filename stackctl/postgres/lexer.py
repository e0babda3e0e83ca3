"""PostgreSQL's lexical rules, as far as needed to tell comments from SQL and one statement from the next."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Kind = Literal["comment", "quoted", "word", "other", "query", "psql"]

# A name may not begin with a digit or a dollar, and swallows both afterwards: so `a$b$` opens no dollar-quoted body.
# Every character beyond ASCII counts as a letter, blanks included; space and digits are ASCII's. The classes say what
# is left out: of a range that reaches to \U0010ffff, Python would need 2 ms to compile each.
_LETTER = r"[^\x00-@\[-^`{-\x7f]"
_INNER = r"[^\x00-/:-@\[-^`{-\x7f]"
_INNER_OR_DOLLAR = r"[^\x00-#%-/:-@\[-^`{-\x7f]"
_INNER_OR_DOT = r"[^\x00-\-/:-@\[-^`{-\x7f]"
# An escape string goes on over a line break, with or without comments, into the next literal, and takes its backslash
# rules along.
_ESCAPED = r"'[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*'"
_GAP = r"[ \t\f\v]*(?:--[^\n\r]*)?[\r\n](?:[ \t\r\n\f\v]|--[^\n\r]*[\r\n])*"
_SPACE = r"[ \t\r\n\f\v]*"
_QUOTED = (
    rf"[eE]{_ESCAPED}(?:{_GAP}{_ESCAPED})*|(?:[bBnNxX]|[uU]&)?'[^']*+(?:''[^']*+)*'"
    r"|(?:[uU]&)?\"[^\"]*+(?:\"\"[^\"]*+)*\""
)
_DOLLAR_QUOTED = rf"\$(?P<tag>(?:{_LETTER}{_INNER}*)?)\$.*?\$(?P=tag)\$"
_WORD = rf"{_LETTER}{_INNER_OR_DOLLAR}*"
_END_OF_WORD = _INNER_OR_DOLLAR.replace("^", "", 1)
_OTHER = rf"\$?[0-9]{_INNER_OR_DOT}*|::|[^ \t\r\n\f\v]"
_TOKEN = re.compile(
    rf"{_SPACE}(?:(?P<comment>--[^\n\r]*|/\*)|(?P<quoted>{_QUOTED}|{_DOLLAR_QUOTED})|(?P<word>{_WORD})"
    rf"|(?P<other>{_OTHER}))",
    re.DOTALL,
)
_ANY_TOKEN = re.compile(rf"{_SPACE}({_QUOTED}|{_DOLLAR_QUOTED}|{_WORD}|{_OTHER})", re.DOTALL)
_TOKEN_WITHOUT_DOLLAR = re.compile(rf"{_SPACE}({_QUOTED}|{_WORD}|{_OTHER})", re.DOTALL)
# A query up to its semicolon, in which nothing needs a closer look: no comment, no dollar, and of the backslash only
# what a string without E has. The bound keeps the memory in bounds.
_BARE = r"[^'\";$\\/\-]*+"
_ESCAPES = rf"{_END_OF_WORD}[eE]"
_PLAIN_QUERY = re.compile(
    rf"{_SPACE}(?P<query>(?i:INSERT|UPDATE|DELETE|MERGE|SELECT|VALUES|WITH)(?={_END_OF_WORD}){_BARE}"
    rf"(?:(?:(?<!{_ESCAPES})'[^']*+'|(?<={_ESCAPES})'[^'\\]*+'(?!\s*')|\"[^\"]*+\"|-(?!-)|/(?!\*)){_BARE}){{0,50000}});"
)
_IN_QUOTES = re.compile(r"'[^']*'|\"[^\"]*\"")
_QUOTES = ("'", '"', "$")
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_UNCLOSED = re.compile(rf"""[eEbBnNxX]?'|(?:[uU]&)?['"]|\$(?:{_LETTER}{_INNER}*)?\$""")


class Token(NamedTuple):
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


class LineIndex:
    """Lines and columns, both from 1, of places in a text; made once, since texts may be long."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def find_place(self, at: int) -> tuple[int, int]:
        line = bisect_right(self._starts, at)
        return line, at - self._starts[line - 1] + 1

    def find_offset(self, line: int, column: int) -> int:
        return self._starts[line - 1] + column - 1


def tokenize(text: str, *, script: bool = False) -> Iterator[Token]:
    """The tokens of `text`, comments included and white space left out.

    Of a `script`, a plain query between semicolons (INSERT, SELECT, …) is one token, as there may be millions; so is
    what a backslash makes psql's, up to the end of its line. Strings are read with standard_conforming_strings on.
    Raises Unclosed.
    """
    end, length, match_token, make = 0, len(text), _TOKEN.match, tuple.__new__  # faster than Token's own
    begins = script
    while True:
        if begins and (query := _read_plain_query(text, end)):
            yield query
            end, begins = query.end, False
        if not (match := match_token(text, end)):
            return
        kind: Any = match.lastgroup
        found, end = match[kind], match.end()
        start = end - len(found)
        if kind == "comment" and found == "/*":
            end = _block_comment_end(text, start)
            found = text[start:end]
        elif kind == "quoted":
            # What is closed is not followed by its own mark: that would be a doubled one of a longer text.
            if text[end : end + 1] == found[-1] != "$":
                raise Unclosed("quoted text", start)
        # Of a quotation that is closed, neither its mark nor the letter before it is a token.
        elif (found in _QUOTES or (end < length and text[end] in "'\"&")) and (
            unclosed := _UNCLOSED.match(text, start)
        ):
            raise Unclosed("dollar-quoted body" if unclosed.group().startswith("$") else "quoted text", start)
        elif script and found == "\\":
            kind, end = "psql", text.find("\n", start)
            end = length if end < 0 else end
            found = text[start:end]
        begins = script and (found == ";" or (begins and kind == "comment"))
        yield make(Token, (kind, found, start, end))


def _read_plain_query(text: str, start: int) -> Token | None:
    match = _PLAIN_QUERY.match(text, start)
    if match is None:
        return None
    found, start = match["query"].rstrip(" \t\r\n\f\v"), match.start("query")
    # The last action of a rule is followed by the bracket that closes the rule.
    bare = _IN_QUOTES.sub("", found)
    return Token("query", found, start, start + len(found)) if bare.count("(") == bare.count(")") else None


def list_token_texts(text: str) -> list[str]:
    """The texts of all tokens of a text without comments, whose quotations are known to be closed; faster."""
    if "$" not in text:
        return _TOKEN_WITHOUT_DOLLAR.findall(text)
    return [found[0] for found in _ANY_TOKEN.findall(text)]


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
