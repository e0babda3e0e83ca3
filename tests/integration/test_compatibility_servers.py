"""`check` on files that change a whole server, and on files that try to get out of it."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import errors

from stackctl.core.errors import AnswerNo
from stackctl.migrate.compatibility.scratch_server import ScratchDatabases, read_server_objects
from stackctl.migrate.compatibility.substitutes import substitute_statements
from stackctl.migrate.files import parse_migration
from stackctl.postgres import embedded
from stackctl.postgres.binaries import find_binaries
from tests.integration.test_compatibility_check import (
    READ,
    Repository,
    found,
    prepared,
    quick_servers,
    repository,
    try_out,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.postgres.libpq import Connection

__all__ = ["prepared", "quick_servers", "repository", "try_out"]  # fixtures

OUTSIDE = "-- stackctl:outside-transaction\n"
SPLIT = f"\n-- stackctl:split\n{OUTSIDE}"


OBJECTS = {
    "roles": """
        CREATE ROLE app LOGIN; CREATE ROLE owner; GRANT owner TO app; ALTER ROLE app SET search_path = public;
        COMMENT ON ROLE app IS 'it'; GRANT SELECT ON more TO app; ALTER TABLE more OWNER TO owner""",
    "acting": """
        CREATE ROLE actor; GRANT pg_monitor, pg_read_all_data TO actor; SET ROLE actor; CREATE TEMP TABLE t (id int);
        RESET ROLE; DROP ROLE IF EXISTS nobody;
        ALTER DEFAULT PRIVILEGES FOR ROLE actor GRANT SELECT ON TABLES TO app""",
    "database": """
        DO $$ BEGIN
            EXECUTE format('ALTER DATABASE %I SET statement_timeout = 7000', current_database());
            EXECUTE format('COMMENT ON DATABASE %I IS ''it''', current_database());
        END $$""",
    "production": """
        ALTER DATABASE backend SET log_min_duration_statement = 100; CREATE ROLE guest;
        GRANT CONNECT ON DATABASE backend TO guest; ALTER ROLE guest SET app.tenant = 'x'""",
    "dump": """
        CREATE EXTENSION IF NOT EXISTS plpgsql WITH SCHEMA pg_catalog; COMMENT ON EXTENSION plpgsql IS 'language';
        COMMENT ON SCHEMA public IS 'standard public schema'; SET session_replication_role = 'origin';
        ALTER ROLE deployer RENAME TO releaser; ALTER TABLE more OWNER TO postgres; GRANT ALL ON more TO postgres;
        CREATE SCHEMA own; CREATE VIEW own.v AS SELECT 1; ALTER VIEW own.v OWNER TO "The App";
        CREATE FUNCTION own.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION own.f() OWNER TO "The App" """,
    "tablespaces": f"""SELECT 1{SPLIT}CREATE TABLESPACE fast LOCATION '/mnt/fast'{SPLIT}
        ALTER TABLESPACE fast RENAME TO faster
