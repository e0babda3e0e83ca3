"""Our sessions: what our work needs of them, whatever a role or a database is set up with, and nothing left behind.

Through a real pgbouncer, in transaction mode and with so few sessions that everybody shares them.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from stackctl.core.errors import ServiceError
from stackctl.postgres import session
from stackctl.postgres.connect import connect as connect_ours
from stackctl.postgres.errors import translate_error
from stackctl.sync import service
from stackctl.sync.changes.wakeup import open_listener
from stackctl.sync.stop import Stop
from tests.backend import (
    DEADLINE,
    MINE,
    Connection,
    Project,
    add_user,
    differences,
    fetch,
    one,
    populate,
    settle,
    wait_for,
)
from tests.pgbouncer import PgBouncer

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from stackctl.core.errors import StackctlError
    from stackctl.postgres.embedded import EmbeddedServer
    from stackctl.sync.engine.database_sync import DatabaseResult
    from tests.conftest import Connect, Databases

POOL = 2  # sessions of each database, for everybody

# Of a session: everything that was set in it, prepared in it, locked by it or listened for.
LEFT_BEHIND = """
SELECT name, setting FROM pg_settings WHERE source = 'session' AND name NOT IN (
    'application_name', 'client_encoding', 'transaction_isolation', 'transaction_read_only', 'transaction_deferrable')
