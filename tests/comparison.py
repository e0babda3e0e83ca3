"""Both sides of a copy, row for row: what the mapping yields now against what the target holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString, cast

from psycopg import sql

from stackctl.mapping.checksums import Hasher
from stackctl.mapping.compile import compile_mapping, encode_column
from stackctl.mapping.sql_text import quote

if TYPE_CHECKING:
    from uuid import UUID

    from stackctl.mapping.checksums import Key
    from stackctl.mapping.model import Mapping
    from stackctl.postgres.connect import Connection
    from stackctl.sync.targets.protocol import Target


@dataclass(frozen=True)
class Comparison:
    """Rows on either side, and how many keys are only in the source, only in the target, or differ."""

    mapping: str
    source_rows: int
    target_rows: int
    missing: int
    extra: int
    different: int

    @property
    def equal(self) -> bool:
        return not (self.missing or self.extra or self.different)


def compare(conn: Connection, target: Target, mapping: Mapping, tenancy: UUID) -> Comparison:
    """Compare one mapping of one tenancy. Holds all rows in memory: for thousands of rows, not for millions.

    Meant for a quiet moment: a row in flight counts as a difference.
    """
    # One spelling of every value for all kinds of targets: numbers as numbers, everything else as text.
    statement = compile_mapping(mapping, "sqlite").load
    expected = _by_key(mapping, conn.execute(statement, {"tenancy_id": tenancy}).fetchall())
    found = _by_key(mapping, read_rows(target, mapping))
    return Comparison(
        mapping.name,
        len(expected),
        len(found),
        missing=len(expected.keys() - found.keys()),
        extra=len(found.keys() - expected.keys()),
        different=sum(expected[key] != found[key] for key in expected.keys() & found.keys()),
    )


def _by_key(mapping: Mapping, rows: list[tuple[Any, ...]]) -> dict[Key, str]:
    hasher = Hasher(mapping)
    return {hasher.key(row): hasher.spelled(row) for row in rows}


def read_rows(target: Target, mapping: Mapping) -> list[tuple[Any, ...]]:
    """The whole table, the mapping's columns only: numbers as numbers, everything else as text."""
    conn = cast("Any", target)._conn
    if target.dialect == "postgres":
        columns = [
            sql.SQL(cast("LiteralString", encode_column(f't."{column.name}"', column, "sqlite")))
            for column in mapping.columns
        ]
        query = sql.SQL("SELECT {} FROM {} AS t").format(sql.SQL(", ").join(columns), sql.Identifier(mapping.target))
        return conn.execute(query).fetchall()
    if target.dialect == "duckdb":
        from stackctl.sync.targets.duckdb import compose_select

        return conn.execute(compose_select(mapping)).fetchall()
    names = ", ".join(quote(column.name) for column in mapping.columns)
    return conn.execute(f"SELECT {names} FROM {quote(mapping.target)}").fetchall()
