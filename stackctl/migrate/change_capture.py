"""Whether the database or the application marks changed rows, and which migrations that leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from stackctl.migrate.runner.history import read_status
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from stackctl.migrate.files import Migration

Connection: TypeAlias = "psycopg.Connection[Any]"
CaptureMode = Literal["triggers", "application"]

_SQL = load_statements(__file__)


def detect_capture(
    conn: Connection,
    migrations: Sequence[Migration],
    schema: str,
    setting: Literal["triggers", "application", "auto"],
    history_name: str = "",
) -> CaptureMode:
    """Who captures changes. `auto` finds out: triggers that are there count, and an empty database gets them.

    A database whose sequenced tables were there before stackctl, and without any trigger, is taken for one whose
    application marks its rows.
    """
    if setting != "auto":
        return setting
    row = conn.execute(_SQL["read_capture_facts"], {"schema": schema}).fetchone()
    assert row is not None
    triggers, sequenced, unique_stamps = row
    if triggers or not sequenced:
        return "triggers"
    applied = _find_applied(conn, migrations, schema, history_name)
    own = [migration.name for migration in migrations if migration.captures_changes]
    if applied.intersection(own):
        return "triggers"  # they were installed, and are gone
    # The columns can be ours only once the history has begun; a unique index on the stamps never is, and a migration
    # behind the one that captures means that this was left out before.
    found_there = not applied or unique_stamps or any(name > min(own, default=name) for name in applied)
    return "application" if found_there else "triggers"


def find_excluded(
    conn: Connection,
    migrations: Sequence[Migration],
    schema: str,
    setting: Literal["triggers", "application", "auto"],
    history_name: str = "",
) -> tuple[str, ...]:
    """Names of the migrations that `migrate up` does not apply because the application captures changes."""
    if detect_capture(conn, migrations, schema, setting, history_name) == "triggers":
        return ()
    applied = _find_applied(conn, migrations, schema, history_name)
    return tuple(m.name for m in migrations if m.captures_changes and m.name not in applied)


def describe_restore(conn: Connection, migrations: Sequence[Migration], schema: str) -> str:
    """What to do, in words, when triggers that capture changes are missing.

    A migration that was applied is not applied again as long as the history says so; these install what is missing
    and leave the rest.
    """
    applied = _find_applied(conn, migrations, schema)
    done = [migration.name for migration in migrations if migration.captures_changes and migration.name in applied]
    if not done:
        return "run `stackctl migrate up --bundled`"
    again = " ".join(f"--pending {name}" for name in done)
    return f"run `stackctl migrate repair {again}`; then run `stackctl migrate up --bundled`"


def _find_applied(conn: Connection, migrations: Sequence[Migration], schema: str, history_name: str = "") -> set[str]:
    """Those of the migrations that are applied; the history may keep others, too."""
    applied = {entry.name for entry in read_status(conn, migrations, schema, history_name=history_name).applied}
    return applied.intersection(migration.name for migration in migrations)