UNION ALL SELECT 'prepared', statement FROM pg_prepared_statements
UNION ALL SELECT 'listens', pg_listening_channels()
UNION ALL SELECT 'locks', locktype FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'
UNION ALL SELECT 'temporary', relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()
"""
# What cuts long work, or has it see the wrong rows.
HOSTILE = {
    "statement_timeout": "150ms", "lock_timeout": "1ms", "idle_in_transaction_session_timeout": "150ms",
    "transaction_timeout": "300ms", "idle_session_timeout": "150ms", "default_transaction_isolation": "serializable",
    "DateStyle": "German", "IntervalStyle": "sql_standard", "TimeZone": "Asia/Tokyo", "extra_float_digits": "-5",
    "jit": "on",
}  # fmt: skip
OURS = {
    "row_security": "off", "statement_timeout": "0", "lock_timeout": "30s", "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "1h", "transaction_isolation": "read committed", "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601", "TimeZone": "UTC", "extra_float_digits": "1", "search_path": '"Sales, 1"',
    "jit": "off",
}  # fmt: skip


@pytest.fixture(scope="module")
def pgbouncer(server: EmbeddedServer, environment: Path) -> Iterator[PgBouncer]:
    with PgBouncer(server.url(), environment, size=POOL) as running:
        yield running


@pytest.fixture
def pooled(tmp_path: Path, pgbouncer: PgBouncer, migrated_db: str, external_db: str) -> Project:
    """A project that reaches both sides through the pooler."""
    return Project(tmp_path, pgbouncer.url(migrated_db)).postgres(MINE, pgbouncer.url(external_db))


def list_left_behind(url: str) -> list[tuple[Any, ...]]:
    """What is left in every session of the pool, which are had all at once."""
    with psycopg.connect(url, prepare_threshold=None) as first, psycopg.connect(url, prepare_threshold=None) as second:
        found = [(fetch(conn, "SELECT pg_backend_pid()"), fetch(conn, LEFT_BEHIND)) for conn in (first, second)]
    assert len({str(pid) for pid, _ in found}) == POOL
    return [row for _, rows in found for row in rows]


class Runner:
    """`run` in a thread; what it complained of."""

    def __init__(self, project: Project) -> None:
        self.complaints: list[str] = []
        self._stop = Stop()
        self._pipeline = project.pipeline()
        self._ended: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        def failed(result: DatabaseResult) -> None:
            if result.error is not None:
                self.complaints.append(result.error.message)

        def trouble(error: StackctlError) -> None:
            self.complaints.append(error.message)

        reports = service.Reports(warned=self.complaints.append, trouble=trouble, synced=failed)
        try:
            service.run(self._pipeline, self._stop, claim_limit=4, reports=reports)
        except BaseException as error:  # noqa: BLE001 - raised where the thread is waited for
            self._ended.append(error)

    def wait_for_end(self) -> None:
        """Until it has ended by itself."""
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()

    def __enter__(self) -> Runner:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._ended:
            raise self._ended[0]


# -- behind a pooler in transaction mode


def test_run_through_a_pooler_copies_everything_and_leaves_nothing_behind(
    pooled: Project, pgbouncer: PgBouncer, migrated_db: str, external_db: str, source: Connection, connect: Connect
) -> None:
    before = list_left_behind(pgbouncer.url(migrated_db)), list_left_behind(pgbouncer.url(external_db))
    assert before == ([], [])
    outside = connect(external_db, autocommit=True)
    with Runner(pooled) as runner:
        # More than psycopg asks for before it prepares a statement.
        for number in range(1, 12):
            populate(source)
            wait_for(lambda n=number: fetch(outside, "SELECT to_regclass('users')") != [(None,)]
                     and one(outside, "SELECT count(*) FROM users") == n)  # fmt: skip
        source.execute('DELETE FROM "Team"')
        wait_for(lambda: one(outside, "SELECT count(*) FROM teams") == 0)
        # While it runs, others are lent the same sessions.
        during = list_left_behind(pgbouncer.url(migrated_db)), list_left_behind(pgbouncer.url(external_db))
    assert runner.complaints == []
    assert (during, list_left_behind(pgbouncer.url(migrated_db)), list_left_behind(pgbouncer.url(external_db))) == (
        ([], []), [], [],
    )  # fmt: skip
    assert differences(pooled.pipeline()) == []


def test_every_command_of_the_pipeline_works_through_a_pooler(
    pooled: Project, pgbouncer: PgBouncer, migrated_db: str, external_db: str, source: Connection
) -> None:
    rows = populate(source)
    for command in (
        ["sequence"], ["poll"], ["sync", "--all"], ["sync", "--all", "--full"], ["verify", "--repair"], ["status"],
        ["backfill", "users"], ["run", "--max-duration", "1s"], ["queue", "list"], ["fuse", "show"],
        ["users", "show", rows.user], ["refunds", "list"], ["migrate", "status"], ["doctor"],
    ):  # fmt: skip
        outcome = pooled.run(*command)
        assert (command, outcome.code, outcome.stderr if outcome.code else "") == (command, 0, "")
    assert "pooler: one is in front of the server" in outcome.stdout
    assert list_left_behind(pgbouncer.url(migrated_db)) + list_left_behind(pgbouncer.url(external_db)) == []
    assert differences(pooled.pipeline()) == []


def test_a_pooler_that_restarts_is_outlived(
    pooled: Project, server: EmbeddedServer, environment: Path, migrated_db: str, external_db: str,
    source: Connection, connect: Connect, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(service, "FIRST_PAUSE", 0.05)
    outside = connect(external_db, autocommit=True)
    with PgBouncer(server.url(), environment, size=POOL) as own:
        pooled.settings["database"]["url"] = own.url(migrated_db)
        pooled.postgres(MINE, own.url(external_db))
        settle(pooled.pipeline())
        with Runner(pooled):
            wait_for(
                lambda: fetch(source, "SELECT 1 FROM stackctl.sweep WHERE last_swept_at > now() - interval '1 hour'")
            )
            for number in range(1, 4):
                add_user(source)
                own.stop()
                add_user(source)
                own.start()
                wait_for(lambda n=number: one(outside, "SELECT count(*) FROM users") == 2 * n)


def test_notifications_through_a_pooler_are_refused_by_name(
    pooled: Project, pgbouncer: PgBouncer, migrated_db: str, source: Connection
) -> None:
    pooled.sync_settings(wakeup="notify")
    refused = pooled.run("run", "--max-duration", "20s", "--json")
    assert (refused.code, refused.lines[-1]["error"]["code"]) == (5, "transaction-pooler")
    assert "sync.wakeup: poll" in refused.lines[-1]["error"]["hint"]
    doctor = pooled.run("doctor", "--json")
    (found,) = [check for check in doctor.json["checks"] if check["name"] == "pooler"]
    assert (doctor.code, found["status"], "sync.wakeup: poll" in found["hint"]) == (1, "error", True)
    assert list_left_behind(pgbouncer.url(migrated_db)) == []


def test_a_pooler_in_session_mode_has_sessions_to_listen_in(
    project: Project, server: EmbeddedServer, environment: Path, migrated_db: str, source: Connection
) -> None:
    with PgBouncer(server.url(), environment, size=4, pool_mode="session") as sessions:
        project.settings["database"]["url"] = sessions.url(migrated_db)
        pipeline = project.pipeline()
        with pipeline.open_session() as conn:
            listener = open_listener(conn, ["ProjectUser"], pipeline.open_session)
            conn.execute("SELECT pg_notify('stackctl', '')")
            assert not listener.wait(0, Stop())  # its own is none
            add_user(source)
            assert listener.wait(30, Stop())


def test_what_a_pooler_cuts_names_its_setting(
    pooled: Project, server: EmbeddedServer, environment: Path, migrated_db: str, source: Connection
) -> None:
    with (
        PgBouncer(server.url(), environment, query_timeout=1) as impatient,
        pytest.raises(ServiceError, match="query timeout") as caught,
    ):
        pooled.settings["database"]["url"] = impatient.url(migrated_db)
        with pooled.pipeline().open_session() as conn:
            conn.execute("SELECT pg_sleep(60)")
    assert (caught.value.code, "query_timeout (pgbouncer.ini)" in (caught.value.hint or "")) == (
        "connection-lost",
        True,
    )


def test_what_the_server_ends_idle_names_its_setting() -> None:
    """Of an error made up: whether the server's own is still read depends on the moment."""
    error = translate_error(psycopg.errors.IdleSessionTimeout("terminating connection due to idle-session timeout"))
    assert (error.code, "idle_session_timeout" in (error.hint or "")) == ("connection-lost", True)


