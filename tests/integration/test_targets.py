"""External databases: what is created in them, what is refused, and who may do what."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg import errors, sql

from stackctl.core.errors import StateError
from stackctl.sync.targets import sqlite
from tests.backend import (
    MAPPINGS,
    MINE,
    OTHER,
    Connection,
    Project,
    add_many_users,
    add_user,
    differences,
    failures,
    fetch,
    one,
    populate,
    sequence,
    settle,
    sync,
    wait_until_blocked,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stackctl.core.errors import StackctlError
    from stackctl.postgres import embedded
    from stackctl.sync.pipeline import Pipeline
    from tests.conftest import Connect

OWN_TABLES = {"_stack_sync_metadata", "_stack_sync_owner", "_stack_sync_place", "_stack_sync_mapping"}


def refusal(pipeline: Pipeline) -> StackctlError:
    errors_ = [result.error for result in sync(pipeline) if result.error is not None]
    assert len(errors_) == 1
    return errors_[0]


def tables(url: str, connect: Connect) -> set[str]:
    query = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    return {row[0] for row in fetch(connect(url, autocommit=True), query)}


@pytest.fixture
def role(server: embedded.EmbeddedServer, external_db: str) -> Iterator[str]:
    """The URL of `external_db` for a role that was given nothing."""
    name = f"role_{external_db.rpartition('external_')[2][:12]}"
    with psycopg.connect(server.url(), autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    yield external_db.replace("postgres@", f"{name}@")
    with psycopg.connect(external_db, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
        conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_consumers_may_read_and_not_write(
    project: Project, source: Connection, external_db: str, role: str, connect: Connect
) -> None:
    populate(source)
    settle(project.postgres(MINE, external_db).pipeline())
    consumer = connect(role, autocommit=True)
    for table in (*MAPPINGS, "_stack_sync_metadata"):
        assert fetch(consumer, f"SELECT * FROM {table}")
        for statement in (f"DELETE FROM {table}", f"INSERT INTO {table} DEFAULT VALUES", f"TRUNCATE {table}",
                          f"CREATE INDEX ON {table} ((1))"):  # fmt: skip
            with pytest.raises(errors.InsufficientPrivilege):
                consumer.execute(statement)
    granted = fetch(consumer, "SELECT DISTINCT a.privilege_type FROM pg_class AS c, aclexplode(relacl) AS a"
                    " WHERE relnamespace = 'public'::regnamespace AND a.grantee = 0")  # fmt: skip
    assert granted == [("SELECT",)]


def test_what_is_created(project: Project, source: Connection, external_db: str, connect: Connect) -> None:
    settle(project.postgres(MINE, external_db, mappings=["users"]).pipeline())
    assert tables(external_db, connect) == {"users", *OWN_TABLES}
    columns = fetch(
        connect(external_db),
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute"
        " WHERE attrelid = '_stack_sync_metadata'::regclass AND attnum > 0 ORDER BY attnum",
    )
    assert columns == [
        ("mapping_name", "text", True),
        ("last_synced_sequence_id", "bigint", True),
        ("updated_at", "timestamp without time zone", True),
    ]


def test_a_writer_without_rights_is_an_error_of_that_database(
    project: Project, source: Connection, external_db: str, role: str, connect: Connect
) -> None:
    populate(source)
    pipeline = project.postgres(MINE, role).sqlite(MINE).pipeline()
    sequence(pipeline)
    error = refusal(pipeline)
    assert error.code == "permission-denied"
    assert "analytics" in error.message
    assert tables(external_db, connect) == set()
    assert [f.database for f in failures(pipeline)] == ["analytics"]


DIFFERENT = {
    "CREATE TABLE users (id uuid PRIMARY KEY, name text)": ["display_name is missing", "server_metadata is missing"],
    "CREATE TABLE users (LIKE right_one); ALTER TABLE users ADD PRIMARY KEY (display_name)": ["unique index on (id)"],
    "CREATE TABLE users (LIKE right_one INCLUDING ALL); ALTER TABLE users ALTER id TYPE text":
        ["id is text, not uuid"],
    "CREATE TABLE users (LIKE right_one INCLUDING ALL, extra int NOT NULL)": ["extra must not be null"],
    "CREATE TABLE users (LIKE right_one INCLUDING ALL); ALTER TABLE users ALTER client_metadata TYPE text,"
    " DROP COLUMN is_anonymous": ["client_metadata is text, not jsonb", "is_anonymous is missing"],
    "CREATE TABLE users (LIKE right_one INCLUDING ALL); ALTER TABLE users ALTER signed_up_at TYPE timestamp(0)":
        ["signed_up_at is timestamp(0) without time zone, not timestamp"],
    "CREATE DOMAIN filled AS int NOT NULL; CREATE TABLE users (LIKE right_one INCLUDING ALL, extra filled)":
        ["extra must not be null"],
    "CREATE TABLE users (LIKE right_one); CREATE UNIQUE INDEX ON users (id, lower(display_name))":
        ["unique index on (id)"],
    "CREATE TABLE users (LIKE right_one); CREATE UNIQUE INDEX ON users (id) WHERE is_anonymous":
        ["unique index on (id)"],
    "CREATE TABLE users (LIKE right_one); CREATE UNIQUE INDEX broken ON users (id);"
    " UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken'::regclass": ["unique index on (id)"],
}  # fmt: skip


@pytest.mark.parametrize("statements", DIFFERENT)
def test_another_table_of_that_name(
    statements: str, project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    """The error names the differences, and nothing was made beside that table."""
    outside = connect(external_db, autocommit=True)
    populate(source)
    pipeline = project.postgres(MINE, external_db, mappings=["users"]).pipeline()
    sequence(pipeline)
    compiled = {c.mapping.name: c for c in pipeline.compile_mappings(pipeline.databases[MINE][0])}
    outside.execute(compiled["users"].create_table.replace('"users"', "right_one"))
    for statement in statements.split("; "):
        outside.execute(statement)  # type: ignore[arg-type]
    before = tables(external_db, connect)
    error = refusal(pipeline)
    assert error.code == "table-differs"
    assert "users" in error.message
    for difference in DIFFERENT[statements]:
        assert difference in error.message
    assert tables(external_db, connect) == before
    assert fetch(outside, "SELECT * FROM users") == []
    outside.execute("DROP TABLE users")
    settle(pipeline)
    assert differences(pipeline) == []


def test_columns_of_the_consumers_own(project: Project, source: Connection, external_db: str, connect: Connect) -> None:
    """What needs no value of ours may be there."""
    populate(source)
    pipeline = project.postgres(MINE, external_db).pipeline()
    settle(pipeline)
    outside = connect(external_db, autocommit=True)
    outside.execute("CREATE DOMAIN filled AS text NOT NULL DEFAULT 'red'")
    outside.execute(
        "ALTER TABLE users ADD note text, ADD seen int NOT NULL DEFAULT 0,"
        " ADD twice int NOT NULL GENERATED ALWAYS AS (2) STORED, ADD row_number int GENERATED ALWAYS AS IDENTITY,"
        " ADD row_id bigint GENERATED BY DEFAULT AS IDENTITY, ADD colour filled, ALTER signed_up_at TYPE timestamp(6),"
        " DROP CONSTRAINT users_pkey, ADD UNIQUE (id) INCLUDE (display_name)"
    )
    populate(source)
    settle(project.pipeline())
    assert differences(pipeline) == []


@pytest.mark.parametrize("inside", ["INSERT INTO gone VALUES (1)", "UPDATE users SET gone = 1"])
def test_a_trigger_that_fits_the_table_no_more_in_sqlite(inside: str, project: Project, source: Connection) -> None:
    pipeline = project.sqlite(MINE).pipeline()
    settle(pipeline)
    file = sqlite3.connect(project.directory / "copy.db")
    file.execute(f"CREATE TRIGGER own AFTER INSERT ON users BEGIN {inside}; END")
    file.close()
    add_user(source)
    sequence(pipeline)
    error = refusal(pipeline)
    assert error.code == "table-differs"
    assert "gone" in error.message


def test_another_table_of_that_name_in_sqlite(project: Project, source: Connection) -> None:
    populate(source)
    pipeline = project.sqlite(MINE, mappings=["users"]).pipeline()
    sequence(pipeline)
    file = sqlite3.connect(project.directory / "copy.db")
    file.execute("CREATE TABLE users (id TEXT PRIMARY KEY, display_name BLOB, extra TEXT NOT NULL)")
    file.commit()
    error = refusal(pipeline)
    assert error.code == "table-differs"
    for difference in ("display_name is BLOB, not TEXT", "primary_email is missing", "extra must not be null"):
        assert difference in error.message
    assert file.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall() == [("users",)]
    file.execute("DROP TABLE users")
    file.close()
    settle(pipeline)
    assert differences(pipeline) == []


def test_a_table_with_more_columns_that_may_be_null_is_fine(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    pipeline = project.postgres(MINE, external_db).sqlite(MINE).pipeline()
    settle(pipeline)
    statement = "ALTER TABLE users ADD COLUMN note text"
    connect(external_db, autocommit=True).execute(statement)
    with sqlite3.connect(project.directory / "copy.db") as file:
        file.execute(statement)
    file.close()
    populate(source)
    settle(pipeline)
    assert differences(pipeline) == []


def test_two_tenancies_on_one_database_by_configuration(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    pipeline = project.postgres(MINE, external_db).postgres(OTHER, external_db, "other").pipeline()
    with pytest.raises(StateError) as refused:
        sync(pipeline)
    assert (refused.value.code, refused.value.exit_code) == ("shared-database", 5)
    assert str(MINE) in refused.value.message
    assert str(OTHER) in refused.value.message
    assert tables(external_db, connect) == set()


def test_two_tenancies_on_one_database_by_another_spelling(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    populate(source, MINE)
    populate(source, OTHER)
    name, host = external_db.rpartition("/external_")[2].split("?host=")
    respelled = f"host={host.split('&')[0].replace('%2F', '/')} port=5432 user=postgres dbname=external_{name}"
    assert respelled != external_db
    settle(project.postgres(MINE, external_db, mappings=["users"]).pipeline())
    del project.settings["tenancies"]
    pipeline = project.postgres(OTHER, respelled + " application_name=x", mappings=["teams"]).pipeline()
    sequence(pipeline)
    error = refusal(pipeline)
    assert (error.code, error.exit_code) == ("other-tenancy", 5)
    assert tables(external_db, connect) == {"users", *OWN_TABLES}
    assert one(connect(external_db), "SELECT count(*) FROM _stack_sync_metadata") == 1


def test_two_tenancies_on_one_file(project: Project, source: Connection) -> None:
    (project.directory / "link.db").symlink_to("copy.db")
    with pytest.raises(StateError, match="one external database"):
        sync(project.sqlite(MINE).sqlite(OTHER, "link.db").pipeline())
    del project.settings["tenancies"]
    settle(project.sqlite(MINE, mappings=["users"]).pipeline())
    (project.directory / "hard.db").hardlink_to(project.directory / "copy.db")
    del project.settings["tenancies"]
    error = refusal(project.sqlite(OTHER, "hard.db", mappings=["teams"]).pipeline())
    assert error.code == "other-tenancy"
    with sqlite3.connect(project.directory / "copy.db") as file:
        names = {name for (name,) in file.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    file.close()
    assert names == {"users", *OWN_TABLES}


def test_the_operated_database_is_no_target(project: Project, source: Connection, migrated_db: str) -> None:
    before = one(source, "SELECT count(*) FROM pg_class")
    error = refusal(project.postgres(MINE, migrated_db).pipeline())
    assert (error.code, error.exit_code) == ("operated-database", 5)
    assert one(source, "SELECT count(*) FROM pg_class") == before


def test_cursors_without_an_owner_are_taken_over(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    """As the backend's own engine left them: it goes on from there, and the database is ours from then on."""
    made = populate(source)
    pipeline = project.postgres(MINE, external_db).pipeline()
    settle(pipeline)
    outside = connect(external_db, autocommit=True)
    outside.execute("DROP TABLE _stack_sync_owner")
    outside.execute("DELETE FROM users")
    add_user(source)
    settle(project.pipeline())
    assert one(outside, "SELECT count(*) FROM users") == 1  # only what came after the cursor
    assert one(outside, "SELECT tenancy_id FROM _stack_sync_owner") == MINE
    assert made.user


