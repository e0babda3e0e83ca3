"""Runners that are not ours on the same database: the lock that each holds while it works, and its record.

The backend's own takes `pg_advisory_xact_lock(59129034)` in the transaction that runs a file and writes
`"SchemaMigration"`; Prisma's takes `pg_advisory_lock(72707369)`. A file of ours is run under the same lock, from the
look whether it is recorded to the record itself, so that neither runs what the other has run.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from psycopg import sql

from stackctl.migrate.runner import runner_lock
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from stackctl.migrate.files import Migration
    from stackctl.migrate.runner.events import Event
    from stackctl.migrate.runner.session import Session

_SQL = load_statements(__file__, "runner")
# In the order in which they are believed: the backend's was filled from Prisma's.
_LOCKS = {"SchemaMigration": 59129034, "_prisma_migrations": 72707369}


class AppliedElsewhere(Exception):
    """Another runner has recorded this migration: what the transaction in hand has done of it is not to stay."""

    def __init__(self, table: str) -> None:
        super().__init__(table)
        self.table = table


@contextmanager
def hold_lock(
    session: Session,
    migration: Migration,
    found: Sequence[Mapping[str, Any]],
    on_event: Callable[[Event], None],
    sleep: Callable[[float], None],
) -> Iterator[None]:
    """Keep the other runner out while a file is run. `found`: what find_other_runners saw just now.

    Raises AppliedElsewhere, StateError (`lock-held`).
    """
    table = _choose(found)
    if table is None:
        yield
        return
    with runner_lock.hold_lock(session, on_event, sleep, key=_LOCKS[table]):
        if _is_recorded(session, table, migration):
            raise AppliedElsewhere(table)
        yield


def record_if_missing(session: Session, migration: Migration) -> None:
    """Tell the other runner, within the transaction in hand, unless it has it already."""
    found = session.fetch_named("find_other_runners")
    table = _choose(found)
    if table is not None and not _is_recorded(session, table, migration):
        record_applied(session, migration, found)


def record_applied(session: Session, migration: Migration, found: Sequence[Mapping[str, Any]]) -> None:
    """Tell the other runner, within the transaction in hand. `found`: what find_other_runners sees there.

    Raises AppliedElsewhere when it has it already.
    """
    table = _choose(found)
    if table is None or (table == "_prisma_migrations" and migration.path.name != "migration.sql"):
        return  # Prisma knows folders only
    values = {"name": migration.name, "checksum": migration.content_sha256}
    statement = "record_in_backend_history" if table == "SchemaMigration" else "record_in_prisma_history"
    into = sql.SQL(_SQL[statement]).format(sql.Identifier(session.schema, table))
    if session.conn.execute(into, values).rowcount == 0:
        raise AppliedElsewhere(table)


def _choose(found: Sequence[Mapping[str, Any]]) -> str | None:
    names = {row["name"] for row in found}
    return next((table for table in _LOCKS if table in names), None)


def _is_recorded(session: Session, table: str, migration: Migration) -> bool:
    statement = "is_in_backend_history" if table == "SchemaMigration" else "is_in_prisma_history"
    query = sql.SQL(_SQL[statement]).format(sql.Identifier(session.schema, table))
    return session.conn.execute(query, {"name": migration.name}).fetchone() is not None
