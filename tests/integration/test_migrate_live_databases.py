"""What goes wrong with migrations on live databases, case by case.

Killed runs: test_migrate_kill_points.py; what does not fit together or may not be written: test_migrate_refusals.py.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from stackctl.core.errors import AnswerNo, ConfigError, StateError
from stackctl.migrate.folder import discover
from stackctl.migrate.runner import retry
from stackctl.migrate.runner.history import read_status
from stackctl.migrate.runner.run import apply_migrations
from stackctl.migrate.runner.session import Limits
from tests.backend import fetch, wait_for
from tests.migrations import (
    Connection,
    catch_error,
    fetch_value,
    is_index_valid,
    list_applied,
    list_kinds,
    verify,
    write_files,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stackctl.migrate.runner.events import Event
    from tests.conftest import Connect

# CONCURRENTLY waits ten times as long.
IMPATIENT = Limits(lock_timeout=timedelta(milliseconds=20))


@pytest.fixture
def conn(empty_db: str, connect: Connect) -> Connection:
    return connect(empty_db, autocommit=True)


@pytest.fixture
def other(empty_db: str, connect: Connect) -> Connection:
    """The application's connection."""
    return connect(empty_db, autocommit=True)


# -- 1: twenty runners at once


def test_twenty_runners_at_once_on_a_concurrently_migration(conn: Connection, empty_db: str, connect: Connect,
                                                            tmp_path: Path) -> None:  # fmt: skip
    migrations = write_files(
        tmp_path,
        a="CREATE TABLE a AS SELECT generate_series(1, 50000) AS x",
        b="-- stackctl:outside-transaction\nCREATE INDEX CONCURRENTLY a_x ON a (x)",
        c="INSERT INTO a VALUES (-1)",
    )
    conns = [connect(empty_db, autocommit=True) for _ in range(20)]
    start = threading.Barrier(20)

    def run(one: Connection) -> tuple[list[str], list[str]]:
        events: list[Event] = []
        start.wait()
        applied = list_applied(
            apply_migrations(one, migrations, limits=Limits(lock_wait=timedelta(seconds=60)), on_event=events.append)
        )
        return applied, list_kinds(events)

    with ThreadPoolExecutor(20) as pool:
        results = sorted(pool.map(run, conns))
    assert [applied for applied, _ in results] == [[]] * 19 + [["a", "b", "c"]]
    assert all(told in (["waiting"], []) for _, told in results[:19])
    assert fetch_value(conn, "SELECT count(*) FROM a WHERE x = -1") == 1
    assert is_index_valid(conn, "a_x")
    assert fetch_value(conn, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


# -- 2: CONCURRENTLY is blocked by an old snapshot, under a lock timeout

BUILD = "-- stackctl:outside-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS a_x ON a (x)"
REBUILD = "-- stackctl:outside-transaction\nREINDEX INDEX CONCURRENTLY a_x"
REBUILD_ALL = "-- stackctl:outside-transaction\nREINDEX TABLE CONCURRENTLY a"


@contextmanager
def old_snapshot(other: Connection) -> Iterator[None]:
    other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
    try:
        yield
    finally:
        other.execute("ROLLBACK")


def test_concurrently_blocked_by_an_old_snapshot_is_never_called_applied(
    conn: Connection, other: Connection, tmp_path: Path
) -> None:
    conn.execute("CREATE TABLE a (x int)")
    migrations = write_files(tmp_path, a=BUILD)
    pauses: list[float] = []
    with old_snapshot(other):
        for _ in range(2):  # the INVALID index that the first run leaves does not make the second one happy
            error = catch_error(conn, migrations, limits=IMPATIENT, sleep=pauses.append)
            assert isinstance(error, StateError)
            assert (error.code, error.details["tries"]) == ("lock-timeout", retry.TRIES_CONCURRENTLY)
            assert error.details["blockers"][0]["pid"] == other.info.backend_pid
            assert f"process {other.info.backend_pid}" in error.message
            assert (error.details["line"], error.details["sqlstate"]) == (2, "55P03")
            assert is_index_valid(conn, "a_x") is not True
            assert read_status(conn, migrations).applied == ()
        assert len(pauses) == 2 * (retry.TRIES_CONCURRENTLY - 1)
    assert list_applied(apply_migrations(conn, migrations)) == ["a"]
    assert is_index_valid(conn, "a_x") is True
    assert verify(conn, migrations) == ()


@pytest.mark.parametrize(("text", "left"), [(BUILD, "a_x"), (REBUILD, "a_x_ccnew"), (REBUILD_ALL, "a_x_ccnew")])
@pytest.mark.parametrize("in_the_way", ["SELECT 1", "SELECT FROM a"])
def test_concurrently_is_built_again_once_the_old_snapshot_is_gone(
    conn: Connection, other: Connection, tmp_path: Path, in_the_way: str, text: str, left: str
) -> None:
    conn.execute("CREATE TABLE a (x int)")
    if text != BUILD:
        conn.execute("CREATE INDEX a_x ON a (x)")
    events: list[Event] = []
    found: list[bool | None] = []
    other.execute(f"BEGIN ISOLATION LEVEL REPEATABLE READ; {in_the_way}".encode())

    def let_go(seconds: float) -> None:
        found.append(is_index_valid(conn, left))
        other.execute("ROLLBACK")

    apply_migrations(conn, write_files(tmp_path, a=text), limits=IMPATIENT, on_event=events.append, sleep=let_go)
    told = list_kinds(events)
    assert f"dropping INVALID index {left} " in events[told.index("rebuilding")].detail
    # Who reads the table does not let go of its index: then the next try clears it away.
    again = ["rebuilding"] if in_the_way != "SELECT 1" else []
    assert (found, told) == ([False if again else None], ["started", "rebuilding", "retrying", *again, "applied"])
    assert fetch(conn, "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid"
                       " WHERE indrelid = 'a'::regclass") == [("a_x", True)]  # fmt: skip


def test_an_orphaned_build_is_waited_for_and_then_done_again(
    conn: Connection, other: Connection, empty_db: str, tmp_path: Path
) -> None:
    """Of another tool whose client was killed: its session holds no lock of ours, and builds on."""
    conn.execute("CREATE TABLE a (x int)")
    migrations = write_files(tmp_path, a=BUILD)
    client = "import sys, psycopg; psycopg.connect(sys.argv[1], autocommit=True).execute(sys.argv[2])"
    with old_snapshot(other):
        text = "CREATE INDEX CONCURRENTLY a_x ON a (x)"
        process = subprocess.Popen([sys.executable, "-c", client, empty_db, text])
        try:
            building = "SELECT pid FROM pg_stat_progress_create_index WHERE phase = 'waiting for old snapshots'"
            ((pid,),) = wait_for(lambda: fetch(conn, building))
        finally:
            process.kill()
            process.wait()
        error = catch_error(conn, migrations, limits=Limits(lock_wait=timedelta(milliseconds=50)))
        assert isinstance(error, StateError)
        assert (error.code, error.details) == ("index-being-built", {"index": "a_x", "pid": pid, "applied": []})
        assert [(f.kind, f.name) for f in verify(conn, migrations)] == [("invalid-index", "a_x")]
        assert f"being built by process {pid}" in verify(conn, migrations)[0].message

        told: list[Event] = []

        def end_it(seconds: float) -> None:
            fetch(conn, "SELECT pg_terminate_backend(%s, 5000)", pid)
            other.execute("ROLLBACK")

        assert list_applied(apply_migrations(conn, migrations, on_event=told.append, sleep=end_it)) == ["a"]
        other.execute("BEGIN")
    assert list_kinds(told) == ["started", "waiting", "rebuilding", "applied"]
    assert is_index_valid(conn, "a_x") is True


def test_leftovers_of_reindex_are_found_by_verify(conn: Connection, other: Connection, tmp_path: Path) -> None:
    conn.execute("CREATE TABLE a (x int); CREATE INDEX a_x ON a (x)")
    with old_snapshot(other), suppress(psycopg.errors.LockNotAvailable):
        conn.execute("SET lock_timeout = '50ms'")
        conn.execute("REINDEX INDEX CONCURRENTLY a_x")
    (found,) = verify(conn, write_files(tmp_path, a="SELECT 1"))
    assert (found.kind, found.name) == ("invalid-index", "a_x_ccnew")
    assert 'DROP INDEX CONCURRENTLY "public"."a_x_ccnew"' in found.hint


# -- 3: a unique index CONCURRENTLY over duplicates


def test_a_unique_concurrently_over_duplicates_fails_names_the_rows_and_can_be_repaired(
    conn: Connection, tmp_path: Path
) -> None:
    text = """CREATE TABLE a (x int);
INSERT INTO a VALUES (1), (1);
-- stackctl:split
-- stackctl:outside-transaction
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "A x" ON a (x);
-- stackctl:split
CREATE TABLE z ();
"""
    migrations = write_files(tmp_path, a=text)
    error = catch_error(conn, migrations)
    assert isinstance(error, AnswerNo)
    assert (error.details["line"], error.details["sqlstate"]) == (5, "23505")
    assert "Key (x)=(1) is duplicated" in error.message
    assert is_index_valid(conn, "A x") is None
    assert fetch_value(conn, "SELECT count(*) FROM a") == 2
    assert fetch_value(conn, "SELECT to_regclass('z')") is None
    assert read_status(conn, migrations).pending == (migrations[0].name,)

    conn.execute("DELETE FROM a; INSERT INTO a VALUES (1)")
    events: list[Event] = []
    assert list_applied(apply_migrations(conn, migrations, on_event=events.append)) == ["a"]
    assert events[0].kind == "resumed"
    assert is_index_valid(conn, "A x") is True
    assert fetch_value(conn, "SELECT count(*) FROM a") == 1, "the first piece ran again"


# -- 5: a backfill that never ends (4 and the killed backfill: test_migrate_kill_points.py)


@pytest.mark.parametrize(
    ("statement", "why", "passes"),
    [
        ("SELECT true AS should_repeat_migration", "10 passes in a row changed no row", 10),
        ("UPDATE work SET x = 1 WHERE false RETURNING true AS should_repeat_migration", None, 0),
        (
            "WITH x AS (UPDATE work SET x = 1 RETURNING 1) SELECT true AS should_repeat_migration FROM x LIMIT 1",
            "it updated 300 rows in tables that hold about ",  # the server estimates how many
            100,
        ),
        ("INSERT INTO log VALUES (1) RETURNING (SELECT count(*) FROM log) < 30 AS should_repeat_migration", None, 30),
    ],
)
def test_a_condition_that_never_ends_is_stopped_with_a_clear_error(
    conn: Connection, tmp_path: Path, statement: str, why: str | None, passes: int
) -> None:
    conn.execute("CREATE TABLE log (x int); CREATE TABLE work AS SELECT generate_series(1, 3) AS x; ANALYZE work")
    migrations = write_files(tmp_path, a=f"-- stackctl:repeat\n{statement}")
    pauses: list[float] = []
    if why is None:
        assert apply_migrations(conn, migrations, sleep=pauses.append).applied[0].repeats == passes
        return
    error = catch_error(conn, migrations, sleep=pauses.append)
    assert isinstance(error, AnswerNo)
    assert (error.code, error.details["passes"]) == ("migration-never-ends", passes)
    assert f"20260101000001_a.sql: its should_repeat_migration stays true, and {why}" in error.message
    assert sum(pauses) < 60
    assert read_status(conn, migrations).pending == (migrations[0].name,)


# -- 6: a long reader


def test_a_long_reader_has_the_whole_transaction_tried_again_while_readers_keep_flowing(
    conn: Connection, other: Connection, empty_db: str, connect: Connect, tmp_path: Path
) -> None:
    # Sequences are not rolled back, so this one counts the tries.
    conn.execute("CREATE TABLE busy (x int); CREATE TABLE log (x int); CREATE SEQUENCE tries")
    text = "INSERT INTO log SELECT nextval('tries'); ALTER TABLE busy ADD COLUMN y int; INSERT INTO log VALUES (0)"
    migrations = write_files(tmp_path, a=text)
    other.execute("BEGIN; SELECT FROM busy")
    events: list[Event] = []
    pauses: list[float] = []
    read = 0
    ends = threading.Event()

    def read_on(reader: Connection) -> None:
        nonlocal read
        while not ends.is_set():
            reader.execute("SELECT count(*) FROM busy")
            read += 1

    def between(seconds: float) -> None:
        pauses.append(seconds)
        assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE, "nothing is held in between"
        seen = read
        wait_for(lambda: read > seen + 1)
        if len(pauses) == 3:
            other.execute("ROLLBACK")

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_on, connect(empty_db, autocommit=True))
        try:
            apply_migrations(conn, migrations, limits=IMPATIENT, on_event=events.append, sleep=between)
        finally:
            ends.set()
        reading.result()
    assert list_kinds(events) == ["started", "retrying", "retrying", "retrying", "applied"]
    assert "try 1 of 10" in events[1].detail
    assert f"in the way: process {other.info.backend_pid}" in events[1].detail
    assert "AccessShareLock on busy" in events[1].detail
    assert [0.5 * 2**n / 2 <= seconds <= 0.5 * 2**n for n, seconds in enumerate(pauses)] == [True] * 3
    assert fetch(conn, "SELECT x FROM log ORDER BY x") == [(0,), (4,)]


