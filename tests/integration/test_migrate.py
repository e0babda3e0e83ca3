"""The migration runner against a real server: history, failures, resumption, one runner at a time."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from stackctl.core.errors import AnswerNo, ServiceError, StateError, UsageError
from stackctl.migrate.folder import discover
from stackctl.migrate.runner import run
from stackctl.migrate.runner.history import read_status
from stackctl.migrate.runner.run import apply_migrations
from stackctl.migrate.runner.session import Limits
from tests.migrations import Connection, catch_error, fetch_value, is_index_valid, list_applied, write_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stackctl.migrate.files import Migration, Statement
    from stackctl.migrate.runner.events import Event

pytestmark = pytest.mark.quick


@pytest.fixture
def conn(empty_db: str, connect: Callable[..., Connection]) -> Connection:
    return connect(empty_db, autocommit=True)


def cut(conn: Connection, url: str) -> None:
    """Kill the server's side of a connection, as a crash would."""
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (conn.info.backend_pid,))


def test_up_applies_once_and_status_follows(conn: Connection, tmp_path: Path) -> None:
    migrations = write_files(
        tmp_path, a="CREATE TABLE a (x int)", b="INSERT INTO a VALUES (1); INSERT INTO a VALUES (2)"
    )
    before = read_status(conn, migrations)
    assert (before.current, len(before.pending), before.applied) == (None, 2, ())
    assert fetch_value(conn, "SELECT to_regnamespace('stackctl')") is None, "status created something"

    assert list_applied(apply_migrations(conn, migrations)) == ["a", "b"]
    assert list_applied(apply_migrations(conn, migrations)) == []
    assert fetch_value(conn, "SELECT array_agg(x ORDER BY x) FROM a") == [1, 2]
    after = read_status(conn, migrations)
    assert (after.current, after.pending) == (migrations[1].name, ())
    assert [(entry.name, entry.checksum) for entry in after.applied] == [(m.name, m.checksum) for m in migrations]
    assert after.applied[0].by == fetch_value(conn, "SELECT session_user")
    assert after.applied[0].applied_at.tzinfo is not None


def test_to_stops_there(conn: Connection, tmp_path: Path) -> None:
    migrations = write_files(tmp_path, a="SELECT 1", b="SELECT 1", c="SELECT 1")
    assert list_applied(apply_migrations(conn, migrations, to="20260101000001")) == ["a"]
    assert list_applied(apply_migrations(conn, migrations, to=migrations[1].name)) == ["b"]
    with pytest.raises(UsageError):
        apply_migrations(conn, migrations, to="20260101000009")
    assert read_status(conn, migrations).pending == (migrations[2].name,)


def test_status_tells_drifted_and_unknown_files(conn: Connection, tmp_path: Path) -> None:
    apply_migrations(conn, write_files(tmp_path, a="SELECT 1", b="SELECT 2"))
    (tmp_path / "20260101000001_a.sql").write_text("SELECT 3")
    (tmp_path / "20260101000002_b.sql").rename(tmp_path / "20260101000003_c.sql")
    found = read_status(conn, discover(tmp_path))
    assert found.drifted == ("20260101000001_a",)
    assert found.unknown == ("20260101000002_b",)
    assert found.pending == ("20260101000003_c",)


def test_a_failure_undoes_its_file_and_names_the_place(conn: Connection, tmp_path: Path) -> None:
    broken = "CREATE TABLE b (x int);\n-- é\nSELECT '%s',\n  /* SCHEMA_NAME_SENTINEL */.nothing();"
    migrations = write_files(tmp_path, a="CREATE TABLE a ()", b=broken, c="CREATE TABLE c ()")
    error = catch_error(conn, migrations)
    assert isinstance(error, AnswerNo)
    assert (error.code, error.details["sqlstate"]) == ("migration-failed", "42883")
    assert (error.details["line"], error.details["column"]) == (4, 3)
    assert error.details["applied"] == [migrations[0].name]
    assert fetch_value(conn, "SELECT to_regclass('b')") is None
    assert fetch_value(conn, "SELECT to_regclass('c')") is None
    assert read_status(conn, migrations).pending == (migrations[1].name, migrations[2].name)

    assert list_applied(
        apply_migrations(conn, write_files(tmp_path, a="CREATE TABLE a ()", b="CREATE TABLE b ()"))
    ) == ["b", "c"]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("SELECT 1;\n\n  SELECT nope", 3, 10),
        ('SELECT /* SCHEMA_NAME_SENTINEL */."a" FROM /* SCHEMA_NAME_SENTINEL */."a"', 1, 44),
        ("SELECT 1;\nDO $$ BEGIN\n  RAISE 'no';\nEND $$", 2, 1),
        ("SELECT '😀' FROM nope", 1, 17),
    ],
)
def test_an_error_has_its_line_and_column(conn: Connection, tmp_path: Path, text: str, line: int, column: int) -> None:
    error = catch_error(conn, write_files(tmp_path, a=text))
    assert (error.details["line"], error.details["column"]) == (line, column)


