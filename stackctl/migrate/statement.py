"""What the runner needs to know about the text of one statement."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from stackctl.migrate import files, lexer

if TYPE_CHECKING:
    import psycopg

    from stackctl.migrate.files import Statement


@dataclass(frozen=True)
class Index:
    """An index's bare name, and its table as the statement writes it."""

    name: str
    table: str


def with_schema(text: str, schema: str) -> str:
    """The text with the quoted schema name in place of its sentinel."""
    return text.replace(files.SCHEMA_SENTINEL, sql.Identifier(schema).as_string())


def position(statement: Statement, schema: str, error: psycopg.Error | None) -> tuple[int, int]:
    """Line and column in the file, both from 1: where the server points, else where the statement begins."""
    offset = int(error.diag.statement_position or 1) - 1 if error is not None else 0
    quoted = len(sql.Identifier(schema).as_string())
    before = ""
    for part in re.split(f"({re.escape(files.SCHEMA_SENTINEL)})", statement.sql):
        sent = quoted if part == files.SCHEMA_SENTINEL else len(part)
        if offset <= sent:
            before += part[:offset] if part != files.SCHEMA_SENTINEL else ""
            break
        before, offset = before + part, offset - sent
    if "\n" not in before:
        return statement.line, statement.column + len(before)
    return statement.line + before.count("\n"), len(before) - before.rfind("\n")


def index_built_concurrently(text: str) -> Index | None:
    """The index that a CREATE INDEX CONCURRENTLY builds, if the statement is one and names it."""
    found = [token for token in lexer.tokens(text) if token.kind != "comment"]
    said = lexer.words(found, len(found))
    if said[:1] != ["CREATE"] or "CONCURRENTLY" not in said[1:4] or "ON" not in said:
        return None
    on = said.index("ON")
    name = found[on - 1].text
    if said[on - 1] == "CONCURRENTLY":
        return None
    rest = found[on + 1 :] if said[on + 1] != "ONLY" else found[on + 2 :]
    table = ""
    for token in rest:
        if token.text == "(" or token.text.upper() == "USING":
            break
        table += token.text
    return Index(name[1:-1].replace('""', '"') if name.startswith('"') else name.lower(), table)
