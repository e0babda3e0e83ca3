"""kill -9 at every point of a migration: what a rerun finds, what it tells, and that it converges."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

from stackctl.migrate.runner.run import apply_migrations
from tests.backend import Project, ended, fetch, wait_for, wait_until_blocked
from tests.migrations import Connection, catch_error, fetch_value, is_index_valid, verify, write_files

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from stackctl.migrate.files import Migration
    from stackctl.migrate.runner.events import Event

KILLED = -9

TABLES = "CREATE TABLE a (x int);\nCREATE TABLE work AS SELECT id, 0 AS times FROM generate_series(1, 35) AS id;"
PIECES = """INSERT INTO a VALUES (1);
-- stackctl:split
-- stackctl:outside-transaction
CREATE INDEX CONCURRENTLY first ON a (x);
CREATE INDEX CONCURRENTLY second ON a ((x + 1));
-- stackctl:split
INSERT INTO a VALUES (2);
"""
FILL = """-- stackctl:repeat
WITH batch AS (SELECT id FROM work WHERE times = 0 ORDER BY id LIMIT 10 FOR UPDATE),
touched AS (UPDATE work SET times = times + 1 FROM batch WHERE work.id = batch.id RETURNING 1)
SELECT true AS should_repeat_migration FROM touched LIMIT 1;
"""
LAST = "CREATE TABLE last ();"

# What a run tells of each file when it begins with it.
TOLD_TABLES = ["started tables: 0 of 1 pieces done", "applied tables"]
TOLD_PIECES = [
    "started pieces: 0 of 4 pieces done",
    "committed pieces: 1 of 4 pieces done",
    "committed pieces: 2 of 4 pieces done",
    "committed pieces: 3 of 4 pieces done",
    "applied pieces",
]
TOLD_PASSES = [f"repeating fill: pass {number} committed" for number in (1, 2, 3, 4)]
TOLD_FILL = ["started fill: 0 of 1 pieces done", *TOLD_PASSES, "applied fill"]
TOLD_LAST = ["started last: 0 of 1 pieces done", "applied last"]
AFTER_TABLES = [*TOLD_PIECES, *TOLD_FILL, *TOLD_LAST]
EVERYTHING = [*TOLD_TABLES, *AFTER_TABLES]

RUNNER = "stackctl.migrate.runner"
RUN = f"{RUNNER}.run:_Runner"
RECORD = f"{RUNNER}.history:record_progress"
LOCK = f"{RUNNER}.runner_lock"
IN_FIRST = "an earlier run ended in the statement of line 4"

# Where the process dies, at which of its passes by that point, and what the rerun tells.
POINTS: dict[str, tuple[str, int, list[str]]] = {
    "the lock is taken": (f"{LOCK}:_take_lock:after", 1, EVERYTHING),
    "the history's table is made, not committed": (f"{RUNNER}.session:Session.run_named:after", 2, EVERYTHING),
    "the history's table is committed": (f"{RUNNER}.history:create_history:after", 1, EVERYTHING),
    "a transaction is begun, nothing of it sent": (f"{RUNNER}.session:Session.send_named:after", 1, EVERYTHING),
    "its statements are run": (f"{RUN}._begin:after", 1, EVERYTHING),
    "the SQL is run, the history row is not written": (f"{RECORD}:before", 1, EVERYTHING),
    "the history row is written, not committed": (f"{RECORD}:after", 1, EVERYTHING),
    "a file is committed": (f"{RUN}._run_to_next_commit:after", 1, AFTER_TABLES),
    "between two pieces": (
        f"{RUN}._run_to_next_commit:after", 2,
        ["resumed pieces: 1 of 4 pieces done", *TOLD_PIECES[2:], *TOLD_FILL, *TOLD_LAST],
    ),
    "CONCURRENTLY is announced, not sent": (
        f"{RUN}._run_in_autocommit:before", 1,
        [f"resumed pieces: 1 of 4 pieces done; {IN_FIRST}", *TOLD_PIECES[2:], *TOLD_FILL, *TOLD_LAST],
    ),
    "CONCURRENTLY is done, not recorded": (
        f"{RUN}._run_in_autocommit:after", 1,
        [f"resumed pieces: 1 of 4 pieces done; {IN_FIRST}", *TOLD_PIECES[2:], *TOLD_FILL, *TOLD_LAST],
    ),
    "CONCURRENTLY is recorded": (
        f"{RUN}._run_to_next_commit:after", 3,
        ["resumed pieces: 2 of 4 pieces done", *TOLD_PIECES[3:], *TOLD_FILL, *TOLD_LAST],
    ),
    "the last piece is recorded, not committed": (
        f"{RECORD}:after", 7,
        ["resumed pieces: 3 of 4 pieces done", *TOLD_PIECES[4:], *TOLD_FILL, *TOLD_LAST],
    ),
    "a batch is run, not recorded": (
        f"{RUN}._execute:after", 4,
        ["resumed fill: 0 of 1 pieces done, after 1 passes", *TOLD_PASSES[1:], "applied fill", *TOLD_LAST],
    ),
    "a batch is recorded, not committed": (
        f"{RECORD}:after", 10,
        ["resumed fill: 0 of 1 pieces done, after 2 passes", *TOLD_PASSES[2:], "applied fill", *TOLD_LAST],
    ),
    "a batch is committed": (
        f"{RUN}._run_to_next_commit:after", 8,
        ["resumed fill: 0 of 1 pieces done, after 3 passes", *TOLD_PASSES[3:], "applied fill", *TOLD_LAST],
    ),
    "everything is applied, the lock is held": (f"{RUN}.apply_file:after", 4, []),
    "the lock is given back": (f"{LOCK}:hold_runner_lock:left", 1, []),
}  # fmt: skip


@pytest.fixture
def conn(empty_db: str, connect: Callable[..., Connection]) -> Connection:
    return connect(empty_db, autocommit=True)


@pytest.fixture
def project(tmp_path: Path, empty_db: str) -> Project:
    return Project(tmp_path, empty_db)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    return folder


def start(project: Project, folder: Path, spec: str, count: int) -> subprocess.Popen[str]:
    """`migrate up`, to die at a point."""
    return project.start("migrate", "up", "--dir", folder, point=spec, count=count)


def killed(project: Project, folder: Path, spec: str, count: int = 1) -> None:
    outcome = ended(start(project, folder, spec, count))
    assert outcome.code == KILLED, f"it did not come by the point: {outcome}"


def rerun(
    conn: Connection, migrations: tuple[Migration, ...], on_event: Callable[[Event], Any] = lambda event: None
) -> list[str]:
    """What the rerun tells, without times, and without its waiting for the dead one's session to end."""
    told: list[str] = []

    def note(event: Event) -> None:
        if event.kind != "waiting":
            detail = f": {event.detail}" if event.detail and event.kind != "applied" else ""
            told.append(f"{event.kind} {(event.name or '')[15:]}{detail}")
        on_event(event)

    apply_migrations(conn, migrations, on_event=note, sleep=lambda seconds: time.sleep(min(seconds, 0.02)))
    return told


