"""SQL text by token position: parameters found and replaced without rewriting anything else."""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot.dialects.postgres import Postgres
from sqlglot.tokens import Token, TokenType  # pyright: ignore[reportPrivateImportUsage]

PARAMETER = "tenancy_id"


@dataclass(frozen=True)
class Parameter:
    """`:name` in a text: `text[start:end]`."""

    name: str
    start: int
    end: int


def tokens(sql: str) -> list[Token]:
    """The tokens of PostgreSQL text. Raises sqlglot's TokenError where a string or comment does not end."""
    return Postgres().tokenize(sql)


def parameters(sql: str) -> tuple[Parameter, ...]:
    """Every `:name`, leaving casts, strings, comments and array slices alone."""
    found: list[Parameter] = []
    brackets: list[TokenType] = []
    listed = tokens(sql)
    for n, token in enumerate(listed):
        if token.token_type in (TokenType.L_BRACKET, TokenType.L_PAREN):
            brackets.append(token.token_type)
        elif token.token_type in (TokenType.R_BRACKET, TokenType.R_PAREN) and brackets:
            brackets.pop()
        elif token.token_type == TokenType.COLON and n + 1 < len(listed):
            name = listed[n + 1]
            written = sql[name.start : name.end + 1]
            adjacent = name.start == token.end + 1 and (written[0].isalpha() or written[0] == "_")
            in_slice = bool(brackets) and brackets[-1] == TokenType.L_BRACKET
            if adjacent and not (in_slice and listed[n - 1].token_type != TokenType.COMMA):
                found.append(Parameter(written, token.start, name.end + 1))
    return tuple(found)


def for_driver(sql: str, parameter: str) -> str:
    """The text with `:tenancy_id` replaced by `parameter` and every other percent sign doubled, as psycopg wants it."""
    parts: list[str] = []
    at = 0
    for found in parameters(sql):
        if found.name == PARAMETER:
            parts += [sql[at : found.start].replace("%", "%%"), parameter]
            at = found.end
    return "".join([*parts, sql[at:].replace("%", "%%")]).rstrip().removesuffix(";").rstrip()


def quote(identifier: str) -> str:
    """A PostgreSQL (also SQLite and DuckDB) quoted identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """A standard string literal."""
    return "'" + text.replace("'", "''") + "'"
