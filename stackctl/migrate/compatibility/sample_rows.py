"""Rows made up for a schema's tables, so that what depends on rows shows: time, and statements that rows refuse.

A value follows from its column's type and the row's number alone. So row 7 of a table refers to row 7 of another by
whatever key, and tables can be filled in any order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
from psycopg import sql

from stackctl.migrate.schema.catalog import read_catalog

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stackctl.migrate.schema.catalog import Catalog, Column, Constraint, Relation

Connection: TypeAlias = "psycopg.Connection[Any]"

# By the type's name without its modifier; {n} is the row's number from 1, {p} the modifier's first number.
_VALUES: dict[str, str] = {
    "smallint": "({n} %% 32000)::smallint", "integer": "{n}::integer", "bigint": "{n}::bigint", "numeric": "{n}",
    "real": "{n}::real", "double precision": "{n}::float8", "money": "{n}::money", "oid": "{n}::oid",
    "boolean": "({n} %% 2 = 0)", "text": "'x' || {n}", "character varying": "'x' || {n}", "character": "'x' || {n}",
    "citext": "'x' || {n}", "name": "('x' || {n})::name", '"char"': "'x'::\"char\"",
    "uuid": "('00000000-0000-4000-8000-' || lpad(to_hex({n}), 12, '0'))::uuid",
    "date": "DATE '2026-01-01' + ({n} %% 1000)::integer",
    "timestamp without time zone": "TIMESTAMP '2026-01-01' + {n} * INTERVAL '1 second'",
    "timestamp with time zone": "TIMESTAMPTZ '2026-01-01 00:00:00Z' + {n} * INTERVAL '1 second'",
    "time without time zone": "TIME '00:00' + {n} * INTERVAL '1 second'",
    "time with time zone": "TIMETZ '00:00Z' + {n} * INTERVAL '1 second'",
    "interval": "{n} * INTERVAL '1 second'", "json": "'{{}}'::json", "jsonb": "'{{}}'::jsonb",
    "bytea": "decode(lpad(to_hex({n}), 16, '0'), 'hex')", "inet": "INET '10.0.0.0' + {n}",
    "cidr": "set_masklen(INET '10.0.0.0' + {n}, 32)::cidr", "tsvector": "''::tsvector", "xml": "'<x/>'::xml",
    "point": "point({n}, {n})", "bit": "{n}::bit(32)",
}  # fmt: skip
_LITERAL = re.compile(r"'((?:[^']|'')*)'::")
_NULLS = (10, 1, 0)  # tried in turn: every how manieth row has null where it may; 0: none has


@dataclass(frozen=True)
class SkippedTable:
    """A table left without rows (or with fewer than asked, where `rows` is not 0), and why."""

    table: str
    rows: int
    why: str


@dataclass(frozen=True)
class _Keys:
    """Columns by table: those in any key or foreign key, and of them those that others refer to."""

    used: Mapping[str, frozenset[str]]
    referenced: Mapping[str, frozenset[str]]


def insert_sample_rows(conn: Connection, schema: str, rows: int) -> tuple[SkippedTable, ...]:
    """Put `rows` rows into every table of the schema, on a connection in autocommit mode.

    Triggers don't fire: its role may set session_replication_role. What has no row, because a check constraint or a
    type can't be satisfied by guessing, is returned; rows that would refer to one that is missing are taken out again.
    """
    catalog = read_catalog(conn, schema)
    keys = _find_keys(catalog)
    skipped: list[SkippedTable] = []
    with conn.transaction():
        conn.execute("SELECT set_config('search_path', quote_ident(%s), true)", (schema,))
        conn.execute("SET LOCAL session_replication_role = replica")
        for table in catalog.relations.values():
            # Partitions get theirs through the table that they are a part of.
            if table.is_table and table.partition_bound is None:
                problem = _fill_table(conn, catalog, table, keys, rows)
                if problem:
                    skipped.append(SkippedTable(table.name, 0, problem))
        _remove_orphans(conn, catalog)
        for sequence in catalog.sequences.values():
            if sequence.owner_table is not None and sequence.increment > 0:
                last = min(max(rows, sequence.minimum), sequence.maximum)
                conn.execute(
                    sql.SQL("SELECT setval({}, {})").format(
                        sql.Identifier(sequence.name).as_string(), sql.Literal(last)
                    )
                )
    conn.execute("ANALYZE")
    empty = {skip.table for skip in skipped}
    for table in catalog.relations.values():
        if table.is_table and table.partition_bound is None and table.name not in empty:
            count = _count_rows(conn, schema, table.name)
            if count == 0:
                skipped.append(SkippedTable(table.name, 0, "it refers to tables that have no rows"))
    return tuple(skipped)


def _find_keys(catalog: Catalog) -> _Keys:
    used: dict[str, set[str]] = {}
    referenced: dict[str, set[str]] = {}
    for constraint in catalog.constraints:
        if constraint.kind in "pufx":
            used.setdefault(constraint.table, set()).update(constraint.columns)
        if constraint.kind == "f" and constraint.referenced is not None:
            name = constraint.referenced.strip('"')
            for found in (used, referenced):
                found.setdefault(name, set()).update(constraint.referenced_columns)
    for index in catalog.indexes:
        if index.unique:
            used.setdefault(index.table, set()).update(index.columns)
    return _Keys(
        {table: frozenset(columns) for table, columns in used.items()},
        {table: frozenset(columns) for table, columns in referenced.items()},
    )


def _fill_table(conn: Connection, catalog: Catalog, table: Relation, keys: _Keys, rows: int) -> str | None:
    """Insert; returns why it could not."""
    problem = None
    checks = [c for c in catalog.constraints if c.kind == "c" and c.table == table.name]
    for every in _NULLS:
        values: dict[str, str] = {}
        for column in table.columns.values():
            if column.generated:
                continue
            in_key = column.name in keys.used.get(table.name, ())
            if column.expression is not None and not in_key:
                continue
            value = _make_value(column, catalog, checks)
            may_be_null = not column.not_null and column.name not in keys.referenced.get(table.name, ())
            if value is None and column.not_null:
                return f"no value is known for {column.name} ({column.type})"
            if value is None or (may_be_null and every == 1):
                value = "NULL"
            elif may_be_null and every:
                value = f"CASE WHEN n %% {every} <> 0 THEN {value} END"
            values[column.name] = value
        problem = _insert(conn, table.name, values, rows)
        if problem is None:
            return None
    return problem


def _insert(conn: Connection, table: str, values: Mapping[str, str], rows: int) -> str | None:
    names = sql.SQL(", ").join(map(sql.Identifier, values))
    # The values are built from this module's own texts and from names that the server quoted.
    expressions = sql.SQL(", ").join(sql.SQL(text) for text in values.values())  # pyright: ignore[reportArgumentType]
    statement = (
        sql.SQL(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM generate_series(1, %s) AS n"
            " ON CONFLICT DO NOTHING"
        ).format(sql.Identifier(table), names, expressions)
        if values
        else sql.SQL("INSERT INTO {} DEFAULT VALUES").format(sql.Identifier(table))
    )
    try:
        with conn.transaction():
            conn.execute(statement, (rows,) if values else None)
    except psycopg.Error as error:
        return error.diag.message_primary or str(error)
    return None


def _make_value(column: Column, catalog: Catalog, checks: Sequence[Constraint]) -> str | None:
    """An SQL expression over `n`; None when the type is not known here."""
    base, modifier = _split_modifier(column.type)
    if base.endswith("[]"):
        return f"'{{}}'::{base}"
    own = catalog.types.get(base.strip('"'))
    if own is not None and own.kind == "e" and own.labels:
        labels = ", ".join(sql.Literal(label).as_string() for label in own.labels).replace("%", "%%")
        return f"(ARRAY[{labels}])[1 + n %% {len(own.labels)}]::{base}"
    if own is not None and own.kind == "d" and own.definition is not None:
        base, modifier = _split_modifier(re.split(r" (?:DEFAULT|NOT NULL|CONSTRAINT) ?", own.definition)[0])
    if base.endswith("range"):
        return f"'empty'::{column.type}"
    if base not in _VALUES:
        return None
    allowed = [match for c in checks if c.columns == (column.name,) for match in _LITERAL.findall(c.definition)]
    if allowed and base in ("text", "character varying", "character"):
        options = ", ".join(f"'{option}'" for option in allowed).replace("%", "%%")
        return f"(ARRAY[{options}])[1 + n %% {len(allowed)}]"
    value = _VALUES[base].format(n="n")
    if base in ("character varying", "character") and modifier:
        return f"right({value}, {int(modifier[0])})"
    if base == "numeric" and modifier:
        whole = modifier[0] - (modifier[1] if len(modifier) > 1 else 0)
        return f"n %% {10 ** min(max(whole, 0), 15)}"
    return f"({value})::{column.type}" if own is not None or base == "bit" else value


def _split_modifier(type_: str) -> tuple[str, list[int]]:
    """`numeric(10,2)` as `numeric` and its modifier."""
    match = re.search(r"\(([\d,]+)\)", type_)
    if match is None:
        return type_, []
    return type_.replace(match[0], ""), [int(number) for number in match[1].split(",")]


def _remove_orphans(conn: Connection, catalog: Catalog) -> None:
    """Delete rows that refer to one that is missing, until there is none."""
    foreign = [c for c in catalog.constraints if c.kind == "f" and not c.inherited and c.referenced is not None]
    removed = True
    while removed:
        removed = False
        for key in foreign:
            pairs = list(zip(key.columns, key.referenced_columns, strict=True))
            statement = sql.SQL(
                "DELETE FROM {} AS child WHERE {} AND NOT EXISTS (SELECT FROM {} AS parent WHERE {})"
            ).format(
                sql.Identifier(key.table),
                sql.SQL(" AND ").join(sql.SQL("child.{} IS NOT NULL").format(sql.Identifier(own)) for own, _ in pairs),
                sql.SQL(key.referenced),  # pyright: ignore[reportArgumentType] - quoted by the server
                sql.SQL(" AND ").join(
                    sql.SQL("parent.{} = child.{}").format(sql.Identifier(theirs), sql.Identifier(own))
                    for own, theirs in pairs
                ),
            )
            removed = conn.execute(statement).rowcount > 0 or removed


def _count_rows(conn: Connection, schema: str, table: str) -> int:
    row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, table))).fetchone()
    assert row is not None
    return row[0]
