"""Apply migrations to a database, one runner at a time, and tell what was applied."""

from __future__ import annotations

import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from stackctl.core.errors import AnswerNo, StackctlError
from stackctl.migrate.runner import (
    concurrent_leftovers,
    failures,
    history,
    other_runners,
    plan,
    repeated_passes,
    retry,
    runner_lock,
)
from stackctl.migrate.runner.events import Event
from stackctl.migrate.runner.history import MigrationProgress
from stackctl.migrate.runner.session import Limits, Session
from stackctl.migrate.statement_text import find_already_done_errors, insert_schema, parse_concurrent

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from contextlib import AbstractContextManager

    from psycopg.errors import Diagnostic

    from stackctl.migrate.files import Migration, Piece, Statement
    from stackctl.migrate.runner.repeated_passes import RowChanges
    from stackctl.migrate.runner.session import Connection

    StatementContext = Callable[[Migration, Statement], AbstractContextManager[None]]

_SENT_AT_ONCE = 200  # statements


@dataclass(frozen=True)
class AppliedMigration:
    """A migration applied by this run. `repeats`: how often the file asked to run again."""

    name: str
    duration_ms: int
    repeats: int


@dataclass(frozen=True)
class RunResult:
    """What this run applied, in order, and what another runner applied before it could."""

    applied: tuple[AppliedMigration, ...]
    applied_elsewhere: tuple[str, ...] = ()

    def join(self, later: RunResult) -> RunResult:
        """This and what was done after it."""
        return RunResult(self.applied + later.applied, self.applied_elsewhere + later.applied_elsewhere)


class RunInterrupted(KeyboardInterrupt):
    """A signal ended the run; `result` is what it had applied by then."""

    def __init__(self, result: RunResult) -> None:
        super().__init__()
        self.result = result


@dataclass(frozen=True)
class _StatementResult:
    """What a statement of a repeated piece says: whether to run again, what it changed, what remains."""

    again: bool = False
    changed: RowChanges | None = None
    remaining: int | None = None


def apply_migrations(
    conn: Connection,
    migrations: Sequence[Migration],
    *,
    to: str | None = None,
    schema: str = "public",
    limits: Limits = Limits(),  # noqa: B008 - frozen
    out_of_order: bool = False,
    find_excluded: Callable[[], Collection[str]] = tuple,
    on_event: Callable[[Event], None] = lambda event: None,
    sleep: Callable[[float], None] = time.sleep,
    statement_context: StatementContext | None = None,
    history_name: str = "",
    names_elsewhere: Collection[str] = (),
) -> RunResult:
    """Apply what is pending, up to and including `to` (a version or a name), on `conn`, which is in autocommit mode.

    Each file commits together with its history row; pieces marked to run outside the transaction are recorded one by
    one, and a rerun goes on behind the last. A transaction that can't have its locks in time is rolled back and tried
    again after a pause. `find_excluded` is asked under the lock for the names of pending ones that are to stay so.
    `statement_context` gives a context that each statement runs in, on the same connection. `history_name` and
    `names_elsewhere` are as in `sets.MigrationSet`.

    Raises UsageError (`unknown-migration`), StateError (`lock-held`, `transaction-pooler`, `out-of-order`,
    `not-adopted`, `migration-edited`, `migration-edited-halfway`, `lock-timeout`, `deadlock`, `index-being-built`),
    ServiceError
    (`permission-denied`, `read-only`, `connection-lost`) and AnswerNo (`migration-failed`, `migration-never-ends`),
    each with what was applied before in `details["applied"]`. A KeyboardInterrupt becomes RunInterrupted.
    """
    plan.select_up_to(migrations, to)
    done: list[AppliedMigration] = []
    elsewhere: list[str] = []
    try:
        session = Session.begin(conn, schema, limits, history_name)
        with runner_lock.hold_runner_lock(session, on_event, sleep):
            pending = plan.find_pending(
                conn,
                migrations,
                schema,
                to=to,
                excluded=find_excluded(),
                out_of_order=out_of_order,
                tell=lambda text: on_event(Event("remark", detail=text)),
                history_name=history_name,
                names_elsewhere=names_elsewhere,
            )
            if pending:
                history.create_history(session)
            runner = _Runner(session, on_event, sleep, statement_context)
            with _report_notices(conn, on_event):
                for migration, so_far in pending:
                    try:
                        others = session.begin_file()
                        with other_runners.hold_lock(session, migration, others, on_event, sleep):
                            done.append(runner.apply_file(migration, so_far))
                            on_event(Event("applied", migration.name, f"{done[-1].duration_ms} ms"))
                    except other_runners.AppliedElsewhere as error:
                        history.record_adopted(session, [(migration, None)])
                        elsewhere.append(migration.name)
                        on_event(Event("elsewhere", migration.name, f'"{error.table}" has it since this run began'))
    except StackctlError as error:
        error.details["applied"] = [migration.name for migration in done]
        raise
    except KeyboardInterrupt as interrupt:
        raise RunInterrupted(RunResult(tuple(done), tuple(elsewhere))) from interrupt
    except psycopg.Error as error:
        details = {"applied": [migration.name for migration in done]}
        if conn.closed:
            raise failures.to_connection_lost(failures.format_error(error), details) from error
        if isinstance(error, errors.InsufficientPrivilege | errors.ReadOnlySqlTransaction):
            raise failures.to_permission_error(error, failures.format_error(error), details) from error
        raise
    return RunResult(tuple(done), tuple(elsewhere))


