"""The SQL statements inside a PL/pgSQL block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackctl.migrate.parser.token_reader import tokenize, unquote_string
from stackctl.postgres import lexer

if TYPE_CHECKING:
    from collections.abc import Iterator

# After these words a statement may begin. Behind others stand conditions, expressions and queries to loop over.
_BEFORE = frozenset(("BEGIN", "THEN", "ELSE", "LOOP"))
_STATEMENTS = frozenset(
    ("CREATE", "ALTER", "DROP", "UPDATE", "DELETE", "TRUNCATE", "REINDEX", "CLUSTER", "VACUUM", "LOCK", "REFRESH",
     "WITH", "MERGE", "INSERT", "COMMIT", "ROLLBACK", "CALL", "DO",
     "EXECUTE")
)  # fmt: skip


@dataclass(frozen=True)
class EmbeddedStatement:
    """A statement of a block, and its offset in the body.

    `dynamic`: the text is what puts the statement together when it runs. `exact`: places in the text are places in the
    body, too; otherwise it came out of a string.
    """

    text: str
    at: int
    dynamic: bool = False
    exact: bool = True


def find_statements(body: str) -> Iterator[EmbeddedStatement]:
    """What a block runs that rules ask about.

    Conditions are not weighed: every branch counts. `EXECUTE 'text'` is the statement that the text holds.
    """
    try:
        tokens = tokenize(body)
    except lexer.Unclosed as unclosed:
        yield EmbeddedStatement(body[unclosed.start :], unclosed.start, dynamic=True)
        return
    start: int | None = None
    looping = False  # over the rows of this statement, which ends at LOOP
    previous = ";"
    for n, token in enumerate(tokens):
        word = token.text.upper() if token.kind == "word" else token.text
        following = tokens[n + 1].text if n + 1 < len(tokens) else ""
        begins = (previous == ";" or previous in _BEFORE) and following not in (":", "=", ".")
        if start is None and (begins or previous == "IN") and word in _STATEMENTS:
            start, looping = n, previous == "IN"
        if start is not None and word == ("LOOP" if looping else ";"):
            yield from _unwrap_execute(body, tokens[start:n])
            start = None
        previous = word


def _unwrap_execute(body: str, tokens: list[lexer.Token]) -> Iterator[EmbeddedStatement]:
    first, last = tokens[0], tokens[-1]
    word, text = first.text.upper(), body[first.start : last.end]
    if word not in ("EXECUTE", "CALL"):
        yield EmbeddedStatement(text, first.start)
        return
    if word == "CALL" or len(tokens) != 2 or tokens[1].kind != "quoted" or tokens[1].text[0] not in "'$":
        yield EmbeddedStatement(text, first.start, dynamic=True)
        return
    content = unquote_string(tokens[1])
    try:
        inner = list(lexer.split_statements(tokenize(content)))
    except lexer.Unclosed:
        yield EmbeddedStatement(text, first.start, dynamic=True)
        return
    for statement in inner:
        yield EmbeddedStatement(content[statement[0].start : statement[-1].end], first.start, exact=False)