-- stackctl:split
        CREATE TABLE quick (id int) TABLESPACE faster; CREATE TABLE old (id int) TABLESPACE of_the_dba""",
    "databases": f"{OUTSIDE}CREATE DATABASE reports",
    "publications": """
        CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert');
        ALTER PUBLICATION everything SET (publish = 'insert, delete'); CREATE PUBLICATION one FOR TABLE more;
        CREATE PUBLICATION ours FOR TABLES IN SCHEMA public""",
    "attributes": """
        CREATE ROLE strong REPLICATION BYPASSRLS CREATEDB CREATEROLE;
        ALTER ROLE strong PASSWORD 'x' VALID UNTIL 'infinity'""",
    "slot": f"{OUTSIDE}SELECT pg_create_logical_replication_slot('slot', 'pgoutput')",
    "physical slot": "SELECT pg_create_physical_replication_slot('physical')",
    "extension": "CREATE EXTENSION vector; CREATE TABLE e (v vector(3)); DROP TABLE e; DROP EXTENSION vector",
    "extension in a block": "DO $$ BEGIN CREATE EXTENSION IF NOT EXISTS vector; END $$",
}


@pytest.mark.parametrize("name", ["tablespaces", "databases"])
def test_one_such_file_is_enough_for_servers_apart(repository: Repository, try_out: Any, name: str) -> None:
    repository.write(m06_server=OBJECTS[name])
    assert found(try_out()) == []


def test_what_belongs_to_the_whole_server_is_tried_in_every_state(repository: Repository, try_out: Any) -> None:
    """Each file is applied alone, on rows, and for the command, which has to find the fault among them."""
    files = {f"m{number}_file": sql for number, sql in zip(range(20, 60, 2), OBJECTS.values(), strict=False)}
    drop = "-- stackctl:allow drop-column it is unused\nALTER TABLE account DROP email"
    repository.write(**files, m29_drop=drop)
    report = try_out(command=f"{READ} 'SELECT email FROM account'")
    assert found(report) == [("29_drop", 1, "command-fails")]
    assert {measured.migration.name[12:14] for measured in report.statements} == {*(name[1:3] for name in files), "29"}
    assert report.roles == ("deployer", "The App")


# Without what a file holds for the database alone, and for a session outside a transaction.
@pytest.mark.parametrize(
    "sql",
    [
        "CREATE ROLE one",
        "CREATE ROLE two; GRANT pg_monitor TO two",
        "ALTER ROLE postgres SET statement_timeout = 7000",
        "ALTER DATABASE stackctl_base SET statement_timeout = 7000",
        "COMMENT ON DATABASE stackctl_base IS 'x'",
        "REVOKE CONNECT ON DATABASE stackctl_base FROM PUBLIC",
        "CREATE DATABASE other",
        "SELECT pg_create_physical_replication_slot('slot')",
        "SELECT pg_create_logical_replication_slot('logical', 'pgoutput')",
    ],
)
def test_what_changes_the_server_is_seen(session: Connection, sql: str) -> None:
    before = read_server_objects(session)
    session.execute("CREATE TABLE IF NOT EXISTS own (id int); GRANT SELECT ON own TO PUBLIC")
    session.execute("CREATE PUBLICATION p; DROP PUBLICATION p; SET statement_timeout = 0")
    assert read_server_objects(session) == before
    session.execute(sql.encode())
    assert read_server_objects(session) != before


def test_what_the_base_made_of_the_server_can_be_taken_away(repository: Repository, try_out: Any) -> None:
    repository.commit(
        m06_server=f"CREATE ROLE app; GRANT SELECT ON more TO app; CREATE ROLE boss; GRANT app TO boss{SPLIT}"
        "CREATE TABLESPACE fast LOCATION '/mnt/fast'\n-- stackctl:split\nCREATE TABLE quick (id int) TABLESPACE fast"
    ).write(
        m07_away="DROP OWNED BY app; DROP ROLE app; ALTER TABLE quick SET TABLESPACE pg_default"
        f"{SPLIT}DROP TABLESPACE fast"
    )
    assert {finding.rule for finding in try_out().findings} == {"drop-owned", "table-rewrite"}


def test_settings_of_the_bases_database_are_those_of_every_state(repository: Repository, try_out: Any) -> None:
    repository.commit(
        m06_setting="DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET app.tenant = ''a''', current_database()); END $$"
    ).write(m07_uses="SELECT 1 / (current_setting('app.tenant') = 'a')::int")
    report = try_out(command=f"{READ} \"SELECT 1 / (current_setting('app.tenant') = 'a')::int\"")
    assert (found(report), report.run.verdict) == ([], "passes")


def test_a_role_made_in_the_base_costs_no_second_server(
    repository: Repository, try_out: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit(m06_role="CREATE ROLE app; GRANT SELECT ON more TO app, guest").write(
        m07_new="GRANT SELECT ON account TO app; GRANT SELECT ON account TO another"
    )
    monkeypatch.setattr("stackctl.migrate.compatibility.check._NeedsServersApartError", AssertionError)
    report = try_out(command="true")
    assert (found(report), report.roles) == ([], ("guest", "another"))


@pytest.fixture
def file(environment: Path) -> Path:
    """One that everybody may make."""
    directory = Path(tempfile.mkdtemp(prefix="open-", dir=environment))
    directory.chmod(0o777)
    return directory / "escaped"


# What a superuser may do, and what would make one.
ESCAPES = [
    "COPY more FROM PROGRAM 'touch {file}'",
    "COPY more TO PROGRAM 'touch {file}'",
    "COPY more TO '{file}'",
    "COPY more FROM '/etc/passwd'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_read_binary_file('PG_VERSION')",
    "SELECT pg_ls_dir('/')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(1, '{file}')",
    "CREATE FUNCTION system(cstring) RETURNS int AS 'libc.so.6', 'system' LANGUAGE c",
    "LOAD '/tmp/x.so'",
    "SET session_preload_libraries = '/tmp/x'",
    "ALTER ROLE postgres SET session_preload_libraries = '/tmp/x'",
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET dynamic_library_path = ''/tmp''', current_database()); END $$",
    "ALTER SYSTEM SET archive_command = 'touch {file}'",
    "CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION f()",
    "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1' PUBLICATION p WITH (connect = false)",
    "GRANT pg_execute_server_program TO postgres",
    "GRANT pg_read_server_files TO postgres",
    "GRANT pg_create_subscription TO postgres",
    "CREATE ROLE mighty SUPERUSER",
    "ALTER ROLE postgres SUPERUSER",
    "ALTER ROLE stackctl_admin RENAME TO mine",
    "ALTER ROLE stackctl_admin PASSWORD 'x'",
    "ALTER ROLE stackctl_admin SET search_path = 'evil'",
    "ALTER ROLE ALL SET search_path = 'evil'",
    "SET ROLE stackctl_admin",
    "SET SESSION AUTHORIZATION stackctl_admin",
    "GRANT stackctl_admin TO postgres",
    "GRANT stackctl_bootstrap TO postgres",
    "UPDATE pg_authid SET rolsuper = true",
    "DO $$ BEGIN PERFORM set_config('role', 'stackctl_bootstrap', false); END $$",
    "CREATE DATABASE mine OWNER stackctl_admin",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION f() OWNER TO stackctl_admin",
    "CREATE TABLESPACE x LOCATION '/tmp'",
]


@pytest.fixture(scope="module")
def session(prepared: dict[bool, Path], environment: Path) -> Iterator[Connection]:
    """A connection as the files get it."""
    directory = Path(tempfile.mkdtemp(prefix="session-", dir=environment))
    directory.chmod(0o711)
    (directory / "shared").mkdir(mode=0o711)
    subprocess.run(["cp", "-a", prepared[False] / "data", directory / "shared"], check=True)
    databases = ScratchDatabases(directory, trust=False, apart=False)
    databases.create("base")
    with databases.connect("base") as conn:
        conn.execute("CREATE TABLE more (id int)")
        yield conn
    embedded.attach(directory / "shared").release()


@pytest.mark.parametrize("sql", ESCAPES)
def test_a_session_does_not_get_out(session: Connection, file: Path, sql: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        session.execute(sql.replace("{file}", str(file)).encode())
    assert not file.exists()


@pytest.mark.parametrize(
    "sql",
    [
        "COPY more TO PROGRAM 'touch {file}'",
        f"{OUTSIDE}CREATE TABLESPACE x LOCATION '/tmp' /* . */ WITH (random_page_cost = 1)",
    ],
)
def test_a_file_that_needs_a_superuser_is_a_finding(repository: Repository, try_out: Any, file: Path, sql: str) -> None:
    repository.write(m06_escape=sql.replace("{file}", str(file)))
    (finding,) = try_out(rows=0).findings
    assert (finding.rule, finding.severity) == ("needs-superuser", "breaking")
    assert "--trust" in finding.suggestion
    assert not file.exists()


def test_a_tablespace_leaves_no_power_behind(repository: Repository, try_out: Any, file: Path) -> None:
    repository.write(
        m06_space=f"{OUTSIDE}CREATE TABLESPACE fast LOCATION '/mnt/fast'\n-- stackctl:split\n"
        f"CREATE TEMP TABLE was AS SELECT 1; COPY was TO PROGRAM 'touch {file}'",
    )
    assert found(try_out(rows=0)) == [("06_space", 4, "needs-superuser")]
    assert not file.exists()
    repository.write(m06_space=f"{OUTSIDE}CREATE TABLESPACE fast LOCATION '/mnt/fast'")
    query = "SELECT rolsuper OR current_setting('is_superuser')::bool FROM pg_roles WHERE rolname = current_user"
    report = try_out(rows=0, command=f'test "$({find_binaries() / "psql"} -qXAt "$DATABASE_URL" -c "{query}")" = f')
    assert (found(report), report.run.verdict) == ([], "passes")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p",
        "CREATE PUBLICATION p FOR ALL TABLES; CREATE ROLE a SUPERUSER",
        f"{OUTSIDE}CREATE TABLESPACE fast LOCATION '/mnt/fast'\n-- stackctl:split\nSELECT 1",
    ],
)
def test_trusted_files_run_as_superuser(repository: Repository, try_out: Any, file: Path, sql: str) -> None:
    repository.write(m06_trusted=f"{sql}; COPY more TO PROGRAM 'cat > {file}'")
    assert found(try_out(trust=True)) == []
    assert file.exists()


def test_a_base_that_needs_a_superuser(repository: Repository, try_out: Any) -> None:
    repository.commit(m06_copy="COPY more TO PROGRAM 'cat'").write(m07_new="SELECT 1")
    with pytest.raises(AnswerNo) as caught:
        try_out()
    assert caught.value.code == "base-broken" and "--trust" in (caught.value.hint or "")
    assert found(try_out(trust=True)) == []


@pytest.mark.parametrize(
    ("names", "seen"), [((), "sk_live_1 yes"), (("WANTED",), " yes"), (("PATH",), " ")], ids=["all", "some", "none"]
)
def test_what_the_command_inherits(
    repository: Repository, try_out: Any, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], seen: str
) -> None:
    monkeypatch.setenv("STRIPE_API_KEY", "sk_live_1")
    monkeypatch.setenv("WANTED", "yes")
    report = try_out(command='echo "$STRIPE_API_KEY $WANTED"; test -n "$PATH$DATABASE_URL" && exit 3', run_env=names)
    assert (report.run.before.exit_code, report.run.before.tail) == (3, seen)


@pytest.mark.parametrize(
    ("sql", "tried"),
    [
        ("create  tablespace \"a b\"\nowner x location '/mnt' with (seq_page_cost = 1)",
         "create  tablespace \"a b\"\nowner x location '' with (seq_page_cost = 1)"),
        ("CREATE SUBSCRIPTION s CONNECTION 'host=h password=p' PUBLICATION a, b WITH (copy_data = false)",
         "CREATE SUBSCRIPTION s CONNECTION 'dbname=nowhere' PUBLICATION a, b WITH (connect = false, slot_name = NONE)"),
        ("CREATE PUBLICATION p FOR ALL TABLES", "CREATE PUBLICATION p"),
        ("CREATE PUBLICATION p FOR TABLE t", "CREATE PUBLICATION p FOR TABLE t"),
        ("CREATE TABLESPACE a LOCATION '/x' || (SELECT 1)", "CREATE TABLESPACE a LOCATION '/x' || (SELECT 1)"),
    ],
)  # fmt: skip
def test_what_is_run_in_place_of_a_statement(tmp_path: Path, sql: str, tried: str) -> None:
    migration = parse_migration(sql + ";\nSELECT 1", tmp_path / "x.sql", "20260101000000_x")
    (piece,) = substitute_statements(migration, trust=False).pieces
    assert [one.sql for one in piece.statements] == [tried, "SELECT 1"]
