"""The stamping statement of each sequenced table, composed from the mappings and the catalog.

One statement, per table and batch: picks marked rows that nobody has locked, marks the parents that depend on them,
and gives the picked rows their sequence ids. Composed once a process, run many times.

What a batch costs must follow from its rows, not from the table, and on a table where all rows were just marked the
planner's statistics are wrong. So the statement leaves it little to decide: rows are found again by their place (ctid)
and compared by hashes, never joined by their keys. A place names a version of a row: one that was changed since the
snapshot is found locked elsewhere or not at all, and waits for the next batch. A table with partitions, or with others
that inherit from it, has the same place several times, and is refused; ONLY keeps to the table that was looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, NamedTuple

from psycopg import sql

from stackctl.core.errors import StateError
from stackctl.postgres.statements import load_statements
from stackctl.sync.changes.parent_marks import (
    ParentTable,
    dependency_condition,
    format_columns,
    mark_parents,
    tenancy_condition,
)
from stackctl.sync.changes.sequenced_tables import (
    TOMBSTONES,
    SequencedTable,
    filter_condition,
    list_sequenced_tables,
    to_sql,
)
from stackctl.sync.changes.turns import WHOLE

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from uuid import UUID

    from psycopg.sql import Composable, Composed

    from stackctl.mapping.model import Mapping, TenancyJoin
    from stackctl.postgres.connect import Connection

_SQL = load_statements(__file__, "sequencer")
_LOCKED = sql.SQL("current_setting('stackctl.stamping', true) = 'on'")  # the sequencers' lock is held
_TENANCY = sql.SQL('"tenancyId"')
_WHOLE = sql.SQL("{}::uuid").format(sql.Literal(str(WHOLE)))
_COUNTS = sql.SQL('max("sequenceId"), count(*) FILTER (WHERE sent), count(*)')
_RANGE = sql.SQL("{} BETWEEN turn.first AND turn.last")
_BY_TURN = sql.SQL("SELECT turn, {}, count(*) FROM stamped GROUP BY 1").format(_COUNTS)
_BY_TURN_FOUND = sql.SQL(
    "SELECT w._stack_turn, s.highest, coalesce(s.sent, 0), coalesce(s.stamped, 0), w.found "
    "FROM (SELECT _stack_turn, count(*) AS found FROM waiting GROUP BY 1) AS w "
    "LEFT JOIN (SELECT turn, {} FROM stamped GROUP BY 1) AS s (turn, highest, sent, stamped) "
    "ON s.turn = w._stack_turn"
).format(_COUNTS)
_ALWAYS = sql.SQL("true")


@dataclass(frozen=True)
class Stamping:
    """One table: a probe that tells whether any row waits, and the statement that stamps a batch.

    The statement does nothing unless the sequencers' lock is held. It takes the rows of the turns (see turns.py) in
    `%(firsts)s`, `%(lasts)s`, `%(skips)s`, `%(limits)s` and `%(total)s`. Where these are not those of tenancies
    (`by_tenancy`), rows of the tenancies in `%(skipped)s` are left out; with `whole`, all are of one turn. It returns
    rows as `StampedRow` has them, at least one. `marks` are the tables in which it may mark rows.
    """

    table: str
    by_tenancy: bool
    whole: bool
    probe: Composed
    statement: Composed
    marks: frozenset[str]


class StampedRow(NamedTuple):
    """What a stamping statement returns: for each turn, and in each row how many were found of all of them together.

    Rows were found, and stamped where none that depends on them is locked; `sent` are those of them that a mapping
    sends, and `highest` is their highest sequence id. Where turns are not those of tenancies, further rows name the
    tenancies whose rows are sent, and nothing else. A row that was changed while the statement ran may be missing from
    `found`.
    """

    turn: UUID | None
    tenancy: UUID | None
    highest: int | None
    sent: int
    stamped: int
    found: int
    all_found: int


def compose_stampings(
    conn: Connection, mappings: Sequence[Mapping], missing: Collection[str] = ()
) -> tuple[Stamping, ...]:
    """The stampings of all sequenced tables, children (and tombstones) before the parents that they mark.

    In this order the parents that a batch marks are stamped in the same transaction; nothing rests on it.

    Tables that are `missing` are left out, and so is what has to mark rows there: it waits until they are back.
    """
    waiting = {dependency.table for one in mappings if one.source in missing for dependency in one.depends_on}
    known = {source.table: source for source in list_sequenced_tables(mappings)}
    parents: dict[str, list[ParentTable]] = {}
    order: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(known, ()))
    for mapping in mappings:
        for dependency in mapping.depends_on:
            parent = ParentTable(known[mapping.source], dependency)
            if parent not in parents.setdefault(dependency.table, []):
                parents[dependency.table].append(parent)
            order.add(mapping.source, dependency.table)
    stampings = [_compose_tombstone_stamping(conn, known, parents, waiting)]
    for table in order.static_order():
        if table in waiting or table in missing:
            continue
        # A dependency that no mapping sends carries no stamps of its own, but its changes still mark its parents.
        source = known.get(table) or SequencedTable(table, None, None, None, frozenset({table}))
        stampings.append(_compose_stamping(conn, source, parents.get(table, [])))
    return tuple(stampings)


def _require_plain_table(conn: Connection, table: str) -> None:
    row = conn.execute(_SQL["holds_rows_elsewhere"], {"table": table}).fetchone()
    if row is None:
        raise StateError(
            f'the table "{table}" does not exist in the operated database, or has no primary key',
            code="not-migrated",
            hint="run `stackctl migrate up --bundled`",
            details={"table": table},
        )
    if row[0]:
        raise StateError(
            f'the table "{table}" has partitions, or other tables inherit from it: its rows can\'t be stamped',
            code="partitioned-table",
            hint=f'take the mappings of "{table}" away, or keep its rows in one table',
            details={"table": table},
        )


def _compose_stamping(conn: Connection, source: SequencedTable, parents: list[ParentTable]) -> Stamping:
    table = sql.Identifier(source.table)
    _require_plain_table(conn, source.table)
    turn, order, condition = _choose_turns(conn, source)
    columns = sorted({column for parent in parents for column in parent.dependency.on})
    carried = [*columns, *(["tenancyId"] if source.tenancy is None else source.tenancy.on.values())]
    joined = [dependency_condition(conn, source.table, parent, tombstone=False) for parent in parents]
    return Stamping(
        source.table,
        source.tenancy is None,
        turn is _WHOLE,
        _compose_row_probe(table, order),
        _compose_statement(
            table=table,
            rows=_select_rows_in_turn(
                table,
                turn,
                format_columns(dict.fromkeys(carried)),
                condition,
                order,
                lock=not parents,
            ),
            parents=parents,
            joined=joined,
            turn=turn,
            sent=filter_condition(source.sent),
            tenancy=source.tenancy,
        ),
        frozenset(parent.source.table for parent in parents),
    )


def _compose_row_probe(table: sql.Identifier, order: Composable, due: Composable = _ALWAYS) -> Composed:
    return sql.SQL('SELECT 1 FROM ONLY {} WHERE "shouldUpdateSequenceId" AND {} {} LIMIT 1').format(table, due, order)


def _select_rows_in_turn(
    table: sql.Identifier,
    turn: Composable,
    columns: Composable,
    condition: Composable,
    order: Composable,
    *,
    lock: bool,
) -> Composed:
    """The marked rows whose turn it is, by their places; with `lock`, those that are locked already are left out."""
    return sql.SQL(
        "SELECT waiting.* FROM unnest(%(firsts)s::uuid[], %(lasts)s::uuid[], %(skips)s::bigint[], %(limits)s::bigint[])"
        " AS turn (first, last, skip, most) CROSS JOIN LATERAL ("
        "SELECT ctid AS _stack_place, {turn} AS _stack_turn, {columns} FROM ONLY {table} "
        'WHERE {locked} AND "shouldUpdateSequenceId" AND {condition} {order} '
        "LIMIT turn.most OFFSET turn.skip {lock}) AS waiting LIMIT %(total)s"
    ).format(
        turn=turn,
        columns=columns,
        table=table,
        locked=_LOCKED,
        condition=condition,
        order=order,
        lock=sql.SQL("FOR UPDATE SKIP LOCKED" if lock else ""),
    )


def _choose_turns(conn: Connection, source: SequencedTable) -> tuple[Composable, Composable, Composable]:
    """Whose turn a row waits for, as a uuid; the order in which rows wait, and the condition of those in turn.

    Where a table knows its tenancy by other columns, an index of the marks by a number made of these gives the turns;
    without one, all rows are of one turn.
    """
    if source.tenancy is None:
        return _TENANCY, _order_by_marks(conn, source.table), _RANGE.format(_TENANCY)
    skipped = _not_skipped_condition(source.tenancy)
    columns = list(source.tenancy.on.values())
    row = conn.execute(_SQL["read_turns_of_marks"], {"table": source.table, "columns": columns}).fetchone()
    if row is None:
        return _WHOLE, sql.SQL(""), skipped
    turn = to_sql(row[0])
    return turn, sql.SQL("ORDER BY {}").format(turn), sql.SQL("{} AND {}").format(_RANGE.format(turn), skipped)


def _order_by_marks(conn: Connection, table: str) -> sql.SQL:
    """The order that only the index of the marks has: so the planner takes it even on stale statistics.

    Any other index that begins with the tenancy would be read from its start again for every batch.
    """
    row = conn.execute(_SQL["read_order_of_marks"], {"table": table}).fetchone()
    by_mark = row is not None and row[0]
    return sql.SQL('ORDER BY "shouldUpdateSequenceId", "tenancyId"' if by_mark else 'ORDER BY "tenancyId"')


def _not_skipped_condition(join: TenancyJoin) -> Composed:
    tenancy = sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier("o", column), sql.Identifier(of_source))
        for column, of_source in join.on.items()
    )
    return sql.SQL('NOT EXISTS (SELECT 1 FROM "Tenancy" AS o WHERE o.id = ANY (%(skipped)s::uuid[]) AND {})').format(
        tenancy
    )


def _compose_tombstone_stamping(
    conn: Connection,
    known: dict[str, SequencedTable],
    parents: dict[str, list[ParentTable]],
    waiting: Collection[str],
) -> Stamping:
    """The tombstones' own; those of rows of the `waiting` tables are left out."""
    _require_plain_table(conn, TOMBSTONES)
    table, order = sql.Identifier(TOMBSTONES), _order_by_marks(conn, TOMBSTONES)
    # Those of rows that merely moved are recorded under the table's own name.
    names = {child: {child, *(known[child].deleted_as if child in known else ())} for child in parents}
    affected = [(child, parent) for child, marked in parents.items() if child not in waiting for parent in marked]
    joined = [
        sql.SQL('c."tableName" = ANY({}) AND {}').format(
            sql.Literal(sorted(names[child])), dependency_condition(conn, child, parent, tombstone=True)
        )
        for child, parent in affected
    ]
    due = sql.SQL('"tableName" <> ALL ({}::text[])').format(
        sql.Literal(sorted(name for child in waiting for name in names[child]))
    )
    columns = sql.SQL('"tenancyId", "tableName", "primaryKey", data')
    return Stamping(
        TOMBSTONES,
        True,
        False,
        _compose_row_probe(table, order, due),
        _compose_statement(
            table=table,
            rows=_select_rows_in_turn(
                table,
                _TENANCY,
                columns,
                sql.SQL("{} AND {}").format(_RANGE.format(_TENANCY), due),
                order,
                lock=not affected,
            ),
            parents=[parent for _, parent in affected],
            joined=joined,
            turn=_TENANCY,
            sent=_ALWAYS,
            tenancy=None,
            tombstones=True,
        ),
        frozenset(parent.source.table for _, parent in affected),
    )


