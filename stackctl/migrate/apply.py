"""Apply migrations to a database, one runner at a time, and tell what was applied."""

from __future__ import annotations

import contextlib
import time
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, LiteralString, TypeAlias, cast

import psycopg
from psycopg import errors, sql
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row, tuple_row

from stackctl.errors import AnswerNo, ServiceError, StackctlError, StateError, UsageError
from stackctl.migrate import failures, files
from stackctl.migrate.statement import Index, index_built_concurrently, position, with_schema
from stackctl.sql import statements

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from stackctl.migrate.files import Migration, Piece, Statement

LOCK_WAIT = timedelta(seconds=10)
LOCK_POLL = 0.1  # seconds
REPEAT_WAIT = 0.1  # seconds between two passes of a file that asks to be repeated

Connection: TypeAlias = "psycopg.Connection[Any]"

_SQL = statements("migrate")

# What a statement says when an earlier, interrupted try of it did go through after all.
_DONE_BEFORE = (
    errors.DuplicateTable,
    errors.DuplicateObject,
    errors.DuplicateColumn,
    errors.UndefinedTable,
    errors.UndefinedObject,
    errors.UndefinedColumn,
)


@dataclass(frozen=True)
class AppliedMigration:
    """A migration applied by this run. `repeats`: how often the file asked to run again."""

    name: str
    duration_ms: int
    repeats: int


@dataclass(frozen=True)
class UpResult:
    """What this run applied, in order."""

    applied: tuple[AppliedMigration, ...]


@dataclass(frozen=True)
class HistoryEntry:
    """A migration that is applied: when (with time zone), as what, by which role."""

    name: str
    applied_at: datetime
    checksum: str
    by: str


@dataclass(frozen=True)
class Status:
    """`current`: the highest name applied. `drifted`: applied, and edited since. `unknown`: applied, and no file."""

    current: str | None
    pending: tuple[str, ...]
    applied: tuple[HistoryEntry, ...]
    drifted: tuple[str, ...]
    unknown: tuple[str, ...]


EventKind = Literal["waiting", "started", "resumed", "committed", "rebuilding", "repeating", "applied"]


@dataclass(frozen=True)
class Event:
    """Something that happened, told after the commit that made it so. `detail` is for people."""

    kind: EventKind
    name: str | None = None
    detail: str = ""


@dataclass(frozen=True)
class _Progress:
    """How far a migration is committed. `attempted`: the piece that was running outside a transaction, if one was."""

    done: int = 0
    repeats: int = 0
    attempted: int | None = None
    begun: bool = False


def up(
    conn: Connection,
    migrations: Sequence[Migration],
    *,
    to: str | None = None,
    schema: str = "public",
    lock_wait: timedelta = LOCK_WAIT,
    left_out: Callable[[], Collection[str]] = tuple,
    on_event: Callable[[Event], None] = lambda event: None,
    sleep: Callable[[float], None] = time.sleep,
    around: Callable[[Migration, Statement], AbstractContextManager[None]] = lambda migration, statement: nullcontext(),
) -> UpResult:
    """Apply what is pending, up to and including `to` (a version or a name), on `conn`, which is in autocommit mode.

    Each file commits together with its history row; pieces marked to run outside the transaction are recorded one by
    one, and a rerun goes on behind the last. `left_out` is asked under the lock for the names of pending ones that are
    to stay so. `around` gives a context that each statement runs in, on the same connection.

    Raises UsageError (`unknown-migration`), StateError (`lock-held`, `migration-edited-halfway`), ServiceError
    (`permission-denied`, `read-only`, `connection-lost`) and AnswerNo (`migration-failed`), the last three with what
    was applied before in `details["applied"]`.
    """
    if not conn.autocommit:
        raise ValueError("up() needs a connection in autocommit mode")
    wanted = _through(migrations, to)
    done: list[AppliedMigration] = []
    try:
        run = _Run(conn, schema, _session_settings(conn), on_event, sleep, around)
        run.refuse_read_only()
        run.lock(lock_wait)
        try:
            omitted = left_out()
            for migration in run.prepare([migration for migration in wanted if migration.name not in omitted]):
                done.append(run.apply(migration))
        finally:
            run.release()
    except StackctlError as error:
        error.details["applied"] = [migration.name for migration in done]
        raise
    except psycopg.Error as error:
        details = {"applied": [migration.name for migration in done]}
        if conn.closed:
            raise failures.connection_lost(failures.sentence(error), details) from error
        if isinstance(error, errors.InsufficientPrivilege | errors.ReadOnlySqlTransaction):
            raise failures.refused(error, failures.sentence(error), details) from error
        raise
    return UpResult(tuple(done))


