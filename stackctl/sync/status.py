"""The pipeline at a glance, without scanning tables: fuses, stamps, queue, and how far each copy is behind."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, LiteralString
from uuid import UUID

from psycopg import sql

from stackctl.core.errors import StackctlError
from stackctl.core.sentences import format_count
from stackctl.postgres.statements import load_statements
from stackctl.sync.changes.sequenced_tables import OwnedTable, find_missing_tables, list_owned_tables
from stackctl.sync.check.mapping_differences import compare_copy
from stackctl.sync.engine import rejected_rows
from stackctl.sync.queue import entries, fuses, pauses, retries
from stackctl.sync.queue.claims import UNDELIVERED
from stackctl.sync.target_states import StateReader
from stackctl.sync.targets.protocol import NEVER_SYNCED, Cursor, TargetState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from stackctl.config.settings import ExternalDatabase
    from stackctl.mapping.compile import Compiled
    from stackctl.mapping.model import Mapping
    from stackctl.postgres.connect import Connection
    from stackctl.sync.engine.rejected_rows import RejectedRow
    from stackctl.sync.pipeline import Pipeline
    from stackctl.sync.queue.pauses import Pause
    from stackctl.sync.queue.retries import Failure

EXACT_TOTAL = 100_000  # rows; a larger table's total is the planner's estimate

_SQL = load_statements(__file__)


@dataclass(frozen=True)
class TableStatus:
    """A sequenced table: rows, those that wait for a stamp, and the range of stamps."""

    total: int
    pending: int
    min_sequence_id: int | None
    max_sequence_id: int | None


@dataclass(frozen=True)
class MappingStatus:
    """A copy: `backlog` rows are still to send; `lag_ms` is the age of the oldest stamp among them.

    `lag_ms` is 0 when nothing stamped is unsent, None when the stamp's time is not known. `change`: how the mapping
    differs from what the copy was made from; `resend_left`: rows still to be sent again since it followed one.
    `failure`: what the last attempt on it ended with; `paused`: who has switched it off.
    """

    mapping: str
    cursor: int
    max_sequence_id: int | None
    backlog: int
    lag_ms: int | None
    updated_at: datetime | None
    change: str | None = None
    resend_left: int = 0
    failure: Failure | None = None
    paused: Pause | None = None


@dataclass(frozen=True)
class DatabaseStatus:
    """An external database; `error` is what stops it now, or stopped the last attempt, on it or on one of its copies.

    What is `paused` has not failed, whatever its `error`.

    `refused` are the rows that it does not take; everything else goes on. `busy`: another process holds its file, so
    that how far it is can't be read now, which is usual while rows are written into a DuckDB file. `unfed` names copies
    there that no mapping feeds.
    """

    database: str
    type: str
    connection: str
    status: Literal["ok", "error", "paused"]
    error: str | None
    failing_since: datetime | None
    attempts: int
    next_attempt_at: datetime | None
    refused: tuple[RejectedRow, ...] = ()
    mappings: tuple[MappingStatus, ...] = ()
    busy: str | None = None
    unfed: tuple[str, ...] = ()
    paused: Pause | None = None


@dataclass(frozen=True)
class Status:
    """`pauses`: all that stand, whether or not they concern a database that is configured.

    `missing_tables`: those that mappings need and that are gone, or are not sequenced any more.
    """

    generated_at: datetime
    fuses: fuses.Fuses
    tables: dict[str, TableStatus]
    queue: entries.QueueSummary
    tenancies: dict[UUID, tuple[DatabaseStatus, ...]] = field(default_factory=dict[UUID, tuple[DatabaseStatus, ...]])
    pauses: tuple[Pause, ...] = ()
    missing_tables: tuple[str, ...] = ()

    def find_problems(self, *, max_backlog: int | None, max_lag: timedelta | None) -> list[str]:
        """What `--check` complains of, one line each; empty when all is well. Of what is paused it does not."""
        found = [f"the {name} fuse is off" for name in ("sequencer", "poller") if not getattr(self.fuses, name)]
        found += [f'the table "{name}" is missing' for name in self.missing_tables]
        if self.queue.dead:
            given_up = format_count(self.queue.dead, "database is", "databases are")
            found.append(f"{given_up} given up (dead letters)")
        for tenancy, databases in self.tenancies.items():
            for one in databases:
                if one.status == "paused":
                    continue
                place = f"{tenancy} {one.database}"
                if one.status == "error":
                    found.append(f"{place}: {one.error}")
                elif one.busy is not None and not (max_backlog is None and max_lag is None):
                    found.append(f"{place}: how far behind it is can't be told: {one.busy}")
                for copy in one.mappings:
                    if copy.paused is not None:
                        continue
                    if copy.change is not None:
                        found.append(f"{place} {copy.mapping}: the mapping has changed: {copy.change}")
                    if max_backlog is not None and copy.backlog + copy.resend_left > max_backlog:
                        behind = format_count(copy.backlog + copy.resend_left, "row", "rows")
                        found.append(f"{place} {copy.mapping}: {behind} behind (limit {max_backlog:,})")
                    lag = timedelta(milliseconds=copy.lag_ms or 0)
                    if max_lag is not None and lag > max_lag:
                        found.append(f"{place} {copy.mapping}: {lag.total_seconds():.1f} s behind")
        return found


def read_status(pipeline: Pipeline, conn: Connection, tenancy: UUID | None = None) -> Status:
    """Read everything; an external database that can't be reached is an error of its own, not of the whole.

    `tenancy` narrows tables and databases to one.
    """
    pipeline.refresh(conn)
    chosen = {id_: databases for id_, databases in pipeline.databases.items() if tenancy in (None, id_)}
    states = StateReader(pipeline, [database for databases in chosen.values() for database in databases])
    failing: dict[tuple[UUID, str], list[Failure]] = defaultdict(list)
    for failure in retries.list_failures(conn):
        failing[failure.tenancy, failure.database].append(failure)
    set_aside = rejected_rows.list_rows_by_database(conn, tenancy)
    paused = pauses.list_pauses(conn)
    missing = find_missing_tables(conn, pipeline.mappings.values())
    return Status(
        generated_at=datetime.now(UTC),
        fuses=fuses.read_fuses(conn),
        tables=_read_tables(conn, [one for one in pipeline.mappings.values() if one.source not in missing], tenancy),
        queue=entries.summarize_queue(conn),
        tenancies={
            id_: tuple(
                replace(
                    _read_database(
                        conn, pipeline, states, one, failing[id_, one.id] or failing[id_, UNDELIVERED], paused, missing
                    ),
                    refused=tuple(set_aside.get((id_, one.id), ())),
                )
                for one in databases
            )
            for id_, databases in chosen.items()
        },
        pauses=tuple(paused),
        missing_tables=tuple(sorted(missing)),
    )


def _read_tables(conn: Connection, mappings: Sequence[Mapping], tenancy: UUID | None) -> dict[str, TableStatus]:
    return {one.sequenced.table: _read_table(conn, one, tenancy) for one in list_owned_tables(mappings)}


def _read_table(conn: Connection, owned: OwnedTable, tenancy: UUID | None) -> TableStatus:
    """One table, or one tenancy's part of it."""
    table, filter_ = sql.Identifier(owned.sequenced.table), owned.filter
    limit = sql.Literal(EXACT_TOTAL + 1)
    if tenancy is not None:
        parts = {
            "table": table,
            "owned": owned.condition,
            "filter": filter_,
            "tenancy": sql.Literal(tenancy),
            "each": owned.each,
        }
        total, pending, low, high = _row(conn, sql.SQL(_SQL["read_tenancys_part"]).format(**parts))
        return TableStatus(total, pending, low, high)
    (total,) = _row(conn, sql.SQL(_SQL["count_bounded"]).format(table=table, limit=limit))
    ends = sql.SQL(_SQL["read_range_small"]).format(table=table)
    if total > EXACT_TOTAL:
        (plan,) = _row(conn, sql.SQL(_SQL["estimate_rows"]).format(table=table))
        total = max(int(plan[0]["Plan"]["Plan Rows"]), EXACT_TOTAL + 1)
        ends = sql.SQL(_SQL["read_range_large"]).format(
            table=table, owned=owned.condition, filter=filter_, each=owned.each
        )
    (pending,) = _row(conn, sql.SQL(_SQL["count_marked"]).format(table=table, filter=filter_))
    low, high = _row(conn, ends)
    return TableStatus(total, pending, low, high)