@contextmanager
def _report_notices(conn: Connection, on_event: Callable[[Event], None]) -> Iterator[None]:
    """Tell what the server remarks meanwhile, except that IF [NOT] EXISTS had nothing to do."""

    def tell(said: Diagnostic) -> None:
        text = said.message_primary or ""
        if not text.endswith(", skipping"):
            on_event(Event("remark", detail=f"{(said.severity or '').lower()}: {text}"))

    conn.add_notice_handler(tell)
    try:
        yield
    finally:
        conn.remove_notice_handler(tell)


@dataclass(frozen=True)
class _Runner:
    session: Session
    on_event: Callable[[Event], None]
    sleep: Callable[[float], None]
    statement_context: StatementContext | None

    @property
    def conn(self) -> Connection:
        return self.session.conn

    def apply_file(self, migration: Migration, so_far: MigrationProgress) -> AppliedMigration:
        """Run one file to its end. Whatever is committed when this returns or raises is recorded as committed."""
        started = time.monotonic()
        self.on_event(
            Event("resumed" if so_far.begun else "started", migration.name, _describe_start(migration, so_far))
        )
        passes = repeated_passes.RepeatedPasses(migration)
        while True:
            before = so_far
            so_far, result = self._commit_with_retries(migration, so_far, started)
            if so_far.applied:
                break
            if so_far.repeats == before.repeats:
                self.on_event(Event("committed", migration.name, _format_progress(so_far.done, migration.pieces)))
                continue
            batch = passes.add_pass(result.changed, result.remaining)
            self.on_event(Event("repeating", migration.name, f"pass {so_far.repeats} committed", batch))
            self.sleep(passes.pause)
        return AppliedMigration(migration.name, _milliseconds_since(started), so_far.repeats)

    def _commit_with_retries(
        self, migration: Migration, so_far: MigrationProgress, started: float
    ) -> tuple[MigrationProgress, _StatementResult]:
        """The next commit of a file, tried again while locks are in the way; between two tries nothing is held."""
        tried = 0
        while True:
            tried += 1
            try:
                return self._run_to_next_commit(migration, so_far, started)
            except retry.StatementBlocked as error:
                blocked = error
            except psycopg.Error as error:  # of the commit itself: a deferred constraint, a serialization failure
                if so_far.done == len(migration.pieces):
                    raise
                statement = migration.pieces[so_far.done].statements[0]
                if not isinstance(error, retry.TRANSIENT):
                    deferred = "a deferred constraint: " if isinstance(error, errors.IntegrityError) else ""
                    what = f"at the commit, {deferred}{failures.format_error(error)}"
                    raise self._to_stackctl_error(migration, statement, what, error) from error
                blocked = retry.StatementBlocked(statement, error, retry.TRIES)
            except AnswerNo as error:
                if so_far.begun and error.hint == failures.FIX_AND_RERUN:
                    error.hint = failures.FIX_THE_REST
                raise
            retry.wait_or_give_up(self.session, migration, blocked, tried, on_event=self.on_event, sleep=self.sleep)

    def _run_to_next_commit(
        self, migration: Migration, so_far: MigrationProgress, started: float
    ) -> tuple[MigrationProgress, _StatementResult]:
        pieces = migration.pieces
        done, repeats = so_far.done, so_far.repeats
        result = _StatementResult()
        if done < len(pieces) and pieces[done].outside_transaction:
            runner_lock.refuse_lost_lock(self.session)
            self._record(migration, MigrationProgress(done, repeats, attempted=done), started)
            # In a later pass, or after a crash, the piece may find its work done.
            result = self._run_in_autocommit(migration, done, tolerant=repeats > 0 or so_far.attempted == done)
            reached = MigrationProgress(0, repeats + 1) if result.again else MigrationProgress(done + 1, repeats)
            return self._record(migration, reached, started), result
        with self._transaction():
            together = self._find_unwatched(pieces[done:])
            self._begin(migration, [statement for piece in together for statement in piece.statements])
            done += len(together)
            while not result.again and done < len(pieces) and not pieces[done].outside_transaction:
                result = self._run_in_transaction(migration, pieces[done])
                done += 1
            reached = MigrationProgress(0, repeats + 1) if result.again else MigrationProgress(done, repeats)
            return self._record(migration, reached, started), result

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """What begins a transaction inside is committed at the end, or rolled back."""
        try:
            yield
            self.conn.commit()
        except BaseException:
            if not self.conn.closed:
                self.conn.rollback()
            raise

    def _find_unwatched(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        """The pieces at the beginning, of one transaction, of whose statements nothing is asked but to succeed."""
        watched = (n for n, piece in enumerate(pieces) if piece.outside_transaction or piece.repeat)
        return () if self.statement_context else pieces[: next(watched, len(pieces))]

    def _begin(self, migration: Migration, statements: Sequence[Statement]) -> None:
        """Begin a transaction, with the lock in hand, and run its first statements: sent without waiting for each.

        The server runs them one by one, and nothing of what was sent behind one that fails.
        """
        cursors: list[psycopg.Cursor[Any]] = []
        for start in range(0, max(1, len(statements)), _SENT_AT_ONCE):
            chunk = statements[start : start + _SENT_AT_ONCE]
            cursors = [self.conn.cursor() for _ in chunk]
            lock = self.conn.cursor()
            try:
                with self.conn.pipeline():
                    try:
                        if start == 0:
                            self.conn.execute("BEGIN", prepare=False)
                            self.session.send_named(lock, "require_lock")
                        for statement, cursor in zip(chunk, cursors, strict=True):
                            cursor.execute(self._prepare_text(statement), prepare=False)
                    except KeyboardInterrupt:
                        self.conn.close()  # the pipeline's end would wait for all that was sent
                        raise
            except psycopg.Error as error:
                if start == 0 and lock.statusmessage is None and not self.conn.closed:
                    self.conn.rollback()
                    runner_lock.refuse_lost_lock(self.session)
                    raise
                failed = next((s for s, c in zip(chunk, cursors, strict=True) if c.statusmessage is None), None)
                if failed is None:
                    raise
                raise self._to_failure(migration, failed, error, retry.TRIES) from error
            self._refuse_ended_transaction(migration, chunk[0] if chunk else None)

    def _refuse_ended_transaction(self, migration: Migration, statement: Statement | None) -> None:
        if statement is not None and self.conn.info.transaction_status != TransactionStatus.INTRANS:
            raise self._to_stackctl_error(migration, statement, "the statement ended the transaction of its migration")

    def _run_in_transaction(self, migration: Migration, piece: Piece) -> _StatementResult:
        """Run a piece in the file's transaction."""
        result = _StatementResult()
        for statement in piece.statements:
            before = repeated_passes.count_changes(self.session) if piece.repeat else None
            result = self._execute(migration, statement, repeat=piece.repeat, tries=retry.TRIES)
            self._refuse_ended_transaction(migration, statement)
            if before is not None and result.again:
                after = repeated_passes.count_changes(self.session)
                result = replace(result, changed=after and after.since(before))
        return result

    def _run_in_autocommit(self, migration: Migration, at: int, *, tolerant: bool) -> _StatementResult:
        """Run a piece in autocommit."""
        piece = migration.pieces[at]
        (statement,) = piece.statements
        text = insert_schema(statement.sql, self.session.schema)
        what = parse_concurrent(text)
        accept = find_already_done_errors(text) if tolerant else ()
        if what is None:
            try:
                result = self._execute(migration, statement, repeat=piece.repeat, accept=accept, tries=retry.TRIES)
            except (StackctlError, retry.StatementBlocked):
                self._forget_attempt(migration)
                raise
            return result
        with self.session.extend_lock_timeout():
            try:
                finished = concurrent_leftovers.clear_leftovers(
                    self.session, what, migration.name, on_event=self.on_event, sleep=self.sleep
                )
                if what.kind == "create" and not concurrent_leftovers.is_index_built(self.session, what):
                    accept = ()
                if not finished:
                    self._execute(migration, statement, accept=accept, tries=retry.TRIES_CONCURRENTLY)
            except retry.TRANSIENT as error:
                self._forget_attempt(migration)
                raise retry.StatementBlocked(statement, error, retry.TRIES_CONCURRENTLY) from error
            except (StackctlError, retry.StatementBlocked):
                self._forget_attempt(migration)
                if not self.conn.closed:
                    concurrent_leftovers.try_clear_leftovers(self.session, what, migration.name, self.on_event)
                raise
        for row in concurrent_leftovers.find_invalid_indexes(self.session, what):
            raise self._to_stackctl_error(migration, statement, f"index {row['index']} is INVALID after it was built")
        return _StatementResult()

    def _execute(
        self,
        migration: Migration,
        statement: Statement,
        *,
        tries: int,
        repeat: bool = False,
        accept: tuple[type[psycopg.Error], ...] = (),
    ) -> _StatementResult:
        """Run one statement, and read the answer of a repeated one.

        Raises StatementBlocked when its locks could not be had.
        """
        context = self.statement_context(migration, statement) if self.statement_context else nullcontext()
        try:
            with context, self.conn.cursor(row_factory=dict_row) as cursor:
                cursor.execute(self._prepare_text(statement), prepare=False)
                columns = [column.name for column in cursor.description or ()]
                rows = cursor.fetchmany(2) if columns else []
        except accept:
            return _StatementResult()
        except psycopg.Error as error:
            raise self._to_failure(migration, statement, error, tries) from error
        if not repeat or not rows:
            return _StatementResult()
        if problem := repeated_passes.find_unclear_answer(columns, rows):
            raise self._to_stackctl_error(migration, statement, problem)
        remaining = rows[0].get("remaining")
        return _StatementResult(
            again=rows[0][repeated_passes.ANSWER],
            remaining=int(remaining) if isinstance(remaining, int) else None,
        )

    def _prepare_text(self, statement: Statement) -> LiteralString:
        # Without parameters the text goes to the server as it is, `%` included; the files are the operator's own.
        return cast("LiteralString", insert_schema(statement.sql, self.session.schema))

    def _to_failure(self, migration: Migration, statement: Statement, error: psycopg.Error, tries: int) -> Exception:
        if isinstance(error, retry.TRANSIENT):
            return retry.StatementBlocked(statement, error, tries)
        return self._to_stackctl_error(migration, statement, failures.format_error(error), error)

    def _to_stackctl_error(
        self, migration: Migration, statement: Statement, what: str, error: psycopg.Error | None = None
    ) -> StackctlError:
        schema, closed = self.session.schema, self.conn.closed
        return failures.to_stackctl_error(migration, statement, what, error, schema=schema, closed=closed)

    def _record(self, migration: Migration, reached: MigrationProgress, started: float) -> MigrationProgress:
        return history.record_progress(self.session, migration, reached, _milliseconds_since(started))

    def _forget_attempt(self, migration: Migration) -> None:
        """The server answered: the next try starts afresh, and must not take another's object for its own work."""
        if not self.conn.closed:
            self.session.run_named("forget_attempt", name=migration.name)


def _describe_start(migration: Migration, so_far: MigrationProgress) -> str:
    place = _format_progress(so_far.done, migration.pieces)
    if so_far.attempted is not None:
        line = migration.pieces[so_far.attempted].line
        return f"{place}; an earlier run ended in the statement of line {line}"
    return f"{place}, after {so_far.repeats} passes" if so_far.repeats else place


def _format_progress(done: int, pieces: Sequence[Piece]) -> str:
    return f"{done} of {len(pieces)} pieces done"


def _milliseconds_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