def status(
    conn: Connection, migrations: Sequence[Migration], schema: str = "public", left_out: Collection[str] = ()
) -> Status:
    """Compare the files with the history. Writes nothing, and a database never migrated has everything pending.

    What is `left_out` is not pending.

    Raises ServiceError (`permission-denied`).
    """
    try:
        rows = _history(conn, schema)
    except errors.InsufficientPrivilege as error:
        raise failures.refused(error, failures.sentence(error), {}) from error
    applied = {
        row["name"]: HistoryEntry(row["name"], row["applied_at"], row["checksum"], row["applied_by"])
        for row in rows
        if row["applied_at"] is not None
    }
    names = {migration.name for migration in migrations}
    return Status(
        current=max(applied, default=None),
        pending=tuple(m.name for m in migrations if m.name not in applied and m.name not in left_out),
        applied=tuple(applied.values()),
        drifted=tuple(m.name for m in migrations if m.name in applied and applied[m.name].checksum != m.checksum),
        unknown=tuple(name for name in applied if name not in names),
    )


def _through(migrations: Sequence[Migration], to: str | None) -> Sequence[Migration]:
    if to is None:
        return migrations
    for index, migration in enumerate(migrations):
        if to in (migration.version, migration.name):
            return migrations[: index + 1]
    raise UsageError(
        f"there is no migration {to}",
        code="unknown-migration",
        hint="name a version or a whole name that stackctl migrate status lists",
    )