def test_a_reader_that_never_ends_is_named_after_the_last_try(
    conn: Connection, other: Connection, tmp_path: Path
) -> None:
    conn.execute("CREATE TABLE busy (x int)")
    migrations = write_files(tmp_path, a="CREATE TABLE a ()", b="CREATE TABLE b (); ALTER TABLE busy ADD COLUMN y int")
    other.execute("BEGIN; SELECT FROM busy; ALTER ROLE CURRENT_USER SET \"app.key\" = 'hunter2' /* hunter2 */")
    pauses: list[float] = []
    error = catch_error(conn, migrations, limits=IMPATIENT, sleep=pauses.append)
    assert isinstance(error, StateError)
    assert (error.code, error.details["tries"], len(pauses)) == ("lock-timeout", retry.TRIES, retry.TRIES - 1)
    assert max(pauses) <= retry.LONGEST_PAUSE
    assert [blocker["pid"] for blocker in error.details["blockers"]] == [other.info.backend_pid]
    said = "BEGIN; SELECT FROM busy; ALTER ROLE CURRENT_USER SET \"app.key\" = '…'"
    assert error.details["blockers"][0]["query"] == said
    assert f": {said}" in error.message
    assert error.details["applied"] == [migrations[0].name]
    assert fetch_value(conn, "SELECT to_regclass('b')") is None
    other.execute("ROLLBACK")
    assert list_applied(apply_migrations(conn, migrations)) == ["b"]


