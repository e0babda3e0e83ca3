"""What is tried again: a transaction that could not have its locks, after a pause in which nothing is held."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from psycopg import errors

from stackctl.core.durations import format_duration
from stackctl.core.errors import StateError
from stackctl.core.sentences import format_count
from stackctl.migrate.runner import failures
from stackctl.migrate.runner.events import Event
from stackctl.migrate.statement_text import find_position, insert_schema
from stackctl.postgres.lexer import hide_literals

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from stackctl.migrate.files import Migration, Statement
    from stackctl.migrate.runner.session import Session

TRIES = 10
TRIES_CONCURRENTLY = 3  # each may cost a whole build
FIRST_PAUSE = 0.5  # seconds; doubled each time
LONGEST_PAUSE = 15.0  # seconds

TRANSIENT = (errors.LockNotAvailable, errors.DeadlockDetected, errors.SerializationFailure)


class StatementBlocked(Exception):
    """A statement could not have its locks: what it did is rolled back, and it may be tried again."""

    def __init__(self, statement: Statement, error: psycopg.Error, tries: int) -> None:
        super().__init__(failures.format_error(error))
        self.statement = statement
        self.error = error
        self.tries = tries


@dataclass(frozen=True)
class Blocker:
    """A session that is in the way, as far as this role may see it.

    `relation`, `mode`: what it holds against the statement; None: only its open transaction is known.
    `open_s`: seconds since its transaction began. `query`: the beginning of its last statement, without literals.
    """

    pid: int
    application_name: str
    role: str
    state: str | None
    open_s: float | None
    query: str | None
    relation: str | None
    mode: str | None

    def __str__(self) -> str:
        parts = [self.application_name or "no application name"]
        if self.open_s is not None:
            parts.append(f"transaction open for {format_duration(self.open_s)}")
        if self.state:
            parts.append(self.state)
        if self.relation:
            parts.append(f"{self.mode} on {self.relation}")
        query = f": {self.query[:80]}" if self.query else ""
        return f"process {self.pid} ({', '.join(parts)}){query}"


def draw_pause(tried: int) -> float:
    """Seconds to wait after the try of that number, from 1: longer each time, and never the same for two runners."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (tried - 1)) * random.uniform(0.5, 1.0)


def wait_or_give_up(
    session: Session,
    migration: Migration,
    blocked: StatementBlocked,
    tried: int,
    *,
    on_event: Callable[[Event], None],
    sleep: Callable[[float], None],
) -> None:
    """Sleep before the next try; after the last raise StateError (`lock-timeout`, `deadlock`): who is in the way."""
    found = find_blockers(session, blocked.statement)
    line, column = find_position(blocked.statement, session.schema, blocked.error)
    what = f"{migration.path}:{line}:{column}: {blocked}"
    named = "; ".join(map(str, found))
    if tried < blocked.tries:
        seconds = draw_pause(tried)
        told = f"{what}; try {tried} of {blocked.tries}, the next in {format_duration(seconds)}"
        on_event(Event("retrying", migration.name, f"{told}; in the way: {named}" if named else told))
        sleep(seconds)
        return
    code = "lock-timeout" if isinstance(blocked.error, errors.LockNotAvailable) else "deadlock"
    raise StateError(
        f"{what}, {format_count(tried, 'time', 'times')}" + (f"; in the way: {named}" if named else ""),
        code=code,
        hint="the transaction was rolled back; nothing was changed. Run it again at a quieter time or with a longer"
        " --lock-timeout; a session in the way can be ended with pg_terminate_backend(pid)",
        details={
            "file": str(migration.path),
            "line": line,
            "column": column,
            "sqlstate": blocked.error.sqlstate,
            "tries": tried,
            "blockers": [asdict(blocker) for blocker in found],
        },
    )


def find_blockers(session: Session, statement: Statement) -> list[Blocker]:
    """Who is in the way of a statement: asked right after it gave up, so they may have gone since."""
    # A parser comes with it, which a run that nobody holds up does not need.
    from stackctl.migrate import lock_forecast

    taken = lock_forecast.forecast_statement(insert_schema(statement.sql, session.schema), session.schema)
    wanted = [lock for lock in taken.locks if lock.qualified and not lock.new]
    rows: list[dict[str, Any]] = session.fetch_named(
        "find_blockers",
        names=[lock.qualified for lock in wanted],
        against=["{" + ",".join(lock.against) + "}" for lock in wanted],
        any="CONCURRENTLY" in statement.sql.upper(),
    )
    for row in rows:
        row["query"] = hide_literals(row["query"] or "") or None
    return [Blocker(**row) for row in rows]
