"""The rows of a schema as SQL, and where its sequences stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from psycopg import sql

from stackctl.migrate.schema.writer import quote_literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from stackctl.migrate.schema.catalog import Catalog, Relation
    from stackctl.migrate.schema.writer import SchemaWriter

Connection: TypeAlias = "psycopg.Connection[Any]"

_BATCH = 500  # rows in an INSERT


def count_rows(conn: Connection, schema: str, catalog: Catalog) -> dict[str, int]:
    """How many each table holds by itself, of those that hold any."""
    query = sql.SQL("SELECT count(*) FROM ONLY {}")
    found: dict[str, int] = {}
    for relation in catalog.relations.values():
        if relation.kind == "r":
            row = conn.execute(query.format(sql.Identifier(schema, relation.name))).fetchone()
            if row and row[0]:
                found[relation.name] = row[0]
    return found


def write_rows(conn: Connection, schema: str, catalog: Catalog, writer: SchemaWriter) -> Iterator[str]:
    """Statements that put the rows in and set the sequences, for tables that are there and empty."""
    filled = count_rows(conn, schema, catalog)
    for name in filled:
        yield from _write_table_rows(conn, schema, catalog.relations[name], writer)
    if filled:
        for relation in catalog.relations.values():
            if relation.kind == "m":
                yield f"REFRESH MATERIALIZED VIEW {writer.quote_name(relation.name)}"
    for sequence in catalog.sequences.values():
        query = sql.SQL("SELECT last_value, is_called FROM {} WHERE is_called OR last_value <> %s").format(
            sql.Identifier(schema, sequence.name)
        )
        if row := conn.execute(query, (sequence.start,)).fetchone():
            place = f"{row[0]}" if row[1] else f"{row[0]}, false"
            yield f"SELECT setval({quote_literal(writer.quote_name(sequence.name))}, {place})"


def _write_table_rows(conn: Connection, schema: str, table: Relation, writer: SchemaWriter) -> Iterator[str]:
    columns = [column.name for column in table.columns.values() if not column.generated]
    if not columns:
        raise ValueError(f"{table.name} has rows and no columns")
    texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in columns)
    source = sql.Identifier(schema, table.name)
    rows = conn.execute(sql.SQL("SELECT {} FROM ONLY {} ORDER BY ctid").format(texts, source)).fetchall()
    names = ", ".join(map(writer.quote_name, columns))
    over = " OVERRIDING SYSTEM VALUE" if any(column.identity for column in table.columns.values()) else ""
    for start in range(0, len(rows), _BATCH):
        values = ",\n".join(
            "  (" + ", ".join("NULL" if value is None else quote_literal(value) for value in row) + ")"
            for row in rows[start : start + _BATCH]
        )
        yield f"INSERT INTO {writer.quote_name(table.name)} ({names}){over} VALUES\n{values}"