@pytest.mark.parametrize("wrong", [1, 2, 200, 201, 450])
def test_of_many_statements_the_one_that_fails_is_named(conn: Connection, tmp_path: Path, wrong: int) -> None:
    """They are sent without waiting for each; none of those behind it is run, and nothing of it stays."""
    lines = ["CREATE TABLE a (x int);", *(f"INSERT INTO a VALUES ({n});" for n in range(449))]
    lines[wrong - 1] = "SELECT 1 / (random() * 0)::int;"
    lines.append("SELECT pg_advisory_unlock_all();")  # which would be told instead
    error = catch_error(conn, write_files(tmp_path, a="\n".join(lines)))
    assert (error.code, error.details["line"]) == ("migration-failed", wrong)
    assert "division by zero" in error.message
    assert fetch_value(conn, "SELECT to_regclass('a')") is None


def test_percent_is_a_percent(conn: Connection, tmp_path: Path) -> None:
    apply_migrations(conn, write_files(tmp_path, a="CREATE TABLE a AS SELECT '100% %s %(x)s'::text AS x, 5 % 3 AS y"))
    assert conn.execute("SELECT x, y FROM a").fetchone() == ("100% %s %(x)s", 2)


def test_a_held_lock_is_reported_with_its_holder(
    conn: Connection, empty_db: str, connect: Callable[..., Connection], tmp_path: Path
) -> None:
    migrations = write_files(tmp_path, a="CREATE TABLE a ()")
    other = connect(empty_db, autocommit=True)
    other.execute("SET application_name = 'the other one'")
    events: list[Event] = []

    def while_applying(event: Event) -> None:
        if event.kind == "started":
            soon = Limits(lock_wait=timedelta(milliseconds=150))
            error = catch_error(conn, migrations, limits=soon, on_event=events.append)
            assert isinstance(error, StateError)
            assert error.code == "lock-held"
            assert error.details["pid"] == other.info.backend_pid
            assert error.details["application_name"] == "the other one"
            assert error.details["since"]
            assert error.details["query"].startswith("RESET SESSION AUTHORIZATION; RESET ROLE")

    assert list_applied(apply_migrations(other, migrations, on_event=while_applying)) == ["a"]
    assert [event.kind for event in events] == ["waiting"]
    assert list_applied(apply_migrations(conn, migrations)) == []


OUTSIDE = """CREATE TABLE a (x int);
INSERT INTO a VALUES (1), (1);
-- stackctl:split
-- stackctl:outside-transaction
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "A x" ON a (x);
-- stackctl:split
CREATE TABLE z ();
"""


