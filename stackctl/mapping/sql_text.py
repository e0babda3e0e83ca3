"""SQL text by token position: parameters found and replaced without rewriting anything else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from stackctl.postgres.lexer import tokenize

PARAMETER = "tenancy_id"


@dataclass(frozen=True)
class Parameter:
    """`:name` in a text: `text[start:end]`."""

    name: str
    start: int
    end: int


def find_parameters(sql: str) -> tuple[Parameter, ...]:
    """Every `:name`, leaving casts, strings, comments and array slices alone.

    Raises lexer.Unclosed where a string or comment does not end.
    """
    found: list[Parameter] = []
    subscripts: list[bool] = []  # of each open bracket, whether a colon in it may part the bounds of a slice
    listed = [token for token in tokenize(sql) if token.kind != "comment"]
    for n, token in enumerate(listed):
        before = listed[n - 1].text if n else ""
        if token.text == "[":
            inside_array = bool(subscripts) and not subscripts[-1]
            column = n > 1 and listed[n - 2].text == "."  # `t.array` is none of PostgreSQL's words
            constructor = before.upper() == "ARRAY" and not column
            subscripts.append(not constructor and not (inside_array and before in ("[", ",")))
        elif token.text == "(":
            subscripts.append(False)
        elif token.text in ("]", ")") and subscripts:
            subscripts.pop()
        elif token.text == ":" and n + 1 < len(listed):
            name = listed[n + 1]
            in_slice = bool(subscripts) and subscripts[-1] and before != ","
            if name.kind == "word" and name.start == token.end and not in_slice:
                found.append(Parameter(name.text, token.start, name.end))
    return tuple(found)


@lru_cache(maxsize=128)  # a mapping's SELECT is asked for by several statements; reading it is most of compiling
def to_driver_sql(sql: str, parameter: str) -> str:
    """The text with `:tenancy_id` replaced by `parameter` and every other percent sign doubled, as psycopg wants it."""
    parts: list[str] = []
    at = 0
    for found in find_parameters(sql):
        if found.name == PARAMETER:
            parts += [sql[at : found.start].replace("%", "%%"), parameter]
            at = found.end
    return "".join([*parts, sql[at:].replace("%", "%%")]).rstrip().removesuffix(";").rstrip()


@lru_cache(maxsize=128)
def drop_fences(sql: str) -> str:
    """The text without `OFFSET 0` at the end of sub-selects, which means nothing but keeps the planner from joining."""
    listed = [token for token in tokenize(sql) if token.kind != "comment"]
    parts: list[str] = []
    at = 0
    for word, number, closing in zip(listed, listed[1:], listed[2:], strict=False):
        if (word.kind, word.text.upper(), number.text, closing.text) == ("word", "OFFSET", "0", ")"):
            parts.append(sql[at : word.start])
            at = number.end
    return "".join([*parts, sql[at:]])


def add_output(select: str, column: str, name: str) -> str:
    """A mapping's SELECT that yields one more column of its first relation, which has an alias."""
    listed = [token for token in tokenize(select) if token.kind != "comment"]
    depth = 0
    for n, token in enumerate(listed):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        word = token.kind == "word" and token.text.upper() == "FROM"
        if word and not depth and listed[n - 1].text.upper() not in (".", "DISTINCT"):
            alias = listed[n + 2 + (listed[n + 2].text.upper() == "AS")].text
            return f"{select[: token.start]}, {alias}.{column} AS {name}\n{select[token.start :]}"
    raise ValueError("no FROM")


def quote(identifier: str) -> str:
    """A PostgreSQL (also SQLite and DuckDB) quoted identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """A standard string literal."""
    return "'" + text.replace("'", "''") + "'"