def test_two_engines_create_the_tables_at_once(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    populate(source)
    pipeline = project.postgres(MINE, external_db).pipeline()
    sequence(pipeline)
    holder = connect(external_db)
    holder.execute("SELECT pg_advisory_xact_lock(hashtextextended('stackctl.target', 0))")
    results: list[list[Any]] = []
    pipelines = [project.pipeline() for _ in range(3)]
    threads = [threading.Thread(target=lambda each=each: results.append(sync(each))) for each in pipelines]
    for thread in threads:
        thread.start()
    watcher = connect(external_db, autocommit=True)
    wait_until_blocked(watcher)
    holder.commit()
    for thread in threads:
        thread.join()
    assert [r.error for result in results for r in result] == [None] * 3
    assert differences(pipeline) == []


# -- SQLite


def test_sqlite_in_a_folder_that_is_missing(project: Project, source: Connection) -> None:
    error = refusal(project.sqlite(MINE, "no/such/copy.db").pipeline())
    assert "no/such/copy.db" in error.message
    assert not (project.directory / "no").exists()


def test_a_file_that_is_no_database(project: Project, source: Connection) -> None:
    path = project.directory / "copy.db"
    path.write_text("just some text, and long enough to be taken for a header of something else" * 20)
    error = refusal(project.sqlite(MINE).pipeline())
    assert "not a database" in error.message
    assert path.read_text().startswith("just some text")


@pytest.mark.parametrize("when", ["new", "synced"])
def test_sqlite_locked_by_another_program(
    when: str, project: Project, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.05)
    populate(source)
    pipeline = project.sqlite(MINE).pipeline()
    sequence(pipeline)
    if when == "synced":
        settle(pipeline)
        add_user(source)
        sequence(pipeline)
    other = sqlite3.connect(project.directory / "copy.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    error = refusal(pipeline)
    assert error.code == "lock-timeout"
    assert "locked" in error.message
    other.execute("ROLLBACK")
    other.close()
    settle(pipeline)
    assert differences(pipeline) == []


def test_sqlite_is_read_while_it_is_written(project: Project, source: Connection) -> None:
    """A reader in the middle of a transaction keeps its rows, and does not hold the sync up."""
    add_many_users(source, 100)
    pipeline = project.sqlite(MINE).pipeline()
    settle(pipeline)
    reader = sqlite3.connect(project.directory / "copy.db", isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM users").fetchone() == (100,)
    add_user(source)
    settle(pipeline)
    sync(pipeline, full=True)
    assert reader.execute("SELECT count(*) FROM users").fetchone() == (100,)
    reader.execute("COMMIT")
    assert reader.execute("SELECT count(*) FROM users").fetchone() == (101,)
    reader.close()


def test_a_new_copy_and_the_files_beside_it_are_private(
    project: Project, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    populate(source)
    begun: list[int] = []
    connect = sqlite3.connect

    def connect_to(path: Path, **options: Any) -> sqlite3.Connection:
        begun.append(stat.S_IMODE(path.stat().st_mode))
        return connect(path, **options)

    monkeypatch.setattr(sqlite3, "connect", connect_to)
    before = os.umask(0o022)
    try:
        settle(project.sqlite(MINE).pipeline())
    finally:
        os.umask(before)
    assert begun[0] == 0o600, "before anything is written"
    reader = connect(project.directory / "copy.db")  # keeps the others in being
    reader.execute("SELECT count(*) FROM users").fetchall()
    found = {file.name: stat.S_IMODE(file.stat().st_mode) for file in project.directory.glob("copy.db*")}
    assert found == {"copy.db": 0o600, "copy.db-wal": 0o600, "copy.db-shm": 0o600}
    reader.close()
    (project.directory / "copy.db").chmod(0o640)
    add_user(source)
    settle(project.pipeline())
    assert stat.S_IMODE((project.directory / "copy.db").stat().st_mode) == 0o640


def test_values_in_sqlite_have_their_types(project: Project, source: Connection) -> None:
    made = populate(source)
    source.execute('UPDATE "ProjectUser" SET "signedUpAt" = \'2024-02-29 12:34:56.789\'')
    settle(project.sqlite(MINE).pipeline())
    with sqlite3.connect(project.directory / "copy.db") as file:
        (row,) = file.execute("SELECT id, signed_up_at, is_anonymous, typeof(is_anonymous), profile_image_url,"
                              " typeof(server_metadata) FROM users").fetchall()  # fmt: skip
        ((millis, kind),) = file.execute("SELECT expires_at_millis, typeof(expires_at_millis) FROM team_invitations")
    file.close()
    assert row == (str(made.user), "2024-02-29 12:34:56.789", 0, "integer", None, "text")
    assert (millis, kind) == (1893456000000, "integer")


def test_a_path_with_odd_characters(project: Project, source: Connection) -> None:
    populate(source)
    folder: Path = project.directory / "a b ü%20?#"
    folder.mkdir()
    settle(project.sqlite(MINE, "a b ü%20?#/copy.db").pipeline())
    assert (folder / "copy.db").exists()
    assert quote(str(folder)) != str(folder)


def test_a_disk_that_is_full_under_sqlite(project: Project, source: Connection) -> None:
    """The limit on the size of a file stands in for the disk's: nothing is half done, and the next sync goes on."""
    populate(source)
    pipeline = project.sqlite(MINE).pipeline()
    settle(pipeline)
    add_many_users(source, 20_000)
    sequence(pipeline, batch_size=20_000)
    code = f"ulimit -f 1024; exec {sys.executable} -m stackctl sync --all --json"
    limited = subprocess.run(["bash", "-c", code], cwd=project.directory, capture_output=True, text=True)
    assert limited.returncode == 1, limited.stderr
    assert "out-of-resources" in limited.stdout
    with sqlite3.connect(project.directory / "copy.db") as file:
        ((users, cursor),) = file.execute(
            "SELECT count(*), (SELECT last_synced_sequence_id FROM _stack_sync_metadata WHERE mapping_name = 'users')"
            " FROM users"
        )
    file.close()
    assert users == one(source, 'SELECT count(*) FROM "ProjectUser" WHERE "sequenceId" <= %s', cursor) < 20_001
    settle(pipeline)
    assert differences(pipeline) == []


@pytest.mark.parametrize("when", ["first load", "later"])
def test_sqlite_refuses_what_is_not_a_number(when: str, project: Project, source: Connection) -> None:
    """It would keep null for it; other doubles, infinity among them, are kept."""
    folder = project.directory / "mappings"
    folder.mkdir()
    (folder / "numbers.yaml").write_text("""
name: numbers
source: ProjectUser
target: numbers
key: {id: projectUserId}
columns: {id: uuid, ratio: double null}
select: |
  SELECT u."projectUserId" AS id, (u."clientMetadata"->>'ratio')::float8 AS ratio FROM "ProjectUser" AS u
  WHERE u."tenancyId" = :tenancy_id
""")
    project.settings["mappings_dir"] = "mappings"
    pipeline = project.sqlite(MINE).pipeline()
    if when == "later":
        settle(pipeline)
    poison = add_user(source, clientMetadata={"ratio": "NaN"})
    for ratio in ("Infinity", "-Infinity", "0.1", None):
        add_user(source, clientMetadata={"ratio": ratio})
    sequence(pipeline)
    assert str(poison) in refusal(pipeline).message
    with sqlite3.connect(project.directory / "copy.db") as file:
        found = {ratio for (ratio,) in file.execute("SELECT ratio FROM numbers")}
    file.close()
    assert found == {float("inf"), float("-inf"), 0.1, None}


def test_sqlite_tells_when_another_wrote_the_cursor(project: Project, source: Connection) -> None:
    """Without that, a page read ahead could be older than what another engine sent."""
    pipeline = project.sqlite(MINE).pipeline()
    settle(pipeline)
    (database,) = pipeline.databases[MINE]
    (users,) = pipeline.compile_mappings(database, ["users"])
    first, second = pipeline.open_target(database), pipeline.open_target(database)
    with first.lock_cursor(users) as cursor:
        first.advance_cursor(users, cursor)
        version = first.read_cursor_version(users)
    with first.lock_cursor(users):
        assert first.read_cursor_version(users) == version
    with second.lock_cursor(users) as cursor:
        second.advance_cursor(users, cursor)
    with first.lock_cursor(users):
        assert first.read_cursor_version(users) != version
    first.close()
    second.close()


BROKEN_TRIGGER = """
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM gone(); RETURN NEW; END';
CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION f()
"""


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("DROP SCHEMA public CASCADE", "search_path"),
        ("ALTER TABLE _stack_sync_metadata RENAME COLUMN last_synced_sequence_id TO mine", "restore"),
        ("ALTER TABLE _stack_sync_owner RENAME COLUMN tenancy_id TO mine", "restore"),
        ("ALTER TABLE users RENAME COLUMN display_name TO mine", "display_name"),
        (BROKEN_TRIGGER, "restore"),
    ],
)
def test_what_is_lacking_there_is_no_migration_of_ours(
    project: Project, source: Connection, external_db: str, connect: Connect, damage: Any, says: str
) -> None:
    project.postgres(MINE, external_db, mappings=["users"])
    settle(project.pipeline())
    connect(external_db, autocommit=True).execute(damage)
    add_user(source)
    sequence(project.pipeline())
    outcome = project.run("sync", "--all")
    assert outcome.code == 1
    assert says in outcome.stderr
    assert "migrat" not in outcome.stderr + project.run("doctor").stdout.split(f"{MINE}/analytics")[-1]