# -- 7: a file with COMMIT, SET or search_path


def test_a_commit_in_a_file_is_detected(conn: Connection, tmp_path: Path) -> None:
    conn.execute("CREATE PROCEDURE sneaky() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$")
    error = catch_error(conn, write_files(tmp_path, a="CREATE TABLE a (); CALL sneaky()"))
    assert error.code == "migration-failed"
    assert fetch_value(conn, "SELECT to_regclass('a')") is None
    with pytest.raises(ConfigError) as caught:
        write_files(tmp_path, a="SELECT 1; COMMIT")
    assert caught.value.code == "transaction-control"


def test_nothing_that_a_file_sets_reaches_the_next(conn: Connection, tmp_path: Path) -> None:
    conn.execute("SET lock_timeout = '1234ms'; CREATE SCHEMA other; GRANT ALL ON SCHEMA public, other TO PUBLIC")
    leaks = """SET search_path = other; SET lock_timeout = '7s'; SET statement_timeout = '9min';
SET TimeZone = 'Asia/Kathmandu'; SELECT set_config('standard_conforming_strings', 'off', false);
CREATE TEMP TABLE made (); PREPARE asked AS SELECT 1; LISTEN news; DECLARE held CURSOR WITH HOLD FOR SELECT 1;
SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY; SET ROLE pg_monitor"""
    seen = """CREATE TABLE made AS SELECT current_setting('lock_timeout') AS a,
current_setting('statement_timeout') AS b, current_setting('TimeZone') = '{zone}' AS c, '\\' AS d,
current_user = session_user AS e"""
    text = seen.format(zone=fetch_value(conn, "SHOW TimeZone"))
    migrations = write_files(tmp_path, a=leaks, b=text, c=leaks)
    apply_migrations(conn, migrations)
    assert conn.execute("SELECT * FROM public.made").fetchone() == ("3s", "0", True, "\\", True)
    assert fetch_value(conn, "SHOW lock_timeout") == "1234ms"
    assert fetch_value(conn, "SHOW search_path") == '"$user", public'
    assert fetch_value(conn, "SELECT current_user = session_user")
    left = "SELECT name FROM pg_prepared_statements WHERE from_sql UNION ALL SELECT pg_listening_channels()"
    assert fetch(conn, left + " UNION ALL SELECT name FROM pg_cursors WHERE is_holdable") == []


