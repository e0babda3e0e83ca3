"""Before anything is changed: a database that can be migrated, and one runner at a time."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import psycopg

from stackctl.core.errors import ServiceError, StateError
from stackctl.migrate.runner.events import Event
from stackctl.postgres.lexer import hide_literals
from stackctl.postgres.pooler import find_shared_sessions, is_behind_pooler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stackctl.migrate.runner.session import Session

LOCK_POLL = 0.1  # seconds


@contextlib.contextmanager
def hold_runner_lock(
    session: Session, on_event: Callable[[Event], None], sleep: Callable[[float], None]
) -> Iterator[None]:
    """Hold the runner's lock of the schema; the session's settings are the caller's again afterwards.

    Raises ServiceError (`read-only`), StateError (`transaction-pooler`, `lock-held`).
    """
    _refuse_read_only(session)
    _refuse_pooler(session)
    with hold_lock(session, on_event, sleep):
        try:
            yield
        finally:
            with contextlib.suppress(psycopg.OperationalError):
                if not session.conn.closed:
                    session.restore_settings()


@contextlib.contextmanager
def hold_lock(
    session: Session, on_event: Callable[[Event], None], sleep: Callable[[float], None], *, key: int | None = None
) -> Iterator[None]:
    """Hold an advisory lock of the session: the runner's own of this schema, or the one with this key.

    Raises StateError (`lock-held`).
    """
    _take_lock(session, on_event, sleep, key)
    try:
        yield
    finally:
        # A connection that is gone has given it back.
        with contextlib.suppress(psycopg.OperationalError):
            if not session.conn.closed:
                session.fetch_named("unlock", key=key)


def refuse_lost_lock(session: Session) -> None:
    """Another run could have begun meanwhile, so nothing more is applied.

    Raises StateError: `transaction-pooler` when this is not the session that took the lock, `lock-given-back` when a
    file gave it back.
    """
    if session.fetch_named("holds_lock")[0]["held"]:
        return
    if is_behind_pooler(session.conn):
        raise _pooler_error("the session that took the lock is not the one that statements run in now")
    raise StateError(
        "a statement gave the lock of migrations back",
        code="lock-given-back",
        hint="leave pg_advisory_unlock_all() and DISCARD ALL out of the files; what is committed stays, run it again",
    )


def _refuse_read_only(session: Session) -> None:
    facts = session.fetch_named("read_session_facts")[0]
    if facts["standby"] or facts["read_only"]:
        what = "is a standby" if facts["standby"] else f"is read-only for {facts['role']}"
        raise ServiceError(
            f"database {facts['database']} {what}",
            code="read-only",
            hint="give the primary's URL, and a role that may write",
        )


def _refuse_pooler(session: Session) -> None:
    """A pooler that gives each transaction another session would make the lock and every SET meaningless."""
    shared = find_shared_sessions(session.conn)
    if shared is not None:
        raise _pooler_error(shared)


def _pooler_error(what: str) -> StateError:
    return StateError(
        f"the database is behind a pooler that shares sessions between transactions: {what}",
        code="transaction-pooler",
        hint="give the URL of the server itself, or of the pooler in session mode",
    )


def _take_lock(
    session: Session, on_event: Callable[[Event], None], sleep: Callable[[float], None], key: int | None
) -> None:
    """Take the lock, asking again and again.

    Waiting inside pg_advisory_lock would hold a snapshot that CREATE INDEX CONCURRENTLY waits for in turn.
    """
    wait = session.limits.lock_wait.total_seconds()
    deadline = time.monotonic() + wait
    reported, who, details = False, "", dict[str, Any]()
    while not session.fetch_named("try_lock", key=key)[0]["pg_try_advisory_lock"]:
        timed_out = time.monotonic() >= deadline
        if timed_out or not reported:
            who, details = _describe_holder(session, key)
        if timed_out:
            raise StateError(
                f"migrations are being applied by {who}",
                code="lock-held",
                hint="run it again once that is done; a session that hangs can be ended with pg_terminate_backend(pid)",
                details={"waited_s": wait} | details,
            )
        if not reported:
            on_event(Event("waiting", detail=f"for {who}, which holds the lock of migrations"))
            reported = True
        sleep(LOCK_POLL)


def _describe_holder(session: Session, key: int | None) -> tuple[str, dict[str, Any]]:
    found = next(iter(session.fetch_named("find_lock_holder", key=key)), None)
    if found is None:
        return "another session", {}
    details = {
        **found,
        "since": found["since"].isoformat() if found["since"] else None,
        "query": hide_literals(found["query"] or "") or None,
    }
    # A run that was killed leaves its session, until the server notices; what that still builds is told.
    doing = f", building an index: {found['building']}" if found["building"] else ""
    return f"process {found['pid']} ({found['application_name'] or 'no application name'}{doing})", details
