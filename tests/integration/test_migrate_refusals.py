"""Files, histories, databases, roles and poolers that do not fit: each is refused with its reason, or adopted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from stackctl.core.errors import AnswerNo, ServiceError, StateError
from stackctl.migrate.adopt import adopt
from stackctl.migrate.folder import discover
from stackctl.migrate.runner.history import read_status
from stackctl.migrate.runner.run import apply_migrations
from tests.backend import fetch, wait_for
from tests.migrations import Connection, catch_error, fetch_value, is_index_valid, list_applied, verify, write_files
from tests.pooler import Pooler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Connect
    from tests.standby import Standby


BUILD = "-- stackctl:outside-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS a_x ON a (x)"


@pytest.fixture
def conn(empty_db: str, connect: Connect) -> Connection:
    return connect(empty_db, autocommit=True)


# -- 9: files, history and database that do not belong together


def test_a_late_merged_older_file_is_refused_until_it_is_allowed(conn: Connection, tmp_path: Path) -> None:
    apply_migrations(conn, write_files(tmp_path, a="CREATE TABLE a ()", b="CREATE TABLE b ()"))
    (tmp_path / "20260101000001_late.sql").write_text("CREATE TABLE late ()")
    (tmp_path / "20260101000001_late.sql").rename(tmp_path / "20251231000000_late.sql")
    (tmp_path / "20260102000000_newer.sql").write_text("CREATE TABLE newer ()")
    migrations = discover(tmp_path)
    assert [(f.kind, f.name) for f in verify(conn, migrations)] == [("out-of-order", "20251231000000_late")]
    error = catch_error(conn, migrations)
    assert isinstance(error, StateError)
    assert (error.code, error.details["names"]) == ("out-of-order", ["20251231000000_late"])
    assert fetch_value(conn, "SELECT to_regclass('newer')") is None
    assert list_applied(apply_migrations(conn, migrations, out_of_order=True)) == ["late", "newer"]
    assert verify(conn, migrations) == ()


def test_an_applied_file_edited_or_deleted_and_a_database_ahead_are_findings(conn: Connection, tmp_path: Path) -> None:
    apply_migrations(conn, write_files(tmp_path, a="SELECT 1", b="SELECT 2", c="SELECT 3", d="SELECT 4"))
    (tmp_path / "20260101000001_a.sql").write_text("SELECT 5")
    (tmp_path / "20260101000002_b.sql").unlink()
    (tmp_path / "20260101000004_d.sql").unlink()
    migrations = discover(tmp_path)
    before = fetch(conn, "SELECT * FROM stackctl.migration_history")
    found = [(f.kind, f.name[15:]) for f in verify(conn, migrations)]
    assert sorted(found) == [("ahead", "d"), ("deleted", "b"), ("edited", "a")]
    error = catch_error(conn, migrations)
    assert (error.code, error.exit_code, error.details["names"]) == ("migration-edited", 5, [migrations[0].name])
    assert f"stackctl migrate repair {migrations[0].name}" in (error.hint or "")
    assert fetch(conn, "SELECT * FROM stackctl.migration_history") == before


BACKENDS = (
    'CREATE TABLE "SchemaMigration" (id text PRIMARY KEY DEFAULT gen_random_uuid(), "finishedAt" timestamp(3),'
    ' "migrationName" text NOT NULL UNIQUE);'
    """INSERT INTO "SchemaMigration" ("migrationName", "finishedAt")
       VALUES ('20260101000001_a', '2026-01-01 10:00'), ('20260101000002_b', NULL)"""
)
PRISMAS = """CREATE TABLE _prisma_migrations (id text, migration_name text, finished_at timestamptz,
  rolled_back_at timestamptz);