def test_an_invalid_index_left_by_an_earlier_try_is_built_again(conn: Connection, tmp_path: Path) -> None:
    conn.execute("CREATE TABLE a (x int); INSERT INTO a VALUES (1), (1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute('CREATE UNIQUE INDEX CONCURRENTLY "A x" ON a (x)')
    assert is_index_valid(conn, "A x") is False
    conn.execute("TRUNCATE a")
    events: list[Event] = []
    text = '-- stackctl:outside-transaction\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "A x" ON public."a" (x)'
    apply_migrations(conn, write_files(tmp_path, a=text), on_event=events.append)
    assert is_index_valid(conn, "A x") is True
    assert "rebuilding" in [event.kind for event in events]


def test_concurrently_inside_a_transaction_names_the_directive(conn: Connection, tmp_path: Path) -> None:
    error = catch_error(
        conn, write_files(tmp_path, a="CREATE TABLE a (x int)", b="CREATE INDEX CONCURRENTLY i ON a (x)")
    )
    assert "stackctl:outside-transaction" in (error.hint or "")


PIECES = """CREATE TABLE a (x int); INSERT INTO a VALUES (1);
-- stackctl:split
-- stackctl:outside-transaction
CREATE INDEX CONCURRENTLY first ON a (x);
CREATE INDEX CONCURRENTLY second ON a ((x + 1));
-- stackctl:split
INSERT INTO a VALUES (2);
-- stackctl:split
-- stackctl:outside-transaction
VACUUM a;
"""


@pytest.mark.parametrize("commits", [0, 1, 2, 3, 4])
def test_a_run_cut_between_two_pieces_goes_on(
    conn: Connection, empty_db: str, connect: Callable[..., Connection], tmp_path: Path, commits: int
) -> None:
    migrations = write_files(tmp_path, a=PIECES)
    seen: list[Event] = []

    def cut_after(event: Event) -> None:
        seen.append(event)
        if len(seen) == commits + 1:
            cut(conn, empty_db)

    error = catch_error(conn, migrations, on_event=cut_after)
    assert isinstance(error, ServiceError)
    assert error.code == "connection-lost"
    again = connect(empty_db, autocommit=True)
    assert list_applied(apply_migrations(again, migrations)) == ["a"]
    assert fetch_value(again, "SELECT array_agg(x ORDER BY x) FROM a") == [1, 2]
    assert (is_index_valid(again, "first"), is_index_valid(again, "second")) == (True, True)


def test_a_piece_that_finished_just_before_the_crash_is_not_an_error(
    conn: Connection, empty_db: str, connect: Callable[..., Connection], tmp_path: Path
) -> None:
    migrations = write_files(tmp_path, a=PIECES)

    def finish_the_piece_and_die(event: Event) -> None:
        # What a kill after the statement and before its record leaves: the mark of the attempt, and the index.
        if event.kind == "committed":
            with psycopg.connect(empty_db, autocommit=True) as other:
                other.execute("UPDATE stackctl.migration_history SET outside_piece = pieces_done")
                other.execute("CREATE INDEX first ON a (x)")
            cut(conn, empty_db)

    assert catch_error(conn, migrations, on_event=finish_the_piece_and_die).code == "connection-lost"
    again = connect(empty_db, autocommit=True)
    assert list_applied(apply_migrations(again, migrations)) == ["a"]


def test_another_object_of_the_same_name_is_an_error_at_every_try(conn: Connection, tmp_path: Path) -> None:
    conn.execute("CREATE TABLE b (x int); CREATE INDEX first ON b (x)")
    migrations = write_files(tmp_path, a=PIECES)
    for _ in range(2):
        assert catch_error(conn, migrations).details["sqlstate"] == "42P07"


def test_editing_the_part_that_is_applied_is_refused(conn: Connection, tmp_path: Path) -> None:
    catch_error(conn, write_files(tmp_path, a=OUTSIDE))
    error = catch_error(conn, write_files(tmp_path, a=OUTSIDE.replace("x int", "x bigint")))
    assert isinstance(error, StateError)
    assert error.code == "migration-edited-halfway"
    # What has not run yet may be repaired.
    assert list_applied(apply_migrations(conn, write_files(tmp_path, a=OUTSIDE.replace("UNIQUE ", "")))) == ["a"]


BACKFILL = """CREATE TABLE IF NOT EXISTS log (at int);
INSERT INTO log VALUES (1);
-- SPLIT_STATEMENT_SENTINEL
-- SINGLE_STATEMENT_SENTINEL
-- CONDITIONALLY_REPEAT_MIGRATION_SENTINEL
WITH batch AS (SELECT id FROM work WHERE NOT done ORDER BY id LIMIT 10 FOR UPDATE),
touched AS (UPDATE work SET done = true, times = times + 1 FROM batch WHERE work.id = batch.id RETURNING 1)
SELECT true AS should_repeat_migration FROM touched LIMIT 1;
-- SPLIT_STATEMENT_SENTINEL
CREATE TABLE after_all ();
"""


def test_a_backfill_runs_in_committed_batches(conn: Connection, empty_db: str, tmp_path: Path) -> None:
    conn.execute("CREATE TABLE work AS SELECT id, false AS done, 0 AS times FROM generate_series(1, 35) AS id")
    seen: list[int] = []

    def watch(seconds: float) -> None:
        with psycopg.connect(empty_db) as other:
            seen.append(fetch_value(other, "SELECT count(*) FROM work WHERE done"))

    (applied,) = apply_migrations(conn, write_files(tmp_path, a=BACKFILL), sleep=watch).applied
    assert seen == [10, 20, 30, 35]
    assert applied.repeats == 4
    assert fetch_value(conn, "SELECT count(*) FROM log") == 5, "the whole file runs again"
    assert fetch_value(conn, "SELECT count(*) FROM work WHERE times <> 1") == 0
    assert fetch_value(conn, "SELECT to_regclass('after_all') IS NOT NULL")
    assert fetch_value(conn, "SELECT repeats FROM stackctl.migration_history") == 4


def test_a_backfill_that_is_cut_goes_on(
    conn: Connection, empty_db: str, connect: Callable[..., Connection], tmp_path: Path
) -> None:
    conn.execute("CREATE TABLE work AS SELECT id, false AS done, 0 AS times FROM generate_series(1, 35) AS id")
    migrations = write_files(tmp_path, a=BACKFILL)
    assert catch_error(conn, migrations, sleep=lambda _: cut(conn, empty_db)).code == "connection-lost"
    again = connect(empty_db, autocommit=True)
    assert fetch_value(again, "SELECT count(*) FROM work WHERE done") == 10
    (applied,) = apply_migrations(again, migrations, sleep=lambda _: None).applied
    assert applied.repeats == 4
    assert fetch_value(again, "SELECT count(*) FROM work WHERE times <> 1") == 0


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1 AS x",
        "SELECT true AS should_repeat",
        "SELECT true",
        "SELECT 'true' AS should_repeat_migration",
        "SELECT 1 AS should_repeat_migration",
        "SELECT NULL::boolean AS should_repeat_migration",
        "SELECT n = 1 AS should_repeat_migration FROM generate_series(1, 2) AS n",
        "SELECT true AS should_repeat_migration, false AS should_repeat_migration",
    ],
)
@pytest.mark.parametrize("outside", ["", "-- stackctl:outside-transaction\n"])
def test_an_unclear_answer_fails_the_migration(conn: Connection, tmp_path: Path, query: str, outside: str) -> None:
    migrations = write_files(
        tmp_path, a=f"CREATE TABLE made ();\n-- stackctl:split\n-- stackctl:repeat\n{outside}{query}"
    )
    error = catch_error(conn, migrations)
    assert (error.code, error.details["line"]) == ("migration-failed", 4 + bool(outside))
    assert "a boolean should_repeat_migration" in error.message
    assert read_status(conn, migrations).pending == (migrations[0].name,)
    assert bool(fetch_value(conn, "SELECT to_regclass('made')")) == bool(outside)