# -- whatever a role or a database is set up with

DAWDLE: LiteralString = """
CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.5); RETURN NEW; END $$
"""


def set_up(conn: Connection, url: str, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        conn.execute(
            sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                sql.Identifier(str(conninfo_to_dict(url)["dbname"])), sql.Identifier(name), sql.Literal(value)
            )
        )


def supported(conn: Connection, settings: dict[str, str]) -> dict[str, str]:
    known = {name for (name,) in fetch(conn, "SELECT name FROM pg_settings")}
    return {name: value for name, value in settings.items() if name in known}


def hostile(conn: Connection, way: str) -> dict[str, str]:
    """Without the limit of what a pooler keeps idle: it may lend a session that the server is just ending."""
    settings = supported(conn, HOSTILE)
    if way == "pooled":
        settings.pop("idle_session_timeout", None)
    return settings


MANY = "SELECT repeat('x', 1000) FROM generate_series(1, 50000)"


def copy_out(conn: Connection) -> Generator[Any]:
    with conn.cursor() as cursor, cursor.copy(f"COPY ({MANY}) TO STDOUT") as copy:
        yield from copy


def stream(conn: Connection) -> Generator[Any]:
    with conn.cursor() as cursor:
        yield from cursor.stream(MANY, size=10)


@pytest.mark.parametrize("way", ["direct", "pooled"])
def test_a_transaction_has_our_settings_whatever_the_database_has(
    way: str, empty_db: str, databases: Databases, pgbouncer: PgBouncer, connect: Connect
) -> None:
    admin = connect(databases.url("postgres"), autocommit=True)
    set_up(admin, empty_db, settings := hostile(admin, way))
    assert len(settings) >= len(HOSTILE) - 2
    with connect_ours(empty_db if way == "direct" else pgbouncer.url(empty_db), schema="Sales, 1") as conn:
        assert conn.is_shared == (way == "pooled")
        wanted = supported(admin, OURS)

        def read() -> dict[str, Any]:
            return {name: one(conn, f"SELECT current_setting('{name}')") for name in wanted}

        assert read() == wanted  # of statements alone
        with conn.transaction():
            assert read() == wanted
            with conn.transaction():
                assert read() == wanted
        with conn.pipeline(), conn.transaction():
            assert read() == wanted
        with conn.cursor() as cursor:
            assert list(cursor.stream("SELECT current_setting('row_security')")) == [("off",)]
            with cursor.copy("COPY (SELECT current_setting('row_security')) TO STDOUT") as copy:
                assert b"".join(copy) == b"off\n"
        # Neither what is left half read nor a failure leaves anything open.
        for reading in (copy_out(conn), stream(conn)):
            next(reading)
            reading.close()
            assert read() == wanted
        for attempt in (conn.execute, conn.cursor().execute):
            with pytest.raises(psycopg.errors.DivisionByZero):
                attempt("SELECT 1 / 0")
        assert read() == wanted
        # Longer than any of the limits, in one statement and between two.
        with conn.transaction():
            conn.execute("SELECT pg_sleep(0.2)")
            assert one(connect(databases.url("postgres"), True), "SELECT 1 FROM pg_sleep(0.2)") == 1
            conn.execute("SELECT 1")


