"""Rows whose mappings depend on changed rows are marked by the statement that stamps these.

Parts of a stamping statement (see stamping.py): the changed row is the child, the rows that it marks are its parents.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from stackctl.postgres.statements import load_statements
from stackctl.sync.changes.sequenced_tables import SequencedTable, filter_condition, to_sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from psycopg.sql import Composable, Composed

    from stackctl.mapping.model import Dependency, TenancyJoin
    from stackctl.postgres.connect import Connection

_SQL = load_statements(__file__, "sequencer")
_PLAIN_COLUMN = re.compile(r'"[^"]+"')
_UUID_TEXT = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"


@dataclass(frozen=True)
class ParentTable:
    """A table whose rows are marked when a row of the child changes."""

    source: SequencedTable
    dependency: Dependency


def mark_parents(
    table: sql.Identifier, rows: Composable, parents: list[ParentTable], joined: Sequence[Composable]
) -> list[Composable]:
    """The steps that pick rows and mark their parents.

    A parent that the application holds locked is not waited for (the sequencer would stall) and not skipped (the
    mark would be lost): its children stay marked and come again in a later round. A parent that is marked already
    needs no lock: only a sequencer takes marks away, and this one holds the sequencers' lock.

    Parents are locked before their children: a lock is written to the disk, and as long as the parents of many rows
    can't be had, nothing is written, and the application waits for no lock of ours.
    """
    steps: list[Composable] = [sql.SQL("waiting AS MATERIALIZED ({})").format(rows)]
    ready: list[Composable] = []
    for number, (parent, condition) in enumerate(zip(parents, joined, strict=True)):
        to_mark, locked = (sql.Identifier(f"{name}_{number}") for name in ("to_mark", "locked"))
        steps += [
            sql.SQL("{} AS MATERIALIZED ({})").format(to_mark, _select_parents_to_mark(parent, condition)),
            sql.SQL(
                "{} AS MATERIALIZED (SELECT ctid AS place FROM ONLY {} "
                "WHERE ctid = ANY (ARRAY(SELECT parent FROM {})) FOR NO KEY UPDATE SKIP LOCKED)"
            ).format(locked, sql.Identifier(parent.source.table), to_mark),
        ]
        ready.append(
            sql.SQL("k._stack_place NOT IN (SELECT child FROM {} WHERE parent NOT IN (SELECT place FROM {}))").format(
                to_mark, locked
            )
        )
    steps += [
        sql.SQL("ready AS MATERIALIZED (SELECT k._stack_place AS place FROM waiting AS k WHERE {})").format(
            sql.SQL(" AND ").join(ready)
        ),
        sql.SQL(
            "picked AS MATERIALIZED (SELECT ctid AS place FROM ONLY {} "
            "WHERE ctid = ANY (ARRAY(SELECT place FROM ready)) FOR UPDATE SKIP LOCKED)"
        ).format(table),
    ]
    for number, parent in enumerate(parents):
        to_mark, marked = (sql.Identifier(f"{name}_{number}") for name in ("to_mark", "marked"))
        steps.append(
            sql.SQL(
                '{} AS (UPDATE ONLY {} SET "shouldUpdateSequenceId" = true WHERE ctid = ANY (ARRAY('
                "SELECT parent FROM {} WHERE child IN (SELECT place FROM picked))))"
            ).format(marked, sql.Identifier(parent.source.table), to_mark)
        )
    return steps


def dependency_condition(conn: Connection, child: str, parent: ParentTable, *, tombstone: bool) -> Composable:
    """Whether the parent row `p` (see `_select_parents_to_mark`) depends on the picked row `c`."""
    conditions: list[Composable] = []
    for number, (column, expression) in enumerate(parent.dependency.on.items()):
        of_parent: Composable = sql.Identifier("p", f"_stack_{number}")
        plain = _PLAIN_COLUMN.fullmatch(expression) is not None
        type_ = _read_column_type(conn, parent.source.table, expression.strip('"')) if plain else "text"
        of_child: Composable = sql.Identifier("c", column)
        if tombstone:
            text = sql.SQL('coalesce(c."primaryKey" ->> {name}, c.data ->> {name})').format(name=sql.Literal(column))
            # A tombstone that was written by hand must not stop the sequencer with a cast that fails.
            of_child = (
                sql.SQL("CASE WHEN {text} ~ {form} THEN ({text})::uuid END").format(
                    text=text, form=sql.Literal(_UUID_TEXT)
                )
                if type_ == "uuid"
                else text
            )
        if type_ != "uuid":
            of_parent, of_child = sql.SQL("{}::text").format(of_parent), sql.SQL("({})::text").format(of_child)
        conditions.append(sql.SQL("{} = {}").format(of_parent, of_child))
    source = parent.source
    if source.tenancy is None:
        conditions.append(sql.SQL('p."tenancyId" = c."tenancyId"'))
    else:
        conditions.append(
            sql.SQL('EXISTS (SELECT 1 FROM "Tenancy" AS o WHERE o.id = c."tenancyId" AND {})').format(
                tenancy_condition(source.tenancy, "o", "p")
            )
        )
    return sql.SQL(" AND ").join(conditions)


def _select_parents_to_mark(parent: ParentTable, joined: Composable) -> Composed:
    """Parents that must be marked, each with the picked row that asks for it.

    The inner SELECT keeps the author's expressions apart from the child's columns; the planner folds it away. The mark
    is asked for by CASE, of which there are no statistics: they say that hardly any row is unmarked after all were
    marked, and every picked row would be compared with every parent.
    """
    source = parent.source
    expressions = sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(to_sql(expression), sql.Identifier(f"_stack_{number}"))
        for number, expression in enumerate(parent.dependency.on.values())
    )
    tenancy_columns = ["tenancyId"] if source.tenancy is None else list(source.tenancy.on.values())
    return sql.SQL(
        "SELECT p._stack_place AS parent, c._stack_place AS child FROM waiting AS c "
        "JOIN (SELECT ctid AS _stack_place, {columns}, {expressions} FROM ONLY {table} "
        'WHERE CASE WHEN "shouldUpdateSequenceId" THEN false ELSE true END AND {filter}) AS p ON {joined}'
    ).format(
        columns=format_columns(dict.fromkeys(tenancy_columns)),
        expressions=expressions,
        table=sql.Identifier(source.table),
        filter=filter_condition(source.filter),
        joined=joined,
    )


def _read_column_type(conn: Connection, table: str, column: str) -> str:
    row = conn.execute(_SQL["read_column_type"], {"table": table, "column": column}).fetchone()
    return row[0] if row else "text"


def tenancy_condition(join: TenancyJoin, tenancy: str, row: str) -> Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(tenancy, column), sql.Identifier(row, of_source))
        for column, of_source in join.on.items()
    )


def format_columns(columns: Iterable[str], alias: str | None = None) -> Composed:
    qualify = (alias,) if alias else ()
    return sql.SQL(", ").join(sql.Identifier(*qualify, column) for column in columns)
