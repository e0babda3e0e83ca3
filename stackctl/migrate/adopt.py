"""Take over a database that was migrated by something else: its history becomes ours, and nothing is run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors

from stackctl.core.errors import StateError, UsageError
from stackctl.migrate import expected_tables
from stackctl.migrate.runner import failures, history, plan, runner_lock
from stackctl.migrate.runner.session import Limits, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from stackctl.migrate.files import Migration
    from stackctl.migrate.runner.events import Event
    from stackctl.migrate.runner.session import Connection


@dataclass(frozen=True)
class Adoption:
    """`source`: the table that was read, or `--through`. `adopted`: recorded by this run, or to be recorded.

    `already`: in our history before. `without_file`: in the source, and no such file here. `doubtful`: what the adopted
    files make and the database lacks.
    """

    source: str
    adopted: tuple[str, ...]
    already: tuple[str, ...]
    without_file: tuple[str, ...]
    doubtful: tuple[str, ...]


def adopt(
    conn: Connection,
    migrations: Sequence[Migration],
    *,
    schema: str = "public",
    through: str | None = None,
    dry_run: bool = False,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    on_event: Callable[[Event], None] = lambda event: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Adoption:
    """Record as applied what `"SchemaMigration"` or `_prisma_migrations` names, or every file up to `through`.

    The checksums are those of the files as they are. Running it again changes nothing. With `dry_run` nothing is
    written and no lock is taken.

    Raises UsageError (`nothing-to-adopt`, `unknown-migration`), StateError (`schema-mismatch` when the database plainly
    lacks what the files make, and those of the runner's lock) and ServiceError (`permission-denied`, `read-only`).
    """
    plan.select_up_to(migrations, through)
    session = Session.begin(conn, schema, limits)
    try:
        if dry_run:
            return _adopt(session, migrations, through, dry_run=True)
        with runner_lock.hold_runner_lock(session, on_event, sleep):
            return _adopt(session, migrations, through, dry_run=False)
    except (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction) as error:
        raise failures.to_permission_error(error, failures.format_error(error), {}) from error
    except psycopg.OperationalError as error:
        if conn.closed:
            raise failures.to_connection_lost(failures.format_error(error), {}) from error
        raise


def _adopt(session: Session, migrations: Sequence[Migration], through: str | None, *, dry_run: bool) -> Adoption:
    source, finished = _read_finished(session, migrations, through)
    known = history.read_progress(session.conn, session.schema)
    chosen = [migration for migration in migrations if migration.name in finished]
    fresh = [migration for migration in chosen if migration.name not in known]
    missing = expected_tables.find_missing(session, chosen)
    # Another runner's own record is believed, unless it is plainly another schema's; a version on the command line is
    # a claim, and one too high would keep migrations from ever running.
    if fresh and (missing.all_tables or (missing.names and through is not None)):
        raise StateError(
            f"the database lacks what these files make: {plan.format_names(missing.names)}",
            code="schema-mismatch",
            hint="name an earlier version with --through, or the right database and database.schema",
            details={"missing": list(missing.names)},
        )
    if fresh and not dry_run:
        history.create_history(session)
        history.record_adopted(session, [(migration, finished[migration.name]) for migration in fresh])
    files = {migration.name for migration in migrations}
    return Adoption(
        source,
        adopted=tuple(migration.name for migration in fresh),
        already=tuple(migration.name for migration in chosen if migration.name in known),
        without_file=tuple(name for name in finished if name not in files and name not in known),
        doubtful=missing.names,
    )


def _read_finished(
    session: Session, migrations: Sequence[Migration], through: str | None
) -> tuple[str, dict[str, datetime | None]]:
    """Where it is known from what is applied, and the names with their times."""
    if through is not None:
        return "--through", {migration.name: None for migration in plan.select_up_to(migrations, through)}
    found: dict[str, dict[str, Any]] = history.read_other_histories(session.conn, session.schema)
    for table, names in found.items():
        if names:
            return table, names
    raise UsageError(
        f'schema {session.schema} holds no history to take over: neither "SchemaMigration" nor "_prisma_migrations"',
        code="nothing-to-adopt",
        hint="say with --through VERSION up to which file the database is migrated",
    )