@pytest.mark.parametrize("way", ["direct", "pooled"])
def test_a_setting_that_only_newer_servers_have_is_left_out(
    way: str, empty_db: str, pgbouncer: PgBouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(session.WORK, "of_postgresql_99", "0")
    monkeypatch.setitem(session.SINCE, "of_postgresql_99", 990000)
    with connect_ours(empty_db if way == "direct" else pgbouncer.url(empty_db)) as conn:
        assert one(conn, "SELECT current_setting('of_postgresql_99', true)") is None
        assert one(conn, "SELECT current_setting('lock_timeout')") == "30s"


@pytest.mark.parametrize("way", ["direct", "pooled"])
def test_a_first_load_takes_longer_than_both_sides_allow(
    way: str, project: Project, pooled: Project, migrated_db: str, external_db: str, source: Connection,
    connect: Connect,
) -> None:  # fmt: skip
    """The target takes its time, so that the source waits in its transaction; and the other way round."""
    outside = connect(external_db, autocommit=True)
    chosen = pooled if way == "pooled" else project.postgres(MINE, external_db)
    settle(chosen.pipeline())
    add_user(source)
    for conn in (source, outside):
        conn.execute(DAWDLE)
    outside.execute("CREATE TRIGGER dawdle BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION dawdle()")
    source.execute('CREATE TRIGGER dawdle BEFORE UPDATE ON "ProjectUser" FOR EACH ROW EXECUTE FUNCTION dawdle()')
    for conn, url in ((source, migrated_db), (outside, external_db)):
        set_up(conn, url, hostile(conn, way))
        # The sessions that a pooler keeps are those of before.
        conn.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    settle(chosen.pipeline())
    assert one(outside, "SELECT count(*) FROM users") == 1
    outcome = chosen.run("sync", "--all", "--full", "--json")
    assert (outcome.code, outcome.stderr) == (0, "")


# -- rows that a policy hides


@pytest.fixture
def role(source: Connection, migrated_db: str) -> Iterator[str]:
    """The URL of a role that may do everything in the backend's database, and owns nothing there."""
    name = f"worker_{source.info.backend_pid}"
    quoted = sql.Identifier(name)
    source.execute(sql.SQL("CREATE ROLE {} LOGIN").format(quoted))
    for schema in ("public", "stackctl"):
        for rights in (
            "USAGE, CREATE ON SCHEMA {}", "ALL ON ALL TABLES IN SCHEMA {}", "ALL ON ALL SEQUENCES IN SCHEMA {}",
        ):  # fmt: skip
            statement = sql.SQL(cast("LiteralString", f"GRANT {rights} TO {{}}"))
            source.execute(statement.format(sql.Identifier(schema), quoted))
    yield make_conninfo(migrated_db, user=name)
    source.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(quoted))