def _compose_statement(
    *,
    table: sql.Identifier,
    rows: Composable,
    parents: list[ParentTable],
    joined: Sequence[Composable],
    turn: Composable,
    sent: Composable,
    tenancy: TenancyJoin | None,
    tombstones: bool = False,
) -> Composed:
    """The whole statement. Where no parents are marked, nothing but places goes from the search to the UPDATE."""
    if parents:
        steps = mark_parents(table, rows, parents, joined)
        places, all_found = sql.SQL("ARRAY(SELECT place FROM picked)"), sql.SQL("count(*)")
    else:
        steps = [
            sql.SQL("waiting AS MATERIALIZED (SELECT ARRAY(SELECT _stack_place FROM ({}) AS w) AS places)").format(rows)
        ]
        places, all_found = sql.SQL("(SELECT places FROM waiting)::tid[]"), sql.SQL("max(cardinality(places))")
    owner, by, reached = sql.SQL("turn"), sql.SQL(""), sql.SQL("")
    if tenancy is not None:
        # A row may belong to no tenancy, or to several: it is stamped all the same, and each of them is queued.
        owner = sql.SQL("NULL::uuid")
        by = sql.SQL(", {}").format(format_columns(tenancy.on.values(), "t"))
        reached = sql.SQL(
            " UNION ALL SELECT DISTINCT NULL::uuid, o.id, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint "
            'FROM stamped AS s JOIN "Tenancy" AS o ON {} WHERE s.sent'
        ).format(tenancy_condition(tenancy, "o", "s"))
    # Whoever depends on the row that went is marked with this very statement: nothing but its key need be kept.
    emptied = sql.SQL(", data = NULL" if tombstones else "")
    steps.append(
        sql.SQL(
            "stamped AS (UPDATE ONLY {} AS t SET \"sequenceId\" = nextval('global_seq_id'), "
            '"shouldUpdateSequenceId" = false{} WHERE t.ctid = ANY ({}) '
            'RETURNING t."sequenceId", {} AS turn, {} AS sent{})'
        ).format(table, emptied, places, turn, sent, by)
    )
    return sql.SQL(
        "WITH {} SELECT turn, tenancy, highest, coalesce(sent, 0), coalesce(stamped, 0), coalesce(found, 0), "
        "(SELECT {} FROM waiting) FROM (SELECT) AS always "
        "LEFT JOIN (SELECT turn, {}, highest, sent, stamped, found FROM ({}) AS n (turn, highest, sent, stamped, found)"
        "{}) AS f (turn, tenancy, highest, sent, stamped, found) ON true"
    ).format(sql.SQL(", ").join(steps), all_found, owner, _BY_TURN_FOUND if parents else _BY_TURN, reached)


def compose_probe(stampings: Sequence[Stamping]) -> Composed:
    """One cheap query over all tables: the list of those, by number, in which a row waits."""
    selects: list[Composable] = [
        # Not EXISTS, which would drop the order that holds the planner to the index of the marks.
        sql.SQL("SELECT {} WHERE ({}) = 1").format(sql.Literal(number), stamping.probe)
        for number, stamping in enumerate(stampings)
    ]
    return sql.SQL("{}").format(sql.SQL(" UNION ALL ").join(selects))