def test_a_statement_that_returns_no_row_is_done(conn: Connection, tmp_path: Path) -> None:
    texts = ("SELECT 1 WHERE false", "CREATE TABLE q ()", "SELECT false AS should_repeat_migration")
    body = "\n-- stackctl:split\n".join(f"-- stackctl:repeat\n{text}" for text in texts)
    (applied,) = apply_migrations(conn, write_files(tmp_path, a=body)).applied
    assert applied.repeats == 0


def test_where_the_backend_keeps_its_own_history_it_is_told(conn: Connection, tmp_path: Path) -> None:
    conn.execute(
        'CREATE TABLE "SchemaMigration" (id text PRIMARY KEY DEFAULT gen_random_uuid(), '
        '"finishedAt" timestamp(3) NOT NULL, "migrationName" text NOT NULL UNIQUE)'
    )
    migrations = write_files(tmp_path, a="SELECT 1", b="SELECT nope")
    catch_error(conn, migrations)
    assert conn.execute('SELECT "migrationName" FROM "SchemaMigration"').fetchall() == [(migrations[0].name,)]


@pytest.mark.parametrize("content", ["CREATE TABLE b ()", "-- stackctl:outside-transaction\nCREATE TABLE b ()"])
def test_a_lock_that_was_lost_ends_the_run(content: str, conn: Connection, tmp_path: Path) -> None:
    """Another runner could have begun meanwhile: nothing more is applied, in a transaction or outside one."""
    migrations = write_files(tmp_path, a="SELECT pg_advisory_unlock_all()", b=content)
    error = catch_error(conn, migrations)
    assert (error.code, error.details["applied"]) == ("lock-given-back", [migrations[0].name])
    assert fetch_value(conn, "SELECT to_regclass('b')") is None
    assert list_applied(apply_migrations(conn, migrations)) == ["b"]


def test_a_deferred_constraint_fails_at_the_commit_and_is_called_so(conn: Connection, tmp_path: Path) -> None:
    conn.execute(
        "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (p int REFERENCES p DEFERRABLE INITIALLY DEFERRED)"
    )
    error = catch_error(conn, write_files(tmp_path, a="SELECT 1;\nINSERT INTO c VALUES (7)"))
    assert "at the commit, a deferred constraint: insert or update on table" in error.message
    assert fetch_value(conn, "SELECT count(*) FROM c") == 0


def test_what_is_left_is_said_by_what_was_committed(conn: Connection, tmp_path: Path) -> None:
    failing = "SELECT nope"
    error = catch_error(conn, write_files(tmp_path, a=f"CREATE TABLE a ();\n{failing}"))
    assert (error.hint or "").startswith("The transaction was rolled back; nothing was changed.")
    body = f"CREATE TABLE a ();\n-- stackctl:split\n-- stackctl:outside-transaction\n{failing}"
    error = catch_error(conn, write_files(tmp_path, a=body))
    assert (error.hint or "").startswith("What was committed before stays")
    assert fetch_value(conn, "SELECT to_regclass('a') IS NOT NULL")