@dataclass(frozen=True)
class _Run:
    conn: Connection
    schema: str
    settings: Sequence[tuple[str, str]]  # what the caller had set for the session
    on_event: Callable[[Event], None]
    sleep: Callable[[float], None]
    around: Callable[[Migration, Statement], AbstractContextManager[None]]

    def refuse_read_only(self) -> None:
        facts = self._fetch("session_facts")[0]
        if facts["standby"] or facts["read_only"]:
            what = "is a standby" if facts["standby"] else f"is read-only for {facts['role']}"
            raise ServiceError(
                f"database {facts['database']} {what}",
                code="read-only",
                hint="give the primary's URL, and a role that may write",
            )

    def lock(self, wait: timedelta) -> None:
        """Take the runner's lock, asking again and again.

        Waiting inside pg_advisory_lock would hold a snapshot that CREATE INDEX CONCURRENTLY waits for in turn.
        """
        deadline = time.monotonic() + wait.total_seconds()
        told = False
        while not self._fetch("try_lock")[0]["pg_try_advisory_lock"]:
            if time.monotonic() >= deadline:
                raise self._lock_held(wait)
            if not told:
                self.on_event(Event("waiting", detail="another migration run holds the lock"))
                told = True
            self.sleep(LOCK_POLL)

    def _lock_held(self, wait: timedelta) -> StateError:
        holder = next(iter(self._fetch("lock_holder")), None)
        details: dict[str, Any] = {"waited_s": wait.total_seconds()}
        who = "another session"
        if holder is not None:
            since = holder["since"].isoformat() if holder["since"] else None
            details |= {"pid": holder["pid"], "application_name": holder["application_name"], "since": since}
            who = f"process {holder['pid']} ({holder['application_name'] or 'no application name'})"
        return StateError(
            f"migrations are being applied by {who}",
            code="lock-held",
            hint="run it again once that is done; a session that hangs can be ended with pg_terminate_backend(pid)",
            details=details,
        )

    def release(self) -> None:
        """Give back the lock and the caller's settings; a connection that is gone has given back both."""
        with contextlib.suppress(psycopg.OperationalError):
            if not self.conn.closed:
                self._restore_settings()
                self._fetch("unlock")

    def reset(self) -> None:
        """Undo what a file SET for the session, and say where unqualified names live."""
        self._restore_settings()
        self._run(sql.SQL("SET search_path = {}").format(sql.Identifier(self.schema)))
        # A build whose client was killed would otherwise go on, and keep the lock, until it is done. Servers on some
        # systems can't check.
        with contextlib.suppress(errors.InvalidParameterValue, errors.UndefinedObject):
            self._run("SET client_connection_check_interval = '1s'")

    def _restore_settings(self) -> None:
        self._run("RESET SESSION AUTHORIZATION")
        self._run("RESET ALL")
        for name, value in self.settings:
            self._fetch("set_setting", name=name, value=value)

    def prepare(self, wanted: Sequence[Migration]) -> Sequence[Migration]:
        """What is pending; where anything is, the history and the schema exist afterwards."""
        applied = {row["name"] for row in _history(self.conn, self.schema) if row["applied_at"] is not None}
        pending = [migration for migration in wanted if migration.name not in applied]
        if pending:
            with self.conn.transaction():
                # Runners for other schemas hold other locks, and IF NOT EXISTS alone would let them collide.
                self._fetch("lock_setup")
                if not self._fetch("history_exists")[0]["exists"]:
                    for name in ("create_history_schema", "create_history", "share_history"):
                        self._run(_SQL[name])
                if not self._fetch("schema_exists", schema=self.schema)[0]["exists"]:
                    self._run(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.schema)))
        return pending

    def apply(self, migration: Migration) -> AppliedMigration:
        """Run one file to its end. Whatever is committed when this returns or raises is recorded as committed."""
        started = time.monotonic()
        pieces = migration.pieces
        self.reset()
        progress = self._progress(migration)
        done, repeats, attempted = progress.done, progress.repeats, progress.attempted
        self.on_event(Event("resumed" if progress.begun else "started", migration.name, _place(done, pieces)))
        while True:
            if done < len(pieces) and pieces[done].outside_transaction:
                self._record(migration, _Progress(done, repeats, attempted=done), started)
                # In a later pass, or after a crash, the piece may find its work done.
                again = self._outside(migration, done, tolerant=repeats > 0 or attempted == done)
                done, repeats, attempted = (0, repeats + 1, None) if again else (done + 1, repeats, None)
                applied = self._record(migration, _Progress(done, repeats), started)
            else:
                with self.conn.transaction():
                    again = False
                    while not again and done < len(pieces) and not pieces[done].outside_transaction:
                        again = self._inside(migration, pieces[done])
                        done += 1
                    if again:
                        done, repeats = 0, repeats + 1
                    applied = self._record(migration, _Progress(done, repeats), started)
            if applied:
                break
            self.on_event(Event("repeating" if again else "committed", migration.name, _place(done, pieces)))
            if again:
                self.sleep(REPEAT_WAIT)
        duration_ms = _milliseconds_since(started)
        self.on_event(Event("applied", migration.name, f"{duration_ms} ms"))
        return AppliedMigration(migration.name, duration_ms, repeats)

    def _inside(self, migration: Migration, piece: Piece) -> bool:
        """Run a piece in the file's transaction; true when the file asks to be repeated."""
        again = False
        for statement in piece.statements:
            again = self._execute(migration, statement) and piece.repeat
            if self.conn.info.transaction_status != TransactionStatus.INTRANS:
                raise self._failed(migration, statement, "the statement ended the transaction of its migration")
        return again

    def _outside(self, migration: Migration, at: int, *, tolerant: bool) -> bool:
        """Run a piece in autocommit; true when the file asks to be repeated."""
        piece = migration.pieces[at]
        (statement,) = piece.statements
        index = index_built_concurrently(with_schema(statement.sql, self.schema))
        if index is not None:
            self._drop_invalid(migration, index)
        try:
            again = self._execute(migration, statement, accept=_DONE_BEFORE if tolerant else ())
        except AnswerNo:
            # The server answered: the next try starts afresh, and must not take another's object for its own work.
            self._forget_attempt(migration)
            if index is not None:
                # A long reader may hold the drop up; the next try drops the index before it builds.
                with contextlib.suppress(errors.LockNotAvailable, errors.QueryCanceled):
                    self._drop_invalid(migration, index)
            raise
        if index is not None and self._fetch("invalid_index", table=index.table, index=index.name):
            raise self._failed(migration, statement, f"index {index.name} is INVALID after it was built")
        return again and piece.repeat

    def _drop_invalid(self, migration: Migration, index: Index) -> None:
        for row in self._fetch("invalid_index", table=index.table, index=index.name):
            self.on_event(Event("rebuilding", migration.name, f"dropping INVALID index {index.name} of an earlier try"))
            self._run(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(*row.values())))

    def _execute(
        self, migration: Migration, statement: Statement, *, accept: tuple[type[psycopg.Error], ...] = ()
    ) -> bool:
        """Run one statement; true when its row says should_repeat_migration."""
        # Without parameters the text goes to the server as it is, `%` included; the files are the operator's own.
        text = cast("LiteralString", with_schema(statement.sql, self.schema))
        try:
            with self.around(migration, statement), self.conn.cursor(row_factory=dict_row) as cursor:
                cursor.execute(text, prepare=False)
                row = cursor.fetchone() if cursor.description else None
                return row is not None and row.get("should_repeat_migration") is True
        except accept:
            return False
        except psycopg.Error as error:
            raise self._failed(migration, statement, failures.sentence(error), error) from error

    def _failed(
        self, migration: Migration, statement: Statement, what: str, error: psycopg.Error | None = None
    ) -> StackctlError:
        line, column = position(statement, self.schema, error)
        details: dict[str, Any] = {"file": str(migration.path), "line": line, "column": column}
        if error is not None:
            details |= {"sqlstate": error.sqlstate, "detail": error.diag.message_detail}
        message = f"{migration.path}:{line}:{column}: {what}"
        if self.conn.closed:
            return failures.connection_lost(message, details)
        if isinstance(error, errors.InsufficientPrivilege | errors.ReadOnlySqlTransaction):
            return failures.refused(error, message, details)
        hint = error.diag.message_hint if error is not None else None
        if isinstance(error, errors.ActiveSqlTransaction):
            hint = "Put the line -- stackctl:outside-transaction into its piece."
        return AnswerNo(
            message,
            code="migration-failed",
            hint=hint or "Nothing of this transaction is left. Mend the file and run stackctl migrate up again.",
            details=details,
        )

    def _progress(self, migration: Migration) -> _Progress:
        row = next((row for row in _history(self.conn, self.schema) if row["name"] == migration.name), None)
        if row is None:
            return _Progress()
        done = row["pieces_done"]
        if row["checksum"] != files.checksum(migration.pieces[:done]):
            raise StateError(
                f"{migration.path} was edited in the part that is applied already (its first {done} pieces)",
                code="migration-edited-halfway",
                hint="restore that part; what follows it may be changed",
                details={"file": str(migration.path), "pieces_done": done},
            )
        return _Progress(done, row["repeats"], attempted=row["outside_piece"], begun=True)

    def _record(self, migration: Migration, progress: _Progress, started: float) -> bool:
        """Write the history row; true when that makes the migration applied."""
        applied = progress.done == len(migration.pieces)
        with self.conn.transaction():
            self._run(
                _SQL["record"],
                {
                    "schema": self.schema,
                    "name": migration.name,
                    "checksum": files.checksum(migration.pieces[: progress.done]),
                    "applied": applied,
                    "duration_ms": _milliseconds_since(started),
                    "repeats": progress.repeats,
                    "pieces_done": progress.done,
                    "outside_piece": progress.attempted,
                },
            )
            if applied and self._fetch("backend_history_exists", schema=self.schema)[0]["exists"]:
                record = sql.SQL(_SQL["record_for_backend"]).format(sql.Identifier(self.schema, "SchemaMigration"))
                self._run(record, {"name": migration.name})
        return applied

    def _forget_attempt(self, migration: Migration) -> None:
        self._run(_SQL["forget_attempt"], {"schema": self.schema, "name": migration.name})

    def _run(self, query: LiteralString | sql.Composed, values: Mapping[str, Any] | None = None) -> None:
        self.conn.execute(query, values)

    def _fetch(self, statement: str, /, **values: Any) -> list[dict[str, Any]]:
        with self.conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(_SQL[statement], {"schema": self.schema, **values}).fetchall()


def _session_settings(conn: Connection) -> Sequence[tuple[str, str]]:
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(_SQL["session_settings"]).fetchall()


def _history(conn: Connection, schema: str) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        exists = cursor.execute(_SQL["history_exists"]).fetchone()
        if not exists or not exists["exists"]:
            return []
        return cursor.execute(_SQL["history"], {"schema": schema}).fetchall()


def _place(done: int, pieces: Sequence[Piece]) -> str:
    return f"{done} of {len(pieces)} pieces done"


def _milliseconds_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
