"""stackctl migrate beside an application that is running: what it shows, waits for, refuses and takes over."""

from __future__ import annotations

import signal
import stat
from typing import TYPE_CHECKING

import pytest

from stackctl.migrate.lock_forecast import MAY_REWRITE
from tests.backend import Project, wait_for
from tests.chaos.proxy import Proxy

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Connect

PEOPLE = "20260101000001_people"
BATCHES = "20260101000002_batches"
BATCH = """\
-- stackctl:repeat
WITH batch AS (
  UPDATE people SET seen = coalesce(seen, 0) + 1
  WHERE id IN (SELECT id FROM people WHERE seen IS NULL ORDER BY id LIMIT 10) RETURNING id
)
SELECT count(*) = 10 AS should_repeat_migration,
       (SELECT count(*) FROM people WHERE seen IS NULL) - count(*) AS remaining
FROM batch;
"""


@pytest.fixture
def empty(tmp_path: Path, empty_db: str) -> Project:
    return Project(tmp_path, empty_db)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A table of a hundred people."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / f"{PEOPLE}.sql").write_text(
        "CREATE TABLE people (id int PRIMARY KEY, seen int);\nINSERT INTO people SELECT generate_series(1, 100);"
    )
    return folder


def test_a_dry_run_shows_each_statement_and_what_it_locks(
    empty: Project, empty_db: str, connect: Connect, folder: Path
) -> None:
    assert empty.run("migrate", "up", "--dir", folder).code == 0
    (folder / "20260101000003_index.sql").write_text(
        "ALTER TABLE people ALTER COLUMN seen TYPE bigint;\n-- stackctl:split\n-- stackctl:outside-transaction\n"
        "CREATE INDEX CONCURRENTLY people_seen ON people (seen);"
    )
    shown = empty.run("migrate", "up", "--dry-run", "--dir", folder)
    assert shown.stdout.splitlines() == [
        "20260101000003_index: 2 statements",
        "  in one transaction:",
        "    ALTER TABLE people ALTER COLUMN seen TYPE bigint",
        "      -- AccessExclusiveLock on people: blocks reads and writes, " + MAY_REWRITE,
        "  outside a transaction:",
        "    CREATE INDEX CONCURRENTLY people_seen ON people (seen)",
        "      -- ShareUpdateExclusiveLock on people: blocks schema changes, builds an index",
        "",
        "would apply 1 migration",
    ]
    document = empty.run("migrate", "up", "--dry-run", "--dir", folder, "--json").json
    (migration,) = document["migrations"]
    assert [statement["outside_transaction"] for statement in migration["statements"]] == [False, True]
    assert connect(empty_db).execute("SELECT to_regclass('people_seen')").fetchone() == (None,)


def test_the_schema_goes_into_a_file_that_is_tried_before_anything_runs(
    empty: Project, empty_db: str, connect: Connect, folder: Path, tmp_path: Path
) -> None:
    refused = empty.run(
        "migrate", "up", "--dir", folder, "--schema-dump", tmp_path / "nowhere" / "schema.sql", "--json"
    )
    assert (refused.code, refused.json["error"]["code"]) == (3, "dump-unwritable")
    assert connect(empty_db).execute("SELECT to_regclass('people')").fetchone() == (None,)
    assert empty.run("migrate", "up", "--dir", folder, "--schema-dump", tmp_path / "schema.sql").code == 0
    assert "CREATE TABLE people" in (tmp_path / "schema.sql").read_text()
    assert stat.S_IMODE((tmp_path / "schema.sql").stat().st_mode) == 0o600


def test_a_server_that_is_coming_up_is_waited_for(empty: Project, empty_db: str, folder: Path) -> None:
    with Proxy(empty_db) as proxy:
        proxy.refuse()
        arguments = ("migrate", "up", "--dir", folder, "--database-url", proxy.url(empty_db))
        assert empty.run(*arguments).code == 4
        up = empty.start(*arguments, "--wait", "60s")
        assert up.stderr is not None
        assert up.stderr.readline().startswith("waiting: ")
        proxy.heal()
        out, _ = up.communicate(timeout=60)
    assert (up.returncode, out.strip()) == (0, "1 migration applied")


def test_a_lock_that_is_not_had_in_time_is_tried_again_and_the_blocker_is_named(
    empty: Project, empty_db: str, connect: Connect, folder: Path
) -> None:
    assert empty.run("migrate", "up", "--dir", folder).code == 0
    (folder / f"{BATCHES}.sql").write_text("ALTER TABLE people ADD COLUMN name text;")
    reader = connect(empty_db)
    reader.execute("SET application_name = 'reports'")
    reader.execute("SELECT count(*) FROM people")  # and its transaction stays open
    up = empty.start("migrate", "up", "--dir", folder, "--lock-timeout", "100ms")
    assert up.stderr is not None
    told = up.stderr.readline()
    assert told.startswith("retrying 20260101000002_batches")
    assert "reports" in told
    assert "AccessShareLock on people" in told
    reader.rollback()
    out, _ = up.communicate(timeout=60)
    assert (up.returncode, out.strip()) == (0, "1 migration applied")