# -- 8: the splitter (in detail: tests/unit/test_migration_files.py)

TRICKY = r"""/* one /* two ; */ three ; */ CREATE TABLE a (x text);
CREATE FUNCTION body() RETURNS text LANGUAGE plpgsql AS $x$ BEGIN RETURN $$a;b$$; -- 100% ;
END $x$;
CREATE FUNCTION atomic(n int) RETURNS int BEGIN ATOMIC SELECT CASE WHEN n > 0 THEN 1 ELSE 2 END; SELECT n % 3; END;
INSERT INTO a VALUES (E'it\'s; 100%'), ('%s ; "'), (body()), (atomic(5)::text), (U&'d\0061t;'), ('''');
CREATE TABLE "b;c" AS SELECT 5 % 2 AS "%(odd)s";"""


def test_the_splitter_knows_every_way_to_write_a_semicolon(conn: Connection, tmp_path: Path) -> None:
    file = tmp_path / "20260101000001_a.sql"
    file.write_bytes(b"\xef\xbb\xbf" + TRICKY.replace("\n", "\r\n").encode())
    (migration,) = discover(tmp_path)
    assert len(migration.pieces[0].statements) == 5
    apply_migrations(conn, (migration,))
    found = ["it's; 100%", '%s ; "', "a;b", "2", "dat;", "'"]
    assert [x for (x,) in fetch(conn, "SELECT x FROM a ORDER BY ctid")] == found
    assert fetch_value(conn, 'SELECT "%(odd)s" FROM "b;c"') == 1
    # A checkout on Windows defines the same body as one elsewhere.
    assert "\r" not in fetch_value(conn, "SELECT prosrc FROM pg_proc WHERE proname = 'body'")

    for same in (TRICKY, "-- why\n" + TRICKY.replace(" three ;", "").replace("(x text)", "(\n  x   text )")):
        file.write_text(same)
        assert verify(conn, discover(tmp_path)) == ()
    for before, after in (("5 % 2", "5 % 3"), ("-- 100% ;", "-- 99% ;"), ("s; 1", "s;  1")):
        file.write_text(TRICKY.replace(before, after))
        assert [finding.kind for finding in verify(conn, discover(tmp_path))] == ["edited"]


# -- a transaction that fails only when it is committed


def test_a_rerun_after_a_deferred_constraint_failed_at_the_commit(conn: Connection, tmp_path: Path) -> None:
    conn.execute("CREATE TABLE parent (id int PRIMARY KEY)")
    text = """CREATE TABLE child (parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
INSERT INTO child VALUES (1);"""
    migrations = write_files(tmp_path, a=text, b="CREATE TABLE b ()")
    error = catch_error(conn, migrations)
    assert isinstance(error, AnswerNo)
    assert (error.code, error.details["sqlstate"], error.details["applied"]) == ("migration-failed", "23503", [])
    assert "Key (parent)=(1) is not present" in error.message
    assert fetch_value(conn, "SELECT to_regclass('child')") is None
    assert read_status(conn, migrations).applied == ()
    conn.execute("INSERT INTO parent VALUES (1)")
    events: list[Event] = []
    assert list_applied(apply_migrations(conn, migrations, on_event=events.append)) == ["a", "b"]
    assert list_kinds(events) == ["started", "applied"] * 2
    assert fetch(conn, "SELECT * FROM child") == [(1,)]