def test_extensions_are_found_behind_the_schema(
    conn: Connection, empty_db: str, connect: Callable[..., Connection], tmp_path: Path
) -> None:
    name = conn.info.dbname
    conn.execute("CREATE SCHEMA extensions; CREATE FUNCTION extensions.helper() RETURNS int LANGUAGE sql RETURN 1")
    conn.execute("CREATE TABLE extensions.t ()")
    conn.execute(sql.SQL("ALTER DATABASE {} SET search_path = extensions, public").format(sql.Identifier(name)))
    again = connect(empty_db, autocommit=True)
    migrations = write_files(tmp_path, a="CREATE TABLE t AS SELECT helper() AS x")
    assert list_applied(apply_migrations(again, migrations, schema="app")) == ["a"]
    assert fetch_value(again, "SELECT to_regclass('app.t') IS NOT NULL")


def test_a_lock_may_take_longer_concurrently(conn: Connection, tmp_path: Path) -> None:
    """Others' transactions are waited for, and nothing of the application's waits behind it; but only there."""
    seen: list[tuple[str, str]] = []

    @contextmanager
    def statement_context(migration: Migration, statement: Statement) -> Iterator[None]:
        seen.append((migration.name[15:], fetch_value(conn, "SHOW lock_timeout")))
        yield

    migrations = write_files(
        tmp_path,
        a="CREATE TABLE t (x int)",
        b="-- stackctl:outside-transaction\nCREATE INDEX CONCURRENTLY i ON t (x);\n"
        "-- stackctl:split\nCREATE TABLE u ()",
        c="SET lock_timeout = '7s';\n-- stackctl:split\n-- stackctl:outside-transaction\n"
        "CREATE INDEX CONCURRENTLY j ON t (x)",
    )
    apply_migrations(
        conn, migrations, limits=Limits(lock_timeout=timedelta(seconds=3)), statement_context=statement_context
    )
    assert seen == [("a", "3s"), ("b", "30s"), ("b", "3s"), ("c", "3s"), ("c", "7s")]


@pytest.mark.parametrize(
    ("limit", "told", "concurrently"),
    [
        (timedelta(hours=60), "60h", "24d"),
        (timedelta(days=24), "24d", "24d"),
        (timedelta(microseconds=400), "1ms", "4ms"),
        (timedelta(0), "0", "0"),
    ],
)
def test_a_lock_timeout_stays_within_what_the_server_counts(
    conn: Connection, tmp_path: Path, limit: timedelta, told: str, concurrently: str
) -> None:
    """Ten times a long limit is no error, and a short one is not the 0 that means for ever."""
    seen: list[str] = []

    @contextmanager
    def statement_context(migration: Migration, statement: Statement) -> Iterator[None]:
        seen.append(fetch_value(conn, "SHOW lock_timeout"))
        yield

    migrations = write_files(
        tmp_path,
        a="CREATE TABLE t (x int)",
        b="-- stackctl:outside-transaction\nCREATE INDEX CONCURRENTLY i ON t (x);",
    )
    apply_migrations(conn, migrations, limits=Limits(lock_timeout=limit), statement_context=statement_context)
    assert seen == [told, concurrently]


@pytest.mark.parametrize("password", ["Zx9Qw7SECRET", '"Zx9Qw7SECRET"'])
def test_a_password_without_its_quotes_is_not_shown(conn: Connection, tmp_path: Path, password: str) -> None:
    error = catch_error(conn, write_files(tmp_path, a=f"CREATE ROLE nobody PASSWORD {password}"))
    assert "syntax error at or near" in error.message
    assert "Zx9Qw7SECRET" not in f"{error.message} {error.details}"


def test_an_interrupt_while_statements_are_sent_waits_for_none_of_them(
    conn: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrations = write_files(tmp_path, a="CREATE TABLE a ()", b="SELECT pg_sleep(600); SELECT 'here'")
    prepare = run._Runner._prepare_text  # pyright: ignore[reportPrivateUsage]

    def interrupt(self: Any, statement: Any) -> Any:
        if "here" in statement.sql:
            raise KeyboardInterrupt
        return prepare(self, statement)

    monkeypatch.setattr(run._Runner, "_prepare_text", interrupt)  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(run.RunInterrupted) as interrupted:
        apply_migrations(conn, migrations)
    assert list_applied(interrupted.value.result) == ["a"]
