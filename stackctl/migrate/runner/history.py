"""What is applied: the table `stackctl.migration_history`, and how it compares with the files.

A set of migrations with a name of its own has a table of its own, `stackctl.migration_history_NAME`: two services that
share a schema keep theirs apart, each under the rights of its role.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from psycopg import errors, sql
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from stackctl.core.errors import ServiceError, StateError
from stackctl.core.sentences import format_count
from stackctl.migrate import files
from stackctl.migrate.runner import failures
from stackctl.migrate.runner.history_table import find_history_table
from stackctl.migrate.runner.session import format_history_table
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from stackctl.migrate.files import Migration
    from stackctl.migrate.runner.session import Connection, Session

_SQL = load_statements(__file__, "runner")


@dataclass(frozen=True)
class HistoryEntry:
    """A migration that is applied: when (with time zone), as what, by which role."""

    name: str
    applied_at: datetime
    checksum: str
    by: str


@dataclass(frozen=True)
class MigrationStatus:
    """`current`: the highest name applied. `drifted`: applied, and edited since. `unknown`: applied, and no file."""

    current: str | None
    pending: tuple[str, ...]
    applied: tuple[HistoryEntry, ...]
    drifted: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class MigrationProgress:
    """How far a migration is committed, and whether that makes it applied.

    `attempted`: the piece that was running outside a transaction, if one was. `checksum`: of the pieces done.
    """

    done: int = 0
    repeats: int = 0
    attempted: int | None = None
    applied: bool = False
    checksum: str = ""

    @property
    def begun(self) -> bool:
        """Whether anything of it is committed, or may be."""
        return self.done > 0 or self.repeats > 0 or self.attempted is not None


def read_status(
    conn: Connection,
    migrations: Sequence[Migration],
    schema: str = "public",
    excluded: Collection[str] = (),
    names_elsewhere: Collection[str] = (),
    history_name: str = "",
) -> MigrationStatus:
    """Compare the files with the history. Writes nothing, and a database never migrated has everything pending.

    What is `excluded` is not pending, and what another set has in that history (`names_elsewhere`) is left out.
    Raises ServiceError (`permission-denied`).
    """
    applied = {
        row["name"]: HistoryEntry(row["name"], row["applied_at"], row["checksum"], row["applied_by"])
        for row in _read_rows(conn, schema, history_name)
        if row["applied_at"] is not None and row["name"] not in names_elsewhere
    }
    for migration in migrations:
        # Where the last of what a baseline stands for is applied, it is, and none of them is unknown.
        if migration.stands_for and (migration.name in applied or migration.stands_for[-1] in applied):
            stood_for = {name: applied.pop(name, None) for name in migration.stands_for}
            last = stood_for[migration.stands_for[-1]]
            if last is not None:
                applied[migration.name] = HistoryEntry(migration.name, last.applied_at, migration.checksum, last.by)
    names = {migration.name for migration in migrations}
    return MigrationStatus(
        current=max(applied, default=None),
        pending=tuple(m.name for m in migrations if m.name not in applied and m.name not in excluded),
        applied=tuple(applied.values()),
        drifted=tuple(m.name for m in migrations if m.name in applied and applied[m.name].checksum != m.checksum),
        unknown=tuple(name for name in applied if name not in names),
    )


def read_progress(conn: Connection, schema: str, history_name: str = "") -> dict[str, MigrationProgress]:
    """How far each migration of the history has come. Raises ServiceError (`permission-denied`)."""
    return {
        row["name"]: MigrationProgress(
            row["pieces_done"],
            row["repeats"],
            row["outside_piece"],
            applied=row["applied_at"] is not None,
            checksum=row["checksum"],
        )
        for row in _read_rows(conn, schema, history_name)
    }


def list_history_names(conn: Connection) -> list[str]:
    """The names of all histories that stackctl keeps in the database and this role may read; empty for the default."""
    tables: list[str] = [table for (table,) in conn.execute(_SQL["list_histories"])]
    return [table.removeprefix(format_history_table("")).removeprefix("_") for table in tables if _is_ours(conn, table)]


def _is_ours(conn: Connection, table: str) -> bool:
    try:
        return find_history_table(conn, table) is not None
    except StateError:
        return False


def count_baselines(
    migrations: Sequence[Migration], begun: dict[str, MigrationProgress]
) -> dict[str, MigrationProgress]:
    """The progress, in which a baseline is applied where the last file that it stands for is, and none of them is."""
    begun = dict(begun)
    for migration in migrations:
        if migration.stands_for and (last := begun.get(migration.stands_for[-1])) and last.applied:
            for name in migration.stands_for:
                begun.pop(name, None)
            whole = MigrationProgress(len(migration.pieces), applied=True, checksum=migration.checksum)
            begun.setdefault(migration.name, whole)
    return begun


def refuse_baseline_behind(migration: Migration, names: Collection[str]) -> None:
    """Raises StateError (`baseline-behind`) where of the files that a baseline stands for some are applied."""
    there = [name for name in migration.stands_for if name in names]
    if there:
        raise StateError(
            f"{migration.path} stands for {format_count(len(migration.stands_for), 'file', 'files')}, "
            f"and of those {there[-1]} is the last here",
            code="baseline-behind",
            hint=f"first deploy the files as they were before, up to {migration.stands_for[-1]}, and run migrate up",
            details={"baseline": migration.name, "applied": there, "needs": migration.stands_for[-1]},
        )


def is_edited_halfway(migration: Migration, begun: MigrationProgress) -> bool:
    """Whether what is applied of a half-applied migration reads differently now."""
    return begun.checksum != files.compute_checksum(migration.pieces[: begun.done])


def refuse_edited_halfway(migration: Migration, begun: MigrationProgress) -> None:
    """Raises StateError (`migration-edited-halfway`)."""
    if is_edited_halfway(migration, begun):
        raise StateError(
            f"{migration.path} was edited in the part that is applied already (its first {begun.done} pieces)",
            code="migration-edited-halfway",
            hint="restore that part; what follows it may be changed",
            details={"file": str(migration.path), "pieces_done": begun.done},
        )


def create_history(session: Session) -> None:
    """Make the history's table and the schema where they are missing.

    Raises ServiceError (`permission-denied`), StateError (`history-not-ours`).
    """
    with session.conn.transaction():
        # Runners for other schemas hold other locks, and IF NOT EXISTS alone would let them collide.
        session.fetch_named("lock_history")
        for schema in ("stackctl", session.schema):
            if not session.fetch_named("schema_exists", schema=schema)[0]["exists"]:
                _require(session, "database", schema)
                session.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
                if schema == "stackctl":
                    session.run_named("grant_history_schema")
        if there := find_history_table(session.conn, session.history_table):
            there.require_writable()
            return
        _require(session, "schema", "stackctl")
        for name in ("create_history", "grant_history"):
            session.run_named(name)


def _require(session: Session, what: Literal["database", "schema"], schema: str) -> None:
    """Raises ServiceError `permission-denied` with the GRANT that is missing, before the server says less."""
    found = session.fetch_named("may_create", schema=schema)[0]
    if found[f"in_{what}"]:
        return
    role = sql.Identifier(found["role"])
    target = sql.Identifier(found["database"] if what == "database" else schema)
    grant = sql.SQL("GRANT CREATE ON {} {} TO {}").format(sql.SQL(what.upper()), target, role).as_string()
    made = f"schema {schema}" if what == "database" else f"stackctl.{session.history_table}"
    raise ServiceError(
        f"role {found['role']} may not create {made} in database {found['database']}",
        code="permission-denied",
        hint=f"let the database's owner run: {grant}",
    )


def record_progress(
    session: Session, migration: Migration, reached: MigrationProgress, duration_ms: int
) -> MigrationProgress:
    """Write the history row, and the other runner's where there is one, within the transaction in hand if there is one.

    Tells whether that makes it applied. Raises AppliedElsewhere.
    """
    from stackctl.migrate.runner import other_runners  # which those that only read the history do not need

    whole = reached.done == len(migration.pieces)
    applied = whole and reached.attempted is None
    in_hand = session.conn.info.transaction_status == TransactionStatus.INTRANS
    with nullcontext() if in_hand else session.conn.transaction():
        found = session.fetch_together(
            "reset_role",  # a file may SET one that must not write here
            "record_progress",
            "find_other_runners",
            name=migration.name,
            checksum=migration.checksum if whole else files.compute_checksum(migration.pieces[: reached.done]),
            applied=applied,
            duration_ms=duration_ms,
            repeats=reached.repeats,
            pieces_done=reached.done,
            outside_piece=reached.attempted,
        )
        if applied:
            other_runners.record_applied(session, migration, found)
    return MigrationProgress(reached.done, reached.repeats, reached.attempted, applied)


def record_adopted(session: Session, finished: Sequence[tuple[Migration, datetime | None]]) -> None:
    """Write as applied, as the files are now, what another runner has applied, with the time where it is known."""
    with session.conn.transaction():
        session.run_named(
            "record_adopted",
            names=[migration.name for migration, _ in finished],
            checksums=[migration.checksum for migration, _ in finished],
            finished=[at for _, at in finished],
            pieces=[len(migration.pieces) for migration, _ in finished],
        )


def _read_rows(conn: Connection, schema: str, history_name: str) -> list[dict[str, Any]]:
    table = format_history_table(history_name)
    try:
        if find_history_table(conn, table) is None:
            return []
        with conn.cursor(row_factory=dict_row) as cursor:
            read = sql.SQL(_SQL["read_history"]).format(sql.Identifier("stackctl", table))
            return cursor.execute(read, {"schema": schema}).fetchall()
    except errors.InsufficientPrivilege as error:
        raise failures.to_permission_error(error, failures.format_error(error), {}) from error