def _row(conn: Connection, query: sql.Composed) -> tuple[Any, ...]:
    row = conn.execute(query, {}).fetchone()  # a mapping's own % is doubled
    assert row is not None  # an aggregate has a row
    return row


def _read_database(
    conn: Connection,
    pipeline: Pipeline,
    states: StateReader,
    database: ExternalDatabase,
    failures: Sequence[Failure],
    paused: Sequence[Pause],
    missing: Collection[str],
) -> DatabaseStatus:
    """How one database is; of mappings whose table is missing, no more than their failures."""

    def find_paused(mapping: str | None) -> Pause | None:
        return pauses.find_pause(paused, database.tenancy, database.id, mapping)

    by_mapping = {failure.mapping: failure for failure in failures}
    whole = find_paused(None)
    # The database as a whole before its copies, of which those count that are not paused.
    failure = min((one for one in failures if whole or not find_paused(one.mapping)),
                  key=lambda one: one.mapping or "", default=None)  # fmt: skip
    error, busy = failure.error if failure else None, None
    connection = database.connection
    state: TargetState | None = None
    cursors: dict[str, Cursor] | None = None
    try:
        connection = pipeline.settings.resolve_database(database).connection
        state = states.read(database)
        cursors = state.cursors if state is not None else {}
    except StackctlError as problem:
        if problem.code == "lock-timeout" and database.path is not None:
            busy = problem.message
        else:
            error = problem.message
    known = cursors or {}
    compiled = [one for one in pipeline.compile_mappings(database) if one.mapping.source not in missing]
    copies = read_mapping_statuses(conn, database.tenancy, compiled, known) if cursors is not None else ()
    return DatabaseStatus(
        database=database.id,
        type=database.type,
        connection=connection,
        status="paused" if whole else "ok" if error is None else "error",
        error=error,
        failing_since=failure.failing_since if failure else None,
        attempts=failure.attempts if failure else 0,
        next_attempt_at=failure.next_attempt_at if failure else None,
        mappings=tuple(
            replace(
                _add_change(conn, database.tenancy, one, state, copy),
                failure=by_mapping.get(copy.mapping),
                paused=find_paused(copy.mapping),
            )
            for one, copy in zip(compiled, copies, strict=False)
        ),
        busy=busy,
        unfed=tuple(pipeline.find_unfed(database, known)),
        paused=whole,
    )


