"""Something else under the name of the history, and a folder that changes while its files are applied."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from stackctl.migrate.folder import discover
from stackctl.migrate.runner.history import read_status
from stackctl.migrate.runner.run import apply_migrations
from tests.backend import Project
from tests.migrations import Connection, catch_error, fetch_value, list_applied, write_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stackctl.migrate.runner.events import Event
    from tests.conftest import Connect

OURS = """CREATE TABLE stackctl.migration_history (
  target_schema text NOT NULL, name text NOT NULL, checksum text NOT NULL,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(), applied_at timestamptz,
  applied_by text NOT NULL DEFAULT session_user, duration_ms bigint NOT NULL DEFAULT 0,
  repeats integer NOT NULL DEFAULT 0, pieces_done integer NOT NULL, outside_piece integer,
  PRIMARY KEY (target_schema, name)
)"""
# What is there, and what is said of it.
FOREIGN = {
    "CREATE TABLE stackctl.migration_history (id int, name text)": "lacks the columns target_schema, checksum, ",
    OURS.replace(", outside_piece integer", ""): "lacks the column outside_piece",
    OURS.replace("checksum text", "checksum integer"): "has checksum as integer instead of text",
    OURS.replace("outside_piece integer", "outside_piece integer, mine integer NOT NULL"): "wants a value in mine",
    OURS.replace(",\n  PRIMARY KEY (target_schema, name)", ""): "has no unique key of target_schema and name",
    OURS.replace("(target_schema, name)", "(name)"): "has no unique key of target_schema and name",
    f"{OURS.replace('migration_history', 'kept')}; CREATE VIEW stackctl.migration_history AS TABLE stackctl.kept":
        "is a view",
    "CREATE SEQUENCE stackctl.migration_history": "is a sequence",
    "CREATE TYPE stackctl.migration_history AS (x int)": "is a type",
}  # fmt: skip


@pytest.fixture
def conn(empty_db: str, connect: Connect) -> Connection:
    return connect(empty_db, autocommit=True)


@pytest.mark.parametrize("made", FOREIGN, ids=FOREIGN.values())
def test_what_is_not_our_history_is_called_that_before_anything_runs(
    conn: Connection, tmp_path: Path, made: str
) -> None:
    conn.execute(f"CREATE SCHEMA stackctl; {made}".encode())
    error = catch_error(conn, write_files(tmp_path, a="CREATE TABLE a ()"))
    assert (error.code, error.exit_code, FOREIGN[made] in error.message) == ("history-not-ours", 5, True)
    assert error.hint
    assert fetch_value(conn, "SELECT to_regclass('a')") is None


def test_our_own_table_made_by_hand_will_do(conn: Connection, tmp_path: Path) -> None:
    """As a dump would make it again, with a column of somebody's."""
    conn.execute(f"CREATE SCHEMA stackctl; {OURS}; ALTER TABLE stackctl.migration_history ADD note text".encode())
    assert list_applied(apply_migrations(conn, write_files(tmp_path, a="CREATE TABLE a ()"))) == ["a"]


@pytest.mark.parametrize(
    "command", [("status",), ("up",), ("up", "--dry-run"), ("verify",), ("adopt",), ("adopt", "--through", "1")]
)
def test_every_command_says_so(conn: Connection, empty_db: str, tmp_path: Path, command: tuple[str, ...]) -> None:
    conn.execute("CREATE SCHEMA stackctl; CREATE VIEW stackctl.migration_history AS SELECT 1 AS x")
    write_files(tmp_path, a="CREATE TABLE a ()")
    command = tuple("20260101000001" if word == "1" else word for word in command)
    outcome = Project(tmp_path, empty_db).run("migrate", *command, "--dir", tmp_path)
    assert outcome.code == 5, outcome
    assert "stackctl.migration_history is a view" in outcome.stderr


