"""A mapping against the database that it reads: tables, columns, and what the server says of its SQL."""

# ruff: noqa: S608 - this module writes SQL: names are quoted, values are parameters.
from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg

from stackctl.mapping.document import suggest_nearest
from stackctl.mapping.sql_text import find_parameters, quote
from stackctl.mapping.target_statements import POSTGRES_TYPES
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from psycopg import Connection

    from stackctl.mapping.document import Document
    from stackctl.mapping.model import ColumnType, Mapping

_SQL = load_statements(__file__)
_NOT_PLAIN = "a sequenced table must hold its rows itself, because they are stamped by their place in it"
_WHOLE = {"int2", "int4"}
_ACCEPTED: dict[ColumnType, set[str]] = {
    "uuid": {"uuid"},
    "text": {"text", "varchar", "bpchar", "name", "citext", "unknown"},
    "boolean": {"bool"},
    "integer": _WHOLE,
    "bigint": {*_WHOLE, "int8"},
    "double": {"float4", "float8"},
    "numeric": {"numeric", *_WHOLE, "int8"},
    "date": {"date"},
    "timestamp": {"timestamp"},
    "timestamptz": {"timestamptz"},
    "json": {"json", "jsonb"},
}


def check_against_database(document: Document, conn: Connection[Any]) -> None:
    """Add to the document's findings what does not fit the database. Changes nothing there."""
    mapping = document.mapping
    if mapping is None:
        return
    with conn.transaction(force_rollback=True):
        conn.execute("SET TRANSACTION READ ONLY")
        if _check_tables(document, mapping, conn):
            _check_select(document, mapping, conn)
            _check_expressions(document, mapping, conn)
            _check_references(document, mapping, conn)


def _check_tables(document: Document, mapping: Mapping, conn: Connection[Any]) -> bool:
    """Whether the source, its dependencies and their columns are all there."""
    tables = dict(conn.execute(_SQL["tables"]).fetchall())
    before = len(document.findings)

    def table(name: str, rule: str, at: tuple[int, int]) -> set[str]:
        if name not in tables:
            document.add(rule, f"there is no table {name} in the database", at, suggest_nearest(name, tables))
            return set()
        return {column for (column,) in conn.execute(_SQL["columns"], {"table": name}).fetchall()}

    def column(name: str, of: str, columns: set[str], at: tuple[int, int]) -> None:
        if columns and name not in columns:
            document.add("unknown-column", f"{of} has no column {name}", at, suggest_nearest(name, columns))

    def sequenced(name: str, columns: set[str], at: tuple[int, int]) -> None:
        if columns and not {"sequenceId", "shouldUpdateSequenceId"} <= columns:
            document.add("not-sequenced", f"{name} is not a sequenced table: its changes are not marked", at)
        elif columns and tables[name]:
            document.add("partitioned", f"{name} has partitions, or other tables inherit from it: {_NOT_PLAIN}", at)

    at = document.at("source")
    source = table(mapping.source, "unknown-source", at)
    sequenced(mapping.source, source, at)
    for what, pairs in (("key", mapping.key), ("lookup", mapping.lookup)):
        for name, origin in pairs.items():
            column(origin, mapping.source, source, document.at(what, name))
    if mapping.tenancy is None:
        column("tenancyId", mapping.source, source, at)
    else:
        place = ("tenancy", mapping.tenancy.table)
        tenancy = table(mapping.tenancy.table, "unknown-dependency", document.at(*place, key=True))
        for theirs, ours in mapping.tenancy.on.items():
            column(theirs, mapping.tenancy.table, tenancy, document.at(*place, theirs, key=True))
            column(ours, mapping.source, source, document.at(*place, theirs))
    for dependency in mapping.depends_on:
        at = document.at("depends_on", dependency.table, key=True)
        columns = table(dependency.table, "unknown-dependency", at)
        sequenced(dependency.table, columns, at)
        column("tenancyId", dependency.table, columns, at)
        for name in dependency.on:
            column(name, dependency.table, columns, document.at("depends_on", dependency.table, name, key=True))
    return len(document.findings) == before


def _described(
    document: Document, conn: Connection[Any], before: str, text: str, after: str, *path: str
) -> psycopg.Cursor[Any] | None:
    """Have the server plan `before text after`; its complaint, placed in the file, becomes a finding."""
    try:
        with conn.transaction(force_rollback=True):
            # Without parameters: the text goes out as it is, and the server's position fits the file.
            return conn.execute(cast("LiteralString", before + text + after))
    except psycopg.OperationalError:
        raise  # a server that restarts, a deadlock, a timeout: not the text's fault
    except psycopg.Error as error:
        position = int(error.diag.statement_position or 0) - 1 - len(before)
        at = document.inside(position, *path) if 0 <= position < len(text) else document.at(*path)
        message = error.diag.message_primary or "refused"
        rule = "unknown-table" if isinstance(error, psycopg.errors.UndefinedTable) else "server"
        document.add(rule, f"the server refuses this SQL: {message}", at, error.diag.message_hint)
        return None


def _check_select(document: Document, mapping: Mapping, conn: Connection[Any]) -> None:
    text = mapping.select
    for found in find_parameters(text):
        # As long as `:tenancy_id`, so that every position stays.
        text = text[: found.start] + "NULL::uuid".rjust(found.end - found.start) + text[found.end :]
    text = text.rstrip().removesuffix(";")
    cursor = _described(document, conn, "SELECT * FROM (\n", text, "\n) AS m LIMIT 0", "select")
    if cursor is None or cursor.description is None:
        return
    oids = {described.name: described.type_code for described in cursor.description}
    types = {
        oid: (name, kind) for oid, name, kind in conn.execute(_SQL["types"], {"oids": list(oids.values())}).fetchall()
    }
    for wanted in mapping.columns:
        name, kind = types[oids[wanted.name]]
        if name not in _ACCEPTED[wanted.type] and not (wanted.type == "text" and kind == "e"):
            document.add(
                "column-type",
                f"the select yields {wanted.name} as {name}, columns says {wanted.type}",
                document.at("columns", wanted.name),
                f"cast it in the select: (…)::{POSTGRES_TYPES[wanted.type]}",
            )


def _check_expressions(document: Document, mapping: Mapping, conn: Connection[Any]) -> None:
    source = quote(mapping.source)
    if mapping.filter is not None:
        _described(document, conn, f"SELECT 1 FROM {source} WHERE (", mapping.filter, "\n) LIMIT 0", "filter")
    for dependency in mapping.depends_on:
        for column, expression in dependency.on.items():
            after = (
                f"\n) AS e FROM {source}) AS s JOIN {quote(dependency.table)} AS d ON d.{quote(column)} = s.e LIMIT 0"
            )
            path = ("depends_on", dependency.table, column)
            _described(document, conn, "SELECT 1 FROM (SELECT (", expression, after, *path)


def _check_references(document: Document, mapping: Mapping, conn: Connection[Any]) -> None:
    """When a row of a dependency comes to belong to another row, the one that it belonged to must be sent, too."""
    for dependency in mapping.depends_on:
        parameters = {"table": dependency.table, "columns": list(dependency.on)}
        for column, recorded, trigger in conn.execute(_SQL["references"], parameters).fetchall():
            if not recorded:
                document.add(
                    "unrecorded-reference",
                    f"when {column} of a row of {dependency.table} changes, nothing records what it was, and the row of"
                    f" {mapping.source} that it belonged to stays as it is",
                    document.at("depends_on", dependency.table, column, key=True),
                    trigger or 'the application must write the row as it was to "DeletedRow" whenever it changes that',
                    "error" if trigger else "warning",
                )
