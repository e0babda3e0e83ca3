"""Every row of a mapping sent again, in small batches, beside the live pipeline and without touching the source.

The walk follows the sequence ids, which have an index, up to the highest one of the start: a row that changes on the
way gets a higher id, and the pipeline sends it. A batch is a transaction of the target under the lock of the cursor,
which stays where it is; between two batches the lock is free for live changes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from stackctl.core.errors import StackctlError
from stackctl.postgres.statements import load_statements
from stackctl.sync.engine import database_sync as engine
from stackctl.sync.engine import rejected_rows
from stackctl.sync.engine.batches import BatchSender, CopyWork
from stackctl.sync.engine.database_sync import MappingResult
from stackctl.sync.engine.source_errors import OperatedDatabaseLost
from stackctl.sync.engine.source_rewound import is_copy_ahead, to_ahead_error
from stackctl.sync.engine.workers import abort_when_stuck
from stackctl.sync.scope import find_unknown_tenancies, select_databases
from stackctl.sync.targets.protocol import NEVER_SYNCED

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from stackctl.config.settings import ExternalDatabase
    from stackctl.mapping.compile import Compiled
    from stackctl.sync.engine.source import Source
    from stackctl.sync.pipeline import Pipeline
    from stackctl.sync.scope import Scope
    from stackctl.sync.stop import Stop
    from stackctl.sync.targets.protocol import AppliedBatch, Target

BATCH = 5_000  # rows under one lock
PAUSE = 0.02  # seconds between two batches, in which a live change gets hold of the cursor
STOP_GRACE = 10.0  # seconds that a stop leaves the batch in hand

_SQL = load_statements(__file__)


@dataclass(frozen=True)
class BackfillOptions:
    """How to send: rows a second at most, forgetting how far an earlier run came, and who hears of rows sent."""

    rate: int | None = None
    restart: bool = False
    on_rows: Callable[[int], None] = lambda rows: None


@dataclass
class BackfillResult:
    """What was done for one database. `planned`: rows that were to be sent; `resumed`: the rest of an earlier run."""

    tenancy: UUID
    database: str
    rows: int = 0
    planned: int = 0
    batches: int = 0
    refused: int = 0
    resumed: bool = False
    status: Literal["ok", "error", "interrupted", "planned"] = "ok"
    error: StackctlError | None = None
    duration_ms: int = 0


@dataclass
class _Progress:
    position: int
    up_to: int
    rows: int


def plan_backfill(pipeline: Pipeline, mapping: str, scope: Scope, *, restart: bool) -> list[BackfillResult]:
    """How many rows a backfill would send, and where; changes nothing. Raises UsageError for an unknown name."""
    results: list[BackfillResult] = []
    with pipeline.open_session() as conn:
        pipeline.check_ready(conn)
        found = select_databases(pipeline, replace(scope, mappings=[mapping]))
        unknown = find_unknown_tenancies(conn, found, scope)
    source = pipeline.open_source()
    try:
        for database in found:
            problem = unknown.get(database.tenancy)
            (compiled,) = pipeline.compile_mappings(database, [mapping])
            result = BackfillResult(database.tenancy, database.id, status="planned", error=problem)
            if problem is not None:
                result.status = "error"
            else:
                progress = _read_progress(source, result, mapping, restart=restart)
                result.planned = _count_rows_left(source, compiled, result, progress)
            results.append(result)
    finally:
        source.close()
    return results


def backfill(
    pipeline: Pipeline, mapping: str, scope: Scope, options: BackfillOptions, stop: Stop
) -> list[BackfillResult]:
    """Send all rows of the mapping to the databases of the scope, one after the other.

    A database's failure is recorded in its result, and the others go on. Raises UsageError for an unknown name,
    OperatedDatabaseLost.
    """
    results: list[BackfillResult] = []
    with pipeline.open_session() as conn:
        pipeline.check_ready(conn)
        found = select_databases(pipeline, replace(scope, mappings=[mapping]))
        unknown = find_unknown_tenancies(conn, found, scope)
    source = pipeline.open_source()
    try:
        for database in found:
            problem = unknown.get(database.tenancy)
            result = BackfillResult(database.tenancy, database.id, error=problem)
            results.append(result)
            started = time.monotonic()
            if problem is None:
                _backfill_database(pipeline, source, database, mapping, result, options=options, stop=stop)
            if result.error is not None:
                result.status = "error"
            result.duration_ms = round((time.monotonic() - started) * 1000)
    finally:
        source.close()
    return results


def _backfill_database(
    pipeline: Pipeline,
    source: Source,
    database: ExternalDatabase,
    mapping: str,
    result: BackfillResult,
    *,
    options: BackfillOptions,
    stop: Stop,
) -> None:
    if stop.requested:
        result.status = "interrupted"
        return
    try:
        (compiled,) = pipeline.compile_mappings(database, [mapping])
        target = pipeline.open_target(database)
        try:
            with abort_when_stuck(source, target, stop, grace=STOP_GRACE):
                target.prepare(database.tenancy, [compiled], pipeline.change_policy)
                _Walk(source, target, compiled, result, options, stop).run()
        finally:
            target.close()
    except OperatedDatabaseLost:
        raise
    except StackctlError as error:
        if stop.requested:
            result.status = "interrupted"  # it was broken off
        else:
            result.error = error


def _read_progress(source: Source, result: BackfillResult, mapping: str, *, restart: bool) -> _Progress:
    """Where an earlier run stopped, or the beginning."""
    last = source.read_last_sequence_id()
    named = {"tenancy": result.tenancy, "database": result.database, "mapping": mapping}
    row = None if restart else source.primary.execute(_SQL["read_progress"], named).fetchone()
    if row is not None and row[1] <= last:  # else the operated database was rewound
        result.resumed = True
        return _Progress(*row)
    return _Progress(0, last, 0)


def _count_rows_left(source: Source, compiled: Compiled, result: BackfillResult, progress: _Progress) -> int:
    asked = {"tenancy_id": result.tenancy, "cursor": progress.position, "up_to": progress.up_to}
    with source.open_snapshot(compiled.mapping.name) as conn:
        row = conn.execute(compiled.resend_total, asked).fetchone()
    return row[0] if row else 0


class _Walk:
    """One mapping into one database."""

    def __init__(
        self,
        source: Source,
        target: Target,
        compiled: Compiled,
        result: BackfillResult,
        options: BackfillOptions,
        stop: Stop,
    ) -> None:
        self._source = source
        self._target = target
        self._compiled = compiled
        self._name = compiled.mapping.name
        self._result = result
        self._options = options
        self._stop = stop
        self._progress = _read_progress(source, result, self._name, restart=options.restart)
        self._quarantine = rejected_rows.Quarantine(source.primary, result.tenancy, result.database, self._name)

    def run(self) -> None:
        """Batches to the end of the walk; raises what is wrong with the database, the mapping, or single rows."""
        result = self._result
        cursor = self._target.read_state().cursors.get(self._name)
        never = cursor is None or cursor.sequence_id == NEVER_SYNCED
        result.planned = _count_rows_left(self._source, self._compiled, result, self._progress)
        if not (self._load() if never else self._resend()):
            result.status = "interrupted"
            return
        self._source.primary.execute(_SQL["forget_progress"], self._to_parameters())
        left = rejected_rows.list_rows(self._source.primary, result.tenancy, result.database)
        mine = [row for row in left if row.mapping == self._name]
        if mine:
            raise rejected_rows.to_error(mine)

    def _resend(self) -> bool:
        """Batches from where the progress stands; False when the stop came first."""
        result, rate = self._result, self._options.rate
        whole = BATCH if rate is None else min(BATCH, max(rate, 1))
        size, started, sent = rejected_rows.PageSize(whole, whole), time.monotonic(), 0
        while True:
            if self._stop.requested:
                return False
            try:
                applied = self._send_batch(size.rows)
            except StackctlError as error:
                if size.shrink(error):
                    self._quarantine_next_row(error)
                continue
            result.rows += applied.upserted
            result.batches += 1
            self._options.on_rows(applied.rows)
            self._advance(applied)
            sent += applied.rows
            if applied.rows < size.rows or applied.highest >= self._progress.up_to:
                return True
            size.grow()
            owed = sent / rate - (time.monotonic() - started) if rate is not None else 0.0
            self._stop.wait(max(owed, PAUSE))

    def _send_batch(self, limit: int) -> AppliedBatch:
        """One transaction of the target."""
        with self._target.lock_cursor(self._compiled) as cursor:
            if is_copy_ahead(self._source, self._compiled, cursor, self._result.tenancy):
                raise to_ahead_error(self._compiled.mapping.name, cursor, self._result.tenancy)
            # Only now: what is read must not be older than what another engine wrote before.
            self._source.wait_for_replica()
            page = self._source.open_batch(
                self._compiled, self._result.tenancy, self._progress.position, limit, lambda rows: None
            )
            applied = self._target.apply_batch(self._compiled, replace(page, statement=self._compiled.resend))
            # Whoever reads ahead of its lock must see that somebody wrote.
            self._target.advance_cursor(self._compiled, cursor)
        return applied

    def _load(self) -> bool:
        """A first load, as any sync would do it; it sends everything. False when the stop came first."""
        entry = MappingResult(self._name)
        options = engine.SyncOptions(BATCH, on_rows=lambda mapping, rows: self._options.on_rows(rows))
        batches = BatchSender(CopyWork(self._source, self._target, self._compiled, self._result.tenancy,
                                       self._result.database, entry, options, self._stop))  # fmt: skip
        finished = batches.send()
        self._result.rows, self._result.batches = entry.upserted, entry.batches
        return finished

    def _advance(self, applied: AppliedBatch) -> None:
        progress = self._progress
        progress.position = max(progress.position, applied.highest)
        progress.rows += applied.upserted
        self._record_progress()

    def _record_progress(self) -> None:
        progress = self._progress
        values = {"position": progress.position, "up_to": progress.up_to, "rows": progress.rows}
        self._source.primary.execute(_SQL["record_progress"], self._to_parameters() | values)

    def _quarantine_next_row(self, error: StackctlError) -> None:
        """Pass the next row, which is recorded as rejected: the pipeline tries it again."""
        asked = {"tenancy_id": self._result.tenancy, "cursor": self._progress.position}
        with self._source.open_snapshot(self._name) as conn:
            row = conn.execute(self._compiled.resend_next, asked).fetchone()
        if row is None:
            return
        key, sequence_id = row
        self._quarantine.add_row(key, sequence_id, error)
        self._result.refused = self._quarantine.count
        self._progress.position = sequence_id
        self._record_progress()

    def _to_parameters(self) -> dict[str, object]:
        return {"tenancy": self._result.tenancy, "database": self._result.database, "mapping": self._name}
