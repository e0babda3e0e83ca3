"""The sequenced tables as the mappings use them: which of their rows count, and how they reach their tenancy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString, cast

from psycopg import sql

from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg.sql import Composable

    from stackctl.mapping.model import Mapping, TenancyJoin
    from stackctl.postgres.connect import Connection

TOMBSTONES = "DeletedRow"

_SQL = load_statements(__file__, "sequencer")


@dataclass(frozen=True)
class SequencedTable:
    """A sequenced table as the mappings use it: which of its rows count, and how they reach their tenancy.

    A change of a row is sent where `sent` holds; the other rows merely lose their mark.
    """

    table: str
    filter: str | None
    sent: str | None
    tenancy: TenancyJoin | None
    deleted_as: frozenset[str]


@dataclass(frozen=True)
class OwnedTable:
    """How a tenancy `t` reaches its rows of a table: `condition` of the rows it owns, `filter` of those that count.

    `each` joins what the table's index has between tenancy and sequence id.
    """

    sequenced: SequencedTable
    condition: Composable
    filter: Composable
    each: Composable


def list_sequenced_tables(mappings: Iterable[Mapping]) -> tuple[SequencedTable, ...]:
    """The sequenced tables of these mappings; several mappings of one table become one source."""
    by_table: dict[str, list[Mapping]] = {}
    for mapping in mappings:
        by_table.setdefault(mapping.source, []).append(mapping)
    found: list[SequencedTable] = []
    for table, users in by_table.items():
        found.append(
            SequencedTable(
                table,
                _any_of({m.filter for m in users}),
                _any_of({m.sent_filter for m in users}),
                users[0].tenancy,
                deleted_as=frozenset(m.deleted_as for m in users),
            )
        )
    return tuple(found)


def find_missing_tables(conn: Connection, mappings: Iterable[Mapping]) -> frozenset[str]:
    """Those tables of the mappings and of what they depend on that are gone, or lack what stamping needs."""
    tables = {name for one in mappings for name in (one.source, *(dependency.table for dependency in one.depends_on))}
    return frozenset(name for (name,) in conn.execute(_SQL["find_missing_tables"], {"tables": sorted(tables)}))


def _any_of(filters: set[str | None]) -> str | None:
    return None if None in filters else " OR ".join(f"({text})" for text in sorted(f for f in filters if f))


def list_owned_tables(mappings: Iterable[Mapping]) -> list[OwnedTable]:
    """The sequenced tables of these mappings and the tombstones, by tenancy."""
    sources = list_sequenced_tables(mappings)
    names = sorted({name for source in sources for name in source.deleted_as})
    tombstones = OwnedTable(
        SequencedTable(TOMBSTONES, None, None, None, frozenset()),
        sql.SQL('"tenancyId" = t.id AND "tableName" = kind.name'),
        sql.SQL("true"),
        sql.SQL("CROSS JOIN unnest({}::text[]) AS kind (name)").format(sql.Literal(names)),
    )
    return [
        *(
            OwnedTable(source, _ownership_condition(source), filter_condition(source.sent), sql.SQL(""))
            for source in sources
        ),
        tombstones,
    ]


def _ownership_condition(source: SequencedTable) -> Composable:
    """Whether a row of the table belongs to the tenancy `t`."""
    if source.tenancy is None:
        return sql.SQL('"tenancyId" = t.id')
    return sql.SQL(" AND ").join(
        sql.SQL("{} = t.{}").format(sql.Identifier(of_source), sql.Identifier(column))
        for column, of_source in source.tenancy.on.items()
    )


def filter_condition(text: str | None) -> Composable:
    return sql.SQL("({})").format(to_sql(text)) if text else sql.SQL("true")


def to_sql(text: str) -> Composable:
    """SQL that a mapping's author wrote and the checker has read; % is literal in it."""
    return sql.SQL(cast("LiteralString", text.replace("%", "%%")))
