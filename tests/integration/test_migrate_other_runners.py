"""Beside the backend's own runner and Prisma's: no file runs twice, whoever comes first."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, LiteralString

import pytest

from stackctl.migrate.folder import discover
from stackctl.migrate.runner.history import read_status
from stackctl.migrate.runner.run import apply_migrations
from stackctl.migrate.runner.session import Limits
from tests.migrations import catch_error, fetch_value, list_applied, write_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from stackctl.migrate.files import Migration
    from stackctl.migrate.runner.events import Event
    from tests.conftest import Connect
    from tests.migrations import Connection

BACKENDS = 'CREATE TABLE "SchemaMigration" ("migrationName" text PRIMARY KEY, "finishedAt" timestamp)'
PRISMAS = """CREATE TABLE _prisma_migrations (
  id varchar(36) PRIMARY KEY, checksum varchar(64) NOT NULL, finished_at timestamptz,
  migration_name varchar(255) NOT NULL, logs text, rolled_back_at timestamptz,
  started_at timestamptz NOT NULL DEFAULT now(), applied_steps_count integer NOT NULL DEFAULT 0)"""
DOUBLES = "INSERT INTO money SELECT * FROM money"


@pytest.fixture
def conn(empty_db: str, connect: Connect) -> Connection:
    conn = connect(empty_db, autocommit=True)
    conn.execute("CREATE TABLE money (x int); INSERT INTO money VALUES (1)")
    return conn


@pytest.fixture
def other(empty_db: str, connect: Connect) -> Connection:
    """The session of the other runner."""
    return connect(empty_db, autocommit=True)


def write_folder(directory: Path) -> tuple[Migration, ...]:
    """As Prisma writes it."""
    for number, text in enumerate((DOUBLES, "CREATE TABLE last ()"), 1):
        folder = directory / f"2026010100000{number}_{number}"
        folder.mkdir()
        (folder / "migration.sql").write_text(text)
    return discover(directory)


@contextmanager
def held_by_backend(other: Connection) -> Iterator[None]:
    """A file's transaction of the backend's runner, up to before its statements."""
    with other.transaction():
        other.execute("SELECT pg_advisory_xact_lock(59129034)")
        yield


@contextmanager
def held_by_prisma(other: Connection) -> Iterator[None]:
    other.execute("SELECT pg_advisory_lock(72707369)")
    yield
    other.execute("SELECT pg_advisory_unlock(72707369)")


@dataclass(frozen=True)
class Runner:
    create: LiteralString
    hold: Callable[[Connection], AbstractContextManager[None]]
    record: LiteralString
    read: LiteralString


RUNNERS = [
    Runner(
        BACKENDS, held_by_backend, 'INSERT INTO "SchemaMigration" VALUES (%s, now())',
        'SELECT "migrationName" FROM "SchemaMigration" ORDER BY 1',
    ),
    Runner(
        PRISMAS, held_by_prisma,
        "INSERT INTO _prisma_migrations (id, checksum, migration_name, finished_at) VALUES ('1', '', %s, now())",
        "SELECT migration_name FROM _prisma_migrations WHERE finished_at IS NOT NULL ORDER BY 1",
    ),
]  # fmt: skip
every_runner = pytest.mark.parametrize("runner", RUNNERS, ids=["backend", "prisma"])


@every_runner
def test_a_file_that_the_other_runner_has_in_hand_is_not_run_again(
    conn: Connection, other: Connection, tmp_path: Path, runner: Runner
) -> None:
    conn.execute(runner.create)
    migrations = write_folder(tmp_path)
    waiting = threading.Event()
    events: list[Event] = []

    def tell(event: Event) -> None:
        events.append(event)
        if event.kind == "waiting":
            waiting.set()

    with ThreadPoolExecutor(1) as pool:
        with runner.hold(other):
            ours = pool.submit(apply_migrations, conn, migrations, on_event=tell)
            assert waiting.wait(30)
            other.execute(DOUBLES)
            other.execute(runner.record, (migrations[0].name,))
        result = ours.result(30)
    assert fetch_value(other, "SELECT count(*) FROM money") == 2
    assert (list_applied(result), result.applied_elsewhere) == (["2"], (migrations[0].name,))
    assert [event.name for event in events if event.kind == "elsewhere"] == [migrations[0].name]
    assert read_status(other, migrations).pending == ()


@pytest.mark.parametrize("outside", [False, True])
def test_one_that_takes_no_lock_and_records_first_is_first(
    conn: Connection, other: Connection, tmp_path: Path, outside: bool
) -> None:
    conn.execute(BACKENDS)
    (migration,) = write_files(tmp_path, a="-- stackctl:outside-transaction\nVACUUM money" if outside else DOUBLES)

    @contextmanager
    def meanwhile(*_: object) -> Iterator[None]:
        yield
        other.execute(RUNNERS[0].record, (migration.name,))

    result = apply_migrations(conn, (migration,), statement_context=meanwhile)
    assert (result.applied, result.applied_elsewhere) == ((), (migration.name,))
    assert fetch_value(conn, "SELECT count(*) FROM money") == 1
    assert read_status(conn, (migration,)).pending == ()


@every_runner
def test_a_lock_that_is_not_let_go_of_ends_the_run(
    conn: Connection, other: Connection, tmp_path: Path, runner: Runner
) -> None:
    conn.execute(runner.create)
    migrations = write_folder(tmp_path)
    with runner.hold(other):
        error = catch_error(conn, migrations, limits=Limits(lock_wait=timedelta(0)))
    assert (error.code, error.details["pid"]) == ("lock-held", other.info.backend_pid)
    assert fetch_value(conn, "SELECT count(*) FROM money") == 1
    assert list_applied(apply_migrations(conn, migrations)) == ["1", "2"]


@every_runner
def test_the_other_runner_is_kept_out_while_a_file_runs_and_no_longer(
    conn: Connection, other: Connection, tmp_path: Path, runner: Runner
) -> None:
    conn.execute(runner.create)
    own = 59129034 if runner.create == BACKENDS else 72707369

    def is_free(key: int) -> bool:
        free = fetch_value(other, "SELECT pg_try_advisory_lock(%s)", key)
        other.execute("SELECT pg_advisory_unlock_all()")
        return free

    free: list[bool] = []

    def tell(event: Event) -> None:
        if event.name is not None:
            free.append(is_free(own))

    apply_migrations(conn, write_folder(tmp_path), on_event=tell)
    assert free == [False] * 4
    assert is_free(own)


@every_runner
def test_the_other_runner_finds_what_was_applied_here(
    conn: Connection, other: Connection, tmp_path: Path, runner: Runner
) -> None:
    conn.execute(runner.create)
    migrations = write_folder(tmp_path)
    apply_migrations(conn, migrations)
    assert other.execute(runner.read).fetchall() == [(migration.name,) for migration in migrations]