def test_a_backfill_that_is_interrupted_goes_on_with_its_next_batch(
    empty: Project, empty_db: str, connect: Connect, folder: Path
) -> None:
    assert empty.run("migrate", "up", "--dir", folder).code == 0
    (folder / f"{BATCHES}.sql").write_text(BATCH)
    watcher = connect(empty_db, autocommit=True)
    up = empty.start("migrate", "up", "--dir", folder)
    wait_for(lambda: watcher.execute("SELECT 1 FROM people WHERE seen IS NOT NULL").fetchone())
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=60)
    assert up.returncode == 130
    half = empty.run("migrate", "verify", "--dir", folder, "--json")
    assert (half.code, [finding["kind"] for finding in half.json["findings"]]) == (1, ["half-applied"])
    again = empty.run("migrate", "up", "--dir", folder)
    assert again.code == 0
    assert f"resumed {BATCHES}" in again.stderr
    seen = watcher.execute("SELECT min(seen), max(seen), count(seen) FROM people").fetchone()
    assert seen == (1, 1, 100)
    assert empty.run("migrate", "verify", "--dir", folder).code == 0


def test_a_statement_that_takes_too_long_is_ended(empty: Project, folder: Path) -> None:
    (folder / f"{BATCHES}.sql").write_text("SELECT pg_sleep(60);")
    outcome = empty.run("migrate", "up", "--dir", folder, "--statement-timeout", "50ms", "--json")
    assert (outcome.code, outcome.json["error"]["code"]) == (1, "migration-failed")
    assert "--statement-timeout" in outcome.json["error"]["hint"]


@pytest.mark.parametrize("flag", ["--lock-timeout", "--statement-timeout", "--lock-wait", "--wait"])
@pytest.mark.parametrize("value", ["3", "-1s", "25d"])
def test_a_limit_is_a_duration_the_server_can_count(empty: Project, flag: str, value: str) -> None:
    outcome = empty.run("migrate", "up", flag, value)
    assert outcome.code == 2
    assert flag in outcome.stderr


def test_a_file_merged_late_is_refused_until_it_is_allowed(empty: Project, folder: Path) -> None:
    assert empty.run("migrate", "up", "--dir", folder).code == 0
    (folder / "20250101000000_late.sql").write_text("CREATE TABLE late (id int);")
    refused = empty.run("migrate", "up", "--dir", folder, "--json")
    assert (refused.code, refused.json["error"]["code"]) == (5, "out-of-order")
    found = empty.run("migrate", "verify", "--dir", folder)
    assert found.code == 1
    assert "20250101000000_late: out-of-order" in found.stdout
    assert empty.run("migrate", "up", "--dir", folder, "--allow-out-of-order").code == 0
    assert empty.run("migrate", "verify", "--dir", folder).stdout == "2 files, history and database fit\n"


def test_the_bundled_set_beside_a_folder_of_ones_own_is_no_finding(empty: Project, folder: Path) -> None:
    assert empty.run("migrate", "up").code == 0
    assert empty.run("migrate", "up", "--dir", folder).code == 0
    assert empty.run("migrate", "verify", "--dir", folder).code == 0
    assert empty.run("migrate", "status", "--check", "--dir", folder).code == 0


def test_a_database_that_another_tool_migrated_is_adopted(
    empty: Project, empty_db: str, connect: Connect, folder: Path
) -> None:
    conn = connect(empty_db, autocommit=True)
    conn.execute("CREATE TABLE people (id int PRIMARY KEY, seen int)")
    conn.execute(
        'CREATE TABLE "SchemaMigration" ("migrationName" text UNIQUE, "finishedAt" timestamp);'
        f"INSERT INTO \"SchemaMigration\" VALUES ('{PEOPLE}', now()), ('20240101000000_gone', now())"
    )
    refused = empty.run("migrate", "up", "--dir", folder, "--json")
    assert (refused.code, refused.json["error"]["code"]) == (5, "not-adopted")
    dry = empty.run("migrate", "adopt", "--dry-run", "--dir", folder)
    assert (dry.code, dry.stdout.splitlines()[0]) == (0, f"would record {PEOPLE}")
    adopted = empty.run("migrate", "adopt", "--dir", folder, "--json")
    assert adopted.code == 0
    assert adopted.json == {
        "source": "SchemaMigration",
        "adopted": [PEOPLE],
        "already": [],
        "without_file": ["20240101000000_gone"],
        "doubtful": [],
        "dry_run": False,
    }
    assert empty.run("migrate", "up", "--dir", folder, "--json").json == {"applied": []}
    again = empty.run("migrate", "adopt", "--dir", folder, "--json")
    assert (again.code, again.json["adopted"], again.json["already"]) == (0, [], [PEOPLE])


def test_a_version_that_the_database_plainly_has_not_seen_is_not_adopted(empty: Project, folder: Path) -> None:
    nothing = empty.run("migrate", "adopt", "--dir", folder, "--json")
    assert (nothing.code, nothing.json["error"]["code"]) == (2, "nothing-to-adopt")
    refused = empty.run("migrate", "adopt", "--through", PEOPLE[:14], "--dir", folder, "--json")
    assert (refused.code, refused.json["error"]["code"]) == (5, "schema-mismatch")
    assert "people" in refused.json["error"]["message"]


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER ROLE nobody PASWORD 'hunter2'",
        "ALTER ROLE nobody PASSWORD 'x' 'hunter2'",
        "ALTER ROLE nobody PASSWORD $$x$$ $$hunter2$$",
        "ALTER ROLE nobody PASSWORD 'hunter2'",
        "DO $$ BEGIN EXECUTE 'ALTER ROLE nobody PASWORD ''hunter2'''; END $$",
    ],
)
def test_a_statement_that_fails_shows_no_password_that_is_in_it(empty: Project, tmp_path: Path, statement: str) -> None:
    folder = tmp_path / "wrong"
    folder.mkdir()
    (folder / "20260101000001_wrong.sql").write_text(f"SELECT 1;\n{statement};\n")
    done = empty.run("migrate", "up", "--dir", folder, "--debug", "--json")
    assert done.code != 0
    assert "20260101000001_wrong.sql:2:" in done.stderr
    assert "psycopg.errors" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
