"""What the runner needs to know about the text of one statement."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from psycopg import errors, sql

from stackctl.migrate import files
from stackctl.postgres import lexer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from stackctl.migrate.files import Statement

_ALREADY_THERE = (errors.DuplicateTable, errors.DuplicateObject, errors.DuplicateColumn, errors.DuplicateDatabase)
_ALREADY_GONE = (errors.UndefinedTable, errors.UndefinedObject, errors.UndefinedColumn, errors.InvalidCatalogName)
_ALREADY_DONE = {"CREATE": _ALREADY_THERE, "DROP": _ALREADY_GONE, "ALTER": _ALREADY_THERE + _ALREADY_GONE}


@dataclass(frozen=True)
class ConcurrentStatement:
    """A statement that runs CONCURRENTLY.

    `relation`, as it writes it: the table an index is created on, the table or index that is reindexed, the partition
    that is detached. `name`, bare: of the index that is created (None: the server chooses), of the schema or database
    that is reindexed.
    """

    kind: Literal["create", "drop", "reindex", "detach"]
    relation: str
    name: str | None = None


def insert_schema(text: str, schema: str) -> str:
    """The text with the quoted schema name in place of its sentinel."""
    return text.replace(files.SCHEMA_SENTINEL, sql.Identifier(schema).as_string())


def find_position(statement: Statement, schema: str, error: psycopg.Error | None) -> tuple[int, int]:
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


def find_already_done_errors(text: str) -> tuple[type[psycopg.Error], ...]:
    """What a statement says when an earlier, interrupted try of it did go through after all."""
    first = next(token for token in lexer.tokenize(text) if token.kind != "comment")
    return _ALREADY_DONE.get(first.text.upper(), ())


def parse_concurrent(text: str) -> ConcurrentStatement | None:
    """What a statement does CONCURRENTLY outside a transaction, if it is such a one."""
    found = [token for token in lexer.tokenize(text) if token.kind != "comment"]
    said = lexer.first_words(found, len(found))
    if "CONCURRENTLY" not in said:
        return None
    match said[:2]:
        case ["CREATE", "INDEX" | "UNIQUE"] if "ON" in said:
            on = said.index("ON")
            name = None if said[on - 1] == "CONCURRENTLY" else _unquote(found[on - 1].text)
            return ConcurrentStatement(
                "create", _join_name(found[on + 2 if said[on + 1] == "ONLY" else on + 1 :]), name
            )
        case ["DROP", "INDEX"]:
            return ConcurrentStatement("drop", "")
        case ["REINDEX", _]:
            kinds = [word for word in said if word in ("INDEX", "TABLE", "SCHEMA", "DATABASE")]
            at = said.index(kinds[0]) + 1 if kinds else len(said)
            named = found[at + 1 :] if said[at : at + 1] == ["CONCURRENTLY"] else found[at:]
            whole = kinds[:1] in (["SCHEMA"], ["DATABASE"])
            return ConcurrentStatement("reindex", _join_name(named), _unquote(_join_name(named)) if whole else None)
        case ["ALTER", "TABLE"] if "PARTITION" in said:
            return ConcurrentStatement("detach", _join_name(found[said.index("PARTITION") + 1 :]))
        case _:  # REFRESH MATERIALIZED VIEW: a transaction like any other
            return None


def _join_name(tokens: Sequence[lexer.Token]) -> str:
    """The name at the beginning, as it is written, with its schema."""
    name = ""
    for n, token in enumerate(tokens):
        if n % 2 and token.text != ".":
            break
        name += token.text
    return name


def _unquote(name: str) -> str:
    """A name without quotes, as the catalogs write it."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