def _add_change(
    conn: Connection, tenancy: UUID, compiled: Compiled, state: TargetState | None, copy: MappingStatus
) -> MappingStatus:
    """The same with how the copy stands to its mapping."""
    record = state.copies.get(copy.mapping) if state is not None else None
    left = 0
    if record is not None and record.resend_up_to is not None:
        asked = {"tenancy_id": tenancy, "cursor": record.resend_after, "up_to": record.resend_up_to}
        left = _value(conn, compiled.resend_total, asked) or 0
    try:
        kind, reasons = compare_copy(compiled, state)
        change = ", ".join(reasons) or None if kind != "new" else None
    except StackctlError as error:
        change = error.message
    return replace(copy, change=change, resend_left=left)


def read_mapping_statuses(
    conn: Connection, tenancy: UUID, compiled: Sequence[Compiled], cursors: dict[str, Cursor]
) -> Iterable[MappingStatus]:
    """How far each mapping's copy is behind, given its cursor."""
    for one in compiled:
        cursor = cursors.get(one.mapping.name)
        at = cursor.sequence_id if cursor else NEVER_SYNCED
        parameters = {"tenancy_id": tenancy, "cursor": at}
        highest, backlog = (_value(conn, query, parameters) for query in (one.high_water, one.backlog))
        # With hundreds of databases, of which most are up to date, each question counts.
        unsent = _value(conn, one.oldest_unsent, parameters) if backlog else None
        yield MappingStatus(
            mapping=one.mapping.name,
            cursor=at,
            max_sequence_id=highest,
            backlog=backlog or 0,
            lag_ms=0 if unsent is None else _lag(conn, unsent),
            updated_at=cursor.updated_at if cursor else None,
        )


def _value(conn: Connection, query: LiteralString, parameters: dict[str, Any]) -> Any:
    return (conn.execute(query, parameters).fetchone() or (None,))[0]


def _lag(conn: Connection, sequence_id: int) -> int | None:
    row = conn.execute(_SQL["read_stamp_time"], {"sequence_id": sequence_id}).fetchone()
    if row is None:
        return None
    return max(round((datetime.now(UTC) - row[0]) / timedelta(milliseconds=1)), 0)
