"""What statements that run CONCURRENTLY leave when they do not end: found, and cleared away before the next try."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from psycopg import errors, sql

from stackctl.core.errors import StateError
from stackctl.migrate.runner.events import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackctl.migrate.runner.session import Session
    from stackctl.migrate.statement_text import ConcurrentStatement

BUILD_POLL = 0.5  # seconds

_REINDEX_LEFT = r"_cc(new|old)\d*$"
_NAMED_BY_SERVER = r"_idx\d*$"


def clear_leftovers(
    session: Session,
    what: ConcurrentStatement,
    name: str,
    *,
    on_event: Callable[[Event], None],
    sleep: Callable[[float], None],
) -> bool:
    """Clear away what an earlier try of the statement left, and tell; true when that has finished its work.

    An INVALID index that somebody builds at this moment is waited for, up to the runner's lock wait: then StateError
    (`index-being-built`). `name`: the migration's.
    """
    if what.kind == "detach":
        return _finish_detach(session, what, name, on_event)
    deadline = time.monotonic() + session.limits.lock_wait.total_seconds()
    reported = False
    while being_built := [row for row in find_invalid_indexes(session, what) if row["builder"] is not None]:
        row = being_built[0]
        doing = f"index {row['index']} on {row['table']} is being built by process {row['builder']}"
        if time.monotonic() >= deadline:
            raise StateError(
                doing,
                code="index-being-built",
                hint="run it again once that is done, or end it with pg_terminate_backend(pid)",
                details={"index": row["index"], "pid": row["builder"]},
            )
        if not reported:
            on_event(Event("waiting", name, doing))
            reported = True
        sleep(BUILD_POLL)
    _drop_invalid_indexes(session, what, name, on_event)
    return False


def try_clear_leftovers(
    session: Session, what: ConcurrentStatement, name: str, on_event: Callable[[Event], None]
) -> None:
    """After a failure, while whatever was in the way may still be there: the next try clears the rest."""
    with contextlib.suppress(errors.LockNotAvailable, errors.QueryCanceled, errors.DeadlockDetected):
        _drop_invalid_indexes(session, what, name, on_event)


def is_index_built(session: Session, what: ConcurrentStatement) -> bool:
    """Whether the index that the statement creates is there: of that name, and on that table."""
    return session.fetch_named("is_index_built", relation=what.relation, index=what.name)[0]["built"]


def find_invalid_indexes(session: Session, what: ConcurrentStatement) -> list[dict[str, Any]]:
    """INVALID indexes that the statement left, or that it is about to build while another session does."""
    match what.kind:
        case "create":
            pattern = None if what.name else _NAMED_BY_SERVER
            return _fetch_invalid_indexes(session, relation=what.relation, index=what.name, pattern=pattern)
        case "reindex" if what.name is None:
            return _fetch_invalid_indexes(session, relation=what.relation, pattern=_REINDEX_LEFT)
        case "reindex":
            return _fetch_invalid_indexes(session, in_schema=what.name, pattern=_REINDEX_LEFT)
        case _:
            return []


def find_invalid_indexes_in_schema(session: Session) -> list[dict[str, Any]]:
    """Every INVALID index of the migrated schema."""
    return _fetch_invalid_indexes(session, in_schema=session.schema)


def _fetch_invalid_indexes(session: Session, **filters: str | None) -> list[dict[str, Any]]:
    nothing = {"relation": None, "index": None, "in_schema": None, "pattern": None}
    return session.fetch_named("find_invalid_indexes", **nothing | filters)


def _drop_invalid_indexes(
    session: Session, what: ConcurrentStatement, name: str, on_event: Callable[[Event], None]
) -> None:
    for row in find_invalid_indexes(session, what):
        if row["builder"] is None:
            on_event(Event("rebuilding", name, f"dropping INVALID index {row['index']} of an earlier try"))
            index = sql.Identifier(row["schema"], row["index"])
            session.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(index))


def _finish_detach(session: Session, what: ConcurrentStatement, name: str, on_event: Callable[[Event], None]) -> bool:
    for row in session.fetch_named("find_pending_detach", partition=what.relation):
        on_event(Event("rebuilding", name, f"finishing the detachment of {what.relation} that an earlier try began"))
        # Both names are as the server quotes them, or as the migration itself writes them.
        statement = f"ALTER TABLE {row['parent']} DETACH PARTITION {what.relation} FINALIZE"
        session.conn.execute(statement.encode())
        return True
    return False