def test_a_policy_that_hides_rows_is_refused_and_empties_no_copy(
    project: Project, role: str, external_db: str, source: Connection, connect: Connect
) -> None:
    project.settings["database"]["url"] = role
    project.postgres(MINE, external_db)
    populate(source)
    settle(project.pipeline())
    source.execute(
        'ALTER TABLE "ProjectUser" ENABLE ROW LEVEL SECURITY;'
        'CREATE POLICY nobody ON "ProjectUser" AS RESTRICTIVE USING (false);'
        'UPDATE "ProjectUser" SET "displayName" = \'changed\''
    )
    for command in (["sequence"], ["sync", "--all"], ["sync", "--all", "--full"], ["verify"], ["run"]):
        outcome = project.run(*command, "--json")
        error = outcome.lines[-1]["error"]
        assert (command, outcome.code, error["code"]) == (command, 4, "row-security")
        assert '"ProjectUser"' in error["message"]
        assert "BYPASSRLS" in error["hint"]
    assert one(connect(external_db), "SELECT count(*) FROM users") == 1
    doctor = project.run("doctor", "--json")
    (found,) = [check for check in doctor.json["checks"] if check["name"] == "row security"]
    assert (doctor.code, found["status"], '"ProjectUser"' in found["message"]) == (1, "error", True)
    # Of a table that no mapping reads, policies are nobody's business here.
    source.execute('ALTER TABLE "ProjectUser" DISABLE ROW LEVEL SECURITY')
    source.execute("CREATE TABLE notes (); ALTER TABLE notes ENABLE ROW LEVEL SECURITY")
    settle(project.pipeline())
    assert one(connect(external_db), "SELECT display_name FROM users") == "changed"


def test_a_policy_that_comes_while_it_runs_deletes_nothing(
    project: Project, role: str, external_db: str, source: Connection, connect: Connect
) -> None:
    project.settings["database"]["url"] = role
    project.postgres(MINE, external_db)
    populate(source)
    outside = connect(external_db, autocommit=True)
    settle(project.pipeline())
    with pytest.raises(ServiceError) as caught, Runner(project) as runner:
        wait_for(lambda: fetch(source, "SELECT 1 FROM stackctl.sweep WHERE last_swept_at > now() - interval '1 hour'"))
        source.execute(
            'ALTER TABLE "ProjectUser" ENABLE ROW LEVEL SECURITY; UPDATE "ProjectUser" SET "displayName" = \'changed\''
        )
        runner.wait_for_end()
    assert (caught.value.code, '"ProjectUser"' in caught.value.message) == ("row-security", True)
    assert one(outside, "SELECT count(*) FROM users") == 1


# -- no connection left


def test_a_server_that_is_full_is_not_a_firewall(project: Project, source: Connection, role: str) -> None:
    name = sql.Identifier(str(conninfo_to_dict(role)["user"]))
    source.execute(sql.SQL("ALTER ROLE {} CONNECTION LIMIT 0").format(name))
    project.settings["database"]["url"] = role
    outcome = project.run("fuse", "show", "--json")
    error = outcome.json["error"]
    assert (outcome.code, error["code"]) == (4, "too-many-connections")
    assert "max_connections" in error["hint"]
    assert "firewall" not in error["hint"]


def test_a_pooler_that_is_full_is_not_a_firewall(
    project: Project, server: EmbeddedServer, environment: Path, migrated_db: str, connect: Connect
) -> None:
    with PgBouncer(server.url(), environment, max_client_conn=3) as full:
        with suppress(psycopg.OperationalError):
            while True:
                connect(full.url(migrated_db))
        project.settings["database"]["url"] = full.url(migrated_db)
        assert project.run("fuse", "show", "--json").json["error"]["code"] == "too-many-connections"