def test_a_history_of_another_role_names_the_grant(conn: Connection, empty_db: str, tmp_path: Path) -> None:
    apply_migrations(conn, write_files(tmp_path, a="CREATE TABLE a ()"))
    role = f"{conn.info.dbname}_lowly"
    name = sql.Identifier(role)
    conn.execute(sql.SQL("CREATE ROLE {} LOGIN; GRANT CREATE ON SCHEMA public TO {}").format(name, name))
    try:
        migrations = write_files(tmp_path, a="CREATE TABLE a ()", b="CREATE TABLE b ()")
        with psycopg.connect(empty_db.replace("postgres@", f"{role}@"), autocommit=True) as lowly:
            assert read_status(lowly, migrations).pending == (migrations[1].name,)
            error = catch_error(lowly, migrations)
            assert (error.code, error.exit_code) == ("permission-denied", 4)
            assert error.hint
            assert f'GRANT SELECT, INSERT, UPDATE, DELETE ON "stackctl"."migration_history" TO "{role}"' in error.hint
            conn.execute(error.hint[error.hint.index("GRANT") :].encode())
            assert list_applied(apply_migrations(lowly, migrations)) == ["b"]
    finally:
        conn.execute(sql.SQL("DROP OWNED BY {}; DROP ROLE {}").format(name, name))


# -- a folder that changes meanwhile


def replace(folder: Path) -> None:
    new = folder / "new"
    new.write_text("CREATE TABLE replaced ()")
    new.rename(folder / "20260101000002_b.sql")


CHANGES: dict[str, Callable[[Path], object]] = {
    "added": lambda folder: (folder / "20260101000003_c.sql").write_text("CREATE TABLE c ()"),
    "edited": lambda folder: (folder / "20260101000002_b.sql").write_text("CREATE TABLE edited ()"),
    "removed": lambda folder: (folder / "20260101000002_b.sql").unlink(),
    "replaced": replace,
}


@pytest.mark.parametrize("how", CHANGES)
def test_what_was_read_is_what_runs_and_what_is_recorded(conn: Connection, tmp_path: Path, how: str) -> None:
    migrations = write_files(tmp_path, a="CREATE TABLE a ()", b="CREATE TABLE b ()")

    def change(event: Event) -> None:
        if (event.kind, event.name) == ("applied", migrations[0].name):
            CHANGES[how](tmp_path)

    assert list_applied(apply_migrations(conn, migrations, on_event=change)) == ["a", "b"]
    assert fetch_value(conn, "SELECT array_agg(relname::text ORDER BY 1) FROM pg_class WHERE relkind = 'r'"
                             " AND relnamespace = 'public'::regnamespace") == ["a", "b"]  # fmt: skip
    recorded = "SELECT array_agg(checksum ORDER BY name) FROM stackctl.migration_history"
    assert fetch_value(conn, recorded) == [migration.checksum for migration in migrations]
    status = read_status(conn, discover(tmp_path))
    assert status.pending == (("20260101000003_c",) if how == "added" else ())
    assert status.drifted == ((migrations[1].name,) if how in ("edited", "replaced") else ())
    assert status.unknown == ((migrations[1].name,) if how == "removed" else ())


@pytest.mark.parametrize("how", ["edited", "removed"])
def test_prisma_is_told_the_checksum_of_what_ran(conn: Connection, tmp_path: Path, how: str) -> None:
    conn.execute("CREATE TABLE _prisma_migrations (id text, checksum text, migration_name text, started_at timestamptz,"
                 " finished_at timestamptz, rolled_back_at timestamptz, applied_steps_count int)")  # fmt: skip
    file = tmp_path / "20260101000001_a" / "migration.sql"
    file.parent.mkdir()
    content = b"CREATE TABLE a ();\r\n"
    file.write_bytes(content)

    def change(event: Event) -> None:
        if event.kind == "started":
            file.unlink() if how == "removed" else file.write_text("CREATE TABLE edited ()")

    assert list_applied(apply_migrations(conn, discover(tmp_path), on_event=change)) == ["a"]
    assert fetch_value(conn, "SELECT checksum FROM _prisma_migrations") == hashlib.sha256(content).hexdigest()
