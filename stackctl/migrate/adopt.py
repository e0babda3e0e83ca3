"""Take over a database that was migrated by something else: its history becomes ours, and nothing is run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackctl.core.errors import StateError, UsageError
from stackctl.migrate import expected_tables
from stackctl.migrate.runner import failures, history, other_histories, plan, runner_lock
from stackctl.migrate.runner.other_histories import OtherHistory
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
    history_name: str = "",
    through: str | None = None,
    dry_run: bool = False,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    on_event: Callable[[Event], None] = lambda event: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Adoption:
    """Record as applied what the history of another tool names, or every file up to `through`.

    The checksums are those of the files as they are. Running it again changes nothing. With `dry_run` nothing is
    written and no lock is taken.

    Raises UsageError (`nothing-to-adopt`, `unknown-migration`), StateError (`schema-mismatch` when the database plainly
    lacks what the files make, `failed-elsewhere`, and those of the runner's lock) and ServiceError
    (`permission-denied`, `read-only`).
    """
    plan.select_up_to(migrations, through)
    session = Session.begin(conn, schema, limits, history_name)
    with failures.translating(conn):
        if dry_run:
            return _adopt(session, migrations, through, dry_run=True)
        with runner_lock.hold_runner_lock(session, on_event, sleep):
            return _adopt(session, migrations, through, dry_run=False)


def _adopt(session: Session, migrations: Sequence[Migration], through: str | None, *, dry_run: bool) -> Adoption:
    known = history.read_progress(session.conn, session.schema, session.history)
    source = _read_source(session, migrations, through)
    finished = source.finished
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
    return Adoption(
        source.table,
        adopted=tuple(migration.name for migration in fresh),
        already=tuple(migration.name for migration in chosen if migration.name in known),
        without_file=tuple(name for name in source.without_file if name not in known),
        doubtful=missing.names,
    )


def _read_source(session: Session, migrations: Sequence[Migration], through: str | None) -> OtherHistory:
    """Where it is known from what is applied. Raises as `adopt` does."""
    if through is not None:
        claimed: dict[str, datetime | None] = dict.fromkeys(m.name for m in plan.select_up_to(migrations, through))
        return OtherHistory("", "--through", claimed, (), (), readable=True)
    found = other_histories.read_other_histories(session.conn, migrations, session.schema)
    for other in found:
        if other.failed:
            raise StateError(
                f"{other.tool} holds as begun and not finished: {plan.format_names(other.failed)}",
                code="failed-elsewhere",
                hint=f"settle them with {other.tool}, or say with --through VERSION what is applied",
                details={"table": other.table, "names": list(other.failed)},
            )
        if other.finished or (other.without_file and other.readable):
            return other
    unreadable = ", ".join(f'{other.tool} ("{other.table}")' for other in found if not other.readable)
    raise UsageError(
        f"schema {session.schema} is migrated by {unreadable}, whose entries name no files of ours"
        if unreadable
        else f"schema {session.schema} holds no history to take over",
        code="nothing-to-adopt",
        hint="say with --through VERSION up to which file the database is migrated",
    )
