"""Whether a repeated statement says, by its text, if it is to run again."""

from __future__ import annotations

from itertools import pairwise

from stackctl.postgres import lexer

_ANSWER = "should_repeat_migration"
_QUERIES = ("SELECT", "VALUES", "TABLE")
_CHANGES = ("INSERT", "UPDATE", "DELETE", "MERGE")


def find_unclear_answer(sql: str) -> tuple[int, str] | None:
    """Where in the statement, and what is wrong, if its row can't say so; None where it may, or returns no row."""
    tokens = [token for token in lexer.tokenize(sql) if token.kind != "comment"]
    start = _find_row(tokens)
    if start is None:
        return None
    row = tokens[start:]
    if not any(_names_answer(token) for token in tokens):
        # Of `SELECT * FROM batch()` the function's definition says what it returns.
        if any(one.text == "*" and before.text in (",", ".", row[0].text) for before, one in pairwise(row)):
            return None
        return row[0].start, f"its row has no column {_ANSWER}"
    for place in range(2, len(row)):
        before, literal, name = row[place - 2], row[place - 1], row[place]
        if literal.text.upper() == "AS" and place > 2:
            before, literal = row[place - 3], row[place - 2]
        if _names_answer(name) and before.text.upper() in ("SELECT", "RETURNING", ",") and _is_no_boolean(literal):
            return literal.start, f"{_ANSWER} is no boolean"
    return None


def _find_row(tokens: list[lexer.Token]) -> int | None:
    """Where what the statement returns begins: its own SELECT, outside of brackets, or its RETURNING."""
    depth = 0
    changes = False
    for place, token in enumerate(tokens):
        word = token.text.upper()
        depth += (word == "(") - (word == ")")
        if depth or token.kind != "word":
            continue
        if place == 0 and word not in (*_QUERIES, *_CHANGES, "WITH"):
            return None
        changes = changes or word in _CHANGES
        if word == "RETURNING" or (word in _QUERIES and not changes):
            return place
    return None


def _names_answer(token: lexer.Token) -> bool:
    return token.text == f'"{_ANSWER}"' or (token.kind == "word" and token.text.lower() == _ANSWER)


def _is_no_boolean(token: lexer.Token) -> bool:
    quoted = token.kind == "quoted" and not token.text.endswith('"')
    return quoted or token.text.upper() == "NULL" or token.text.isdigit()