INSERT INTO _prisma_migrations VALUES ('1', '20260101000001_a', '2026-01-01 10:00+00', NULL),
  ('2', '20260101000002_b', NULL, now()), ('3', '20250101000000_gone', now(), NULL)"""


@pytest.mark.parametrize(
    ("history", "source", "without_file"),
    [
        (BACKENDS, "SchemaMigration", ()),
        (PRISMAS, "_prisma_migrations", ("20250101000000_gone",)),
        (None, "--through", ()),
    ],
)
def test_a_populated_database_is_adopted_before_it_is_migrated(
    conn: Connection, tmp_path: Path, history: str | None, source: str, without_file: tuple[str, ...]
) -> None:
    conn.execute("CREATE TABLE a (x int); INSERT INTO a VALUES (7)")
    migrations = write_files(tmp_path, a="CREATE TABLE a (x int)", b="ALTER TABLE a ADD COLUMN y int")
    through = None
    if history is None:
        through = "20260101000001"
        # A claim that goes too far would keep a migration from ever running.
        with pytest.raises(StateError) as caught:
            adopt(conn, migrations, through="20260101000002")
        assert caught.value.code == "schema-mismatch"
    else:
        conn.execute(history.encode())
        assert catch_error(conn, migrations).code == "not-adopted"
    assert fetch_value(conn, "SELECT count(*) FROM a") == 1
    adopted = adopt(conn, migrations, through=through)
    assert (adopted.source, adopted.adopted, adopted.without_file) == (source, (migrations[0].name,), without_file)
    assert adopt(conn, migrations, through=through).adopted == ()
    assert list_applied(apply_migrations(conn, migrations)) == ["b"]
    assert fetch(conn, "SELECT x, y FROM a") == [(7, None)]
    assert verify(conn, migrations) == ()


# -- 10: an enum value used too early, two schemas, a pooler, roles and databases that may not write


def test_an_enum_value_used_in_the_transaction_that_adds_it(conn: Connection, tmp_path: Path) -> None:
    conn.execute("CREATE TYPE mood AS ENUM ('good'); CREATE TABLE a (m mood)")
    add, use = "ALTER TYPE mood ADD VALUE 'fine'", "INSERT INTO a VALUES ('fine')"
    error = catch_error(conn, write_files(tmp_path, a=f"{add};\n{use}"))
    assert isinstance(error, AnswerNo)
    assert (error.details["sqlstate"], error.details["line"]) == ("55P04", 2)
    assert "into a migration of its own" in (error.hint or "")
    assert fetch_value(conn, "SELECT enum_range(NULL::mood)::text") == "{good}"
    assert list_applied(apply_migrations(conn, write_files(tmp_path, a=add, b=use))) == ["a", "b"]


def test_two_schemas_with_the_same_files_do_not_mix(
    conn: Connection, empty_db: str, connect: Connect, tmp_path: Path
) -> None:
    migrations = write_files(tmp_path, a='CREATE TABLE here (); CREATE TABLE /* SCHEMA_NAME_SENTINEL */."there" ()')
    apply_migrations(conn, migrations, schema="One; Two")
    assert read_status(conn, migrations, "two").pending == (migrations[0].name,)
    apply_migrations(conn, migrations, schema="two")
    found = conn.execute("SELECT schemaname, count(*) FROM pg_tables WHERE tablename IN ('here', 'there') GROUP BY 1")
    assert dict(found.fetchall()) == {"One; Two": 2, "two": 2}

    wanted = [f"s{number}" for number in range(6)]
    conns = [connect(empty_db, autocommit=True) for _ in wanted]
    conn.execute("DROP SCHEMA stackctl CASCADE")
    with ThreadPoolExecutor(6) as pool:
        results = list(
            pool.map(
                lambda pair: apply_migrations(pair[0], migrations, schema=pair[1]), zip(conns, wanted, strict=True)
            )
        )
    assert [list_applied(result) for result in results] == [["a"]] * 6


def test_an_invalid_index_of_another_schema_is_left_alone(conn: Connection, tmp_path: Path) -> None:
    conn.execute("CREATE SCHEMA two; CREATE TABLE a (x int); CREATE TABLE two.a (x int); INSERT INTO a VALUES (1), (1)")
    text = BUILD.replace("INDEX CON", "UNIQUE INDEX CON", 1)
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute("CREATE UNIQUE INDEX CONCURRENTLY a_x ON a (x)")
    apply_migrations(conn, write_files(tmp_path, a=text), schema="two")
    found = fetch(conn, "SELECT indexrelid::regclass::text, indisvalid FROM pg_index"
                        " WHERE indrelid IN ('a'::regclass, 'two.a'::regclass) ORDER BY 1")  # fmt: skip
    assert found == [("a_x", False), ("two.a_x", True)]


@pytest.mark.parametrize("pool", [{"size": 1}, {"size": 2}, {"size": 2, "turns": True}, {"size": 3, "turns": True}])
def test_a_transaction_pooling_proxy_is_detected_and_refused(
    conn: Connection, empty_db: str, tmp_path: Path, pool: dict[str, Any]
) -> None:
    migrations = write_files(tmp_path, a="CREATE TABLE a ()")
    with Pooler(empty_db, per="transaction", **pool) as pooler:
        with psycopg.connect(pooler.url, autocommit=True) as pooled:
            error = catch_error(pooled, migrations)
        assert isinstance(error, StateError)
        assert error.code == "transaction-pooler"
        assert "session mode" in (error.hint or "")
        with psycopg.connect(pooler.url, autocommit=True) as pooled, pytest.raises(StateError):
            adopt(pooled, migrations, through="20260101000001")
        # Reading needs no session of its own.
        with psycopg.connect(pooler.url, autocommit=True) as pooled:
            assert read_status(pooled, migrations).pending == (migrations[0].name,)
            assert verify(pooled, migrations) == ()
    assert fetch_value(conn, "SELECT to_regclass('a')") is None
    assert fetch_value(conn, "SELECT to_regnamespace('stackctl')") is None


def test_a_session_pooling_proxy_is_no_harm(conn: Connection, empty_db: str, tmp_path: Path) -> None:
    migrations = write_files(tmp_path, a="CREATE TABLE a (x int)", b=BUILD)
    with (
        Pooler(empty_db, per="session", size=3) as pooler,
        psycopg.connect(pooler.url, autocommit=True) as pooled,
    ):
        assert list_applied(apply_migrations(pooled, migrations)) == ["a", "b"]
    assert is_index_valid(conn, "a_x") is True


@pytest.fixture
def reader(conn: Connection) -> Iterator[str]:
    """A role that may log in and nothing else."""
    name = sql.Identifier(f"reader_{conn.info.backend_pid}")
    conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
    yield f"reader_{conn.info.backend_pid}"
    conn.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(name))


def test_a_read_only_role_runs_status_and_verify(conn: Connection, empty_db: str, tmp_path: Path, reader: str) -> None:
    migrations = write_files(tmp_path, a="CREATE TABLE a ()", b="CREATE TABLE b ()")
    for applied in (0, 1):
        with psycopg.connect(empty_db, user=reader, autocommit=True) as reading:
            reading.execute("SET default_transaction_read_only = on")
            assert len(read_status(reading, migrations).applied) == applied
            assert verify(reading, migrations) == ()
        apply_migrations(conn, migrations, to="20260101000001")


def test_a_role_without_the_right_to_create(conn: Connection, empty_db: str, tmp_path: Path, reader: str) -> None:
    migrations = write_files(tmp_path, a="CREATE TABLE a ()", b="CREATE TABLE b ()")
    for applied in (0, 1):
        with psycopg.connect(empty_db, user=reader, autocommit=True) as reading:
            for error in (catch_error(reading, migrations), catch_error(reading, migrations, schema="fresh")):
                assert isinstance(error, ServiceError)
                assert (error.code, error.exit_code) == ("permission-denied", 4)
                assert f'TO "{reader}"' in (error.hint or "") or "permission denied" in error.message
        assert fetch_value(conn, "SELECT to_regclass('b')") is None
        apply_migrations(conn, migrations, to="20260101000001")
        assert len(read_status(conn, migrations).applied) == 1, applied


def test_a_role_that_may_write_the_history_and_not_the_schema(
    conn: Connection, empty_db: str, tmp_path: Path, reader: str
) -> None:
    migrations = write_files(tmp_path, a="CREATE TABLE a ()", b="SELECT 1;\nCREATE TABLE b ()")
    apply_migrations(conn, migrations, to="20260101000001")
    grant = "GRANT ALL ON SCHEMA stackctl TO {0}; GRANT ALL ON stackctl.migration_history TO {0}"
    conn.execute(sql.SQL(grant).format(sql.Identifier(reader)))
    with psycopg.connect(empty_db, user=reader, autocommit=True) as reading:
        error = catch_error(reading, migrations)
    assert (error.code, error.exit_code, error.details["line"]) == ("permission-denied", 4, 2)
    assert "owns the schema" in (error.hint or "")


def test_a_database_that_is_read_only(empty_db: str, tmp_path: Path) -> None:
    with psycopg.connect(empty_db, autocommit=True, options="-c default_transaction_read_only=on") as reading:
        error = catch_error(reading, write_files(tmp_path, a="CREATE TABLE a ()"))
    assert isinstance(error, ServiceError)
    assert (error.code, error.exit_code) == ("read-only", 4)


def test_a_standby(standby: Standby, conn: Connection, connect: Connect, tmp_path: Path) -> None:
    migrations = write_files(tmp_path, a="CREATE TABLE a ()", b="CREATE TABLE b ()")
    apply_migrations(conn, migrations, to="20260101000001")
    url = standby.url(conn.info.dbname)

    def there() -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(url) as copy:
            return fetch_value(copy, "SELECT to_regclass('a') IS NOT NULL")
        return False

    wait_for(there)
    copy = connect(url, autocommit=True)
    error = catch_error(copy, migrations)
    assert isinstance(error, ServiceError)
    assert (error.code, error.exit_code) == ("read-only", 4)
    assert f"database {conn.info.dbname} is a standby" in error.message
    assert read_status(copy, migrations).pending == (migrations[1].name,)
    assert verify(copy, migrations) == ()
    copy.close()