def expect_the_end(conn: Connection, migrations: tuple[Migration, ...]) -> None:
    """Everything is there once, and nothing is left of the crash."""
    assert fetch_value(conn, "SELECT array_agg(x ORDER BY x) FROM a") == [1, 2]
    assert (is_index_valid(conn, "first"), is_index_valid(conn, "second")) == (True, True)
    assert fetch(conn, "SELECT times, count(*) FROM work GROUP BY 1") == [(1, 35)], "each row once"
    assert fetch_value(conn, "SELECT to_regclass('last')")
    assert verify(conn, migrations) == ()
    history = fetch(conn, "SELECT applied_at IS NOT NULL, outside_piece FROM stackctl.migration_history")
    assert history == [(True, None)] * 4
    assert fetch_value(conn, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
    assert apply_migrations(conn, migrations).applied == ()


@pytest.mark.parametrize("point", POINTS)
def test_killed_when(conn: Connection, project: Project, folder: Path, point: str) -> None:
    spec, count, told = POINTS[point]
    migrations = write_files(folder, tables=TABLES, pieces=PIECES, fill=FILL, last=LAST)
    killed(project, folder, spec, count)
    assert rerun(conn, migrations) == told
    expect_the_end(conn, migrations)


# -- inside CONCURRENTLY, where the server goes on without its client


def killed_in_concurrently(project: Project, folder: Path, conn: Connection, reader: Connection) -> None:
    """Kill a run while its build waits for the snapshot of `reader`, which stays open."""
    reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
    running = project.start("migrate", "up", "--dir", folder)
    try:
        building = "SELECT 1 FROM pg_stat_progress_create_index WHERE datname = current_database() AND phase LIKE %s"
        wait_for(lambda: running.poll() is not None or fetch(conn, building, "waiting for old snapshots"))
        running.kill()
    finally:
        assert ended(running).code == KILLED


REBUILT = "rebuilding pieces: dropping INVALID index first of an earlier try"


@pytest.mark.parametrize(
    ("again", "rebuilt"),
    [
        (None, [REBUILT]),
        (f"{RUNNER}.concurrent_leftovers:_drop_invalid_indexes:before", [REBUILT]),
        (f"{RUNNER}.concurrent_leftovers:_drop_invalid_indexes:after", []),
    ],
    ids=["once", "and before the INVALID index is dropped", "and after the INVALID index is dropped"],
)
def test_killed_inside_concurrently(
    conn: Connection, connect: Callable[..., Connection], empty_db: str, project: Project, folder: Path,
    again: str | None, rebuilt: list[str],
) -> None:  # fmt: skip
    migrations = write_files(folder, tables=TABLES, pieces=PIECES, fill=FILL, last=LAST)
    reader = connect(empty_db, autocommit=True)
    killed_in_concurrently(project, folder, conn, reader)
    waited: list[str] = []
    if again is not None:
        killed(project, folder, again)

    def let_go(event: Event) -> None:
        if event.kind == "waiting":
            waited.append(event.detail)
        if event.kind == "resumed":
            # Whoever built is gone, so what is left is what a rerun finds after the worst of crashes.
            assert is_index_valid(conn, "first") is (False if rebuilt else None)
            reader.execute("ROLLBACK")

    assert rerun(conn, migrations, let_go) == [
        f"resumed pieces: 1 of 4 pieces done; {IN_FIRST}", *rebuilt, *TOLD_PIECES[2:], *TOLD_FILL, *TOLD_LAST,
    ]  # fmt: skip
    # The dead run's session holds the lock and builds on, until the server looks for its client.
    assert again or (len(waited) == 1 and "stackctl migrate, building an index: waiting for old snapshots" in waited[0])
    expect_the_end(conn, migrations)


def test_killed_inside_a_batch(
    conn: Connection, connect: Callable[..., Connection], empty_db: str, project: Project, folder: Path
) -> None:
    """Its session may even finish the statement; but nobody is there who commits it."""
    migrations = write_files(folder, tables=TABLES, pieces=PIECES, fill=FILL, last=LAST)
    apply_migrations(conn, migrations, to="20260101000002")
    application = connect(empty_db, autocommit=True)
    application.execute("BEGIN; SELECT FROM work WHERE id = 15 FOR UPDATE")
    running = project.start("migrate", "up", "--dir", folder)
    try:
        wait_until_blocked(conn)
        running.kill()
    finally:
        assert ended(running).code == KILLED
    application.execute("ROLLBACK")
    told = ["resumed fill: 0 of 1 pieces done, after 1 passes", *TOLD_PASSES[1:], "applied fill", *TOLD_LAST]
    assert rerun(conn, migrations) == told
    expect_the_end(conn, migrations)


# -- after a failure, before it is cleared away


def test_killed_between_a_failed_build_and_its_clearing(conn: Connection, project: Project, folder: Path) -> None:
    unique = PIECES.replace("INDEX", "UNIQUE INDEX")
    migrations = write_files(folder, tables=TABLES + "INSERT INTO a VALUES (1)", pieces=unique, fill=FILL, last=LAST)
    killed(project, folder, f"{RUN}._forget_attempt:before")
    assert is_index_valid(conn, "first") is False
    conn.execute("DELETE FROM a WHERE ctid = '(0,1)'")
    assert rerun(conn, migrations)[:3] == [
        f"resumed pieces: 1 of 4 pieces done; {IN_FIRST}", REBUILT, TOLD_PIECES[2]
    ]  # fmt: skip
    expect_the_end(conn, migrations)


@pytest.mark.parametrize(
    ("statement", "sqlstate"),
    [
        ("CREATE INDEX CONCURRENTLY first ON a (x)", "42P07"),
        ("CREATE INDEX CONCURRENTLY fresh ON missing (x)", "42P01"),
        ("CREATE INDEX CONCURRENTLY fresh ON a (missing)", "42703"),
        ("REINDEX INDEX CONCURRENTLY missing", "42P01"),
        ("VACUUM missing", "42P01"),
    ],
)
def test_killed_before_a_statement_that_never_worked_is_no_reason_to_call_it_done(
    conn: Connection, project: Project, folder: Path, statement: str, sqlstate: str
) -> None:
    """Another table's index has the name, or the table is not there: what an earlier try made looks different."""
    conn.execute("CREATE TABLE a (x int); CREATE TABLE b (x int); CREATE INDEX first ON b (x)")
    migrations = write_files(folder, a=f"-- stackctl:outside-transaction\n{statement}")
    killed(project, folder, f"{RUN}._run_in_autocommit:before")
    for _ in range(2):
        assert catch_error(conn, migrations).details["sqlstate"] == sqlstate


@pytest.mark.parametrize(
    "statement",
    [
        'CREATE UNIQUE INDEX CONCURRENTLY "The X" ON ONLY public."a" (x)',
        "DROP INDEX CONCURRENTLY old",
        "ALTER TYPE mood ADD VALUE 'fine'",
        "ALTER TABLE parted DETACH PARTITION part CONCURRENTLY",
        "REINDEX TABLE CONCURRENTLY a",
        "CREATE DATABASE {database}_made",
        "DROP DATABASE {database}_old",
    ],
)
def test_killed_after_a_statement_that_worked_does_it_once(
    conn: Connection, project: Project, folder: Path, statement: str
) -> None:
    conn.execute(
        "CREATE TABLE a (x int); CREATE INDEX old ON a (x); CREATE TYPE mood AS ENUM ('good');"
        " CREATE TABLE parted (x int) PARTITION BY LIST (x); CREATE TABLE part PARTITION OF parted FOR VALUES IN (1)"
    )
    made, old = (sql.Identifier(f"{conn.info.dbname}_{name}") for name in ("made", "old"))
    conn.execute(sql.SQL("CREATE DATABASE {}").format(old))
    try:
        statement = statement.format(database=conn.info.dbname)
        migrations = write_files(folder, a=f"-- stackctl:outside-transaction\n{statement}")
        killed(project, folder, f"{RUN}._run_in_autocommit:after")
        assert rerun(conn, migrations) == [
            "resumed a: 0 of 1 pieces done; an earlier run ended in the statement of line 2", "applied a",
        ]  # fmt: skip
        assert verify(conn, migrations) == ()
    finally:
        for name in (made, old):
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(name))
