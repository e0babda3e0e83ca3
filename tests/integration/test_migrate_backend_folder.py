"""A folder in the live backend's layout, with each of its directives: applied, verified, adopted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from stackctl.core.errors import StateError, UsageError
from stackctl.migrate.adopt import adopt
from stackctl.migrate.folder import discover
from stackctl.migrate.runner.history import read_status
from stackctl.migrate.runner.run import apply_migrations
from stackctl.migrate.schema.dump import dump_schema
from tests.migrations import verify

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from stackctl.migrate.files import Migration
    from tests.conftest import Connect

FOLDER = discover(Path(__file__).parent.parent / "data" / "backend_migrations")
NAMES = [migration.name for migration in FOLDER]
USERS = 250  # so that batches of a hundred take three passes
SEEDED_BEFORE = "20240703090000_move_emails"
BACKFILLS = {
    "20240703090000_move_emails": 3,
    "20240901080001_fill_user_tenancies": 3,
    "20241111110001_normalize_old_emails": 3,
    "20250502000001_fill_last_active": 3,
}
_HISTORIES: dict[str, LiteralString] = {
    "SchemaMigration": 'CREATE TABLE "SchemaMigration" ("migrationName" text NOT NULL UNIQUE, "finishedAt" timestamp)',
    "_prisma_migrations": """
        CREATE TABLE _prisma_migrations (
          id varchar(36) PRIMARY KEY DEFAULT gen_random_uuid()::text, checksum varchar(64) NOT NULL DEFAULT '',
          finished_at timestamptz, migration_name varchar(255) NOT NULL, logs text, rolled_back_at timestamptz,
          started_at timestamptz NOT NULL DEFAULT now(), applied_steps_count integer NOT NULL DEFAULT 0)""",
}
_RECORD: dict[str, LiteralString] = {
    "SchemaMigration": "INSERT INTO \"SchemaMigration\" SELECT unnest(%s::text[]), timestamp '2025-09-01 10:00'",
    "_prisma_migrations": "INSERT INTO _prisma_migrations (migration_name, finished_at)"
    " SELECT unnest(%s::text[]), timestamptz '2025-09-01 10:00Z'",
}


@pytest.fixture
def conn(empty_db: str, connect: Connect) -> psycopg.Connection[Any]:
    return connect(empty_db, autocommit=True)


def before(name: str) -> Sequence[Migration]:
    return FOLDER[: NAMES.index(name)]


def migrated_by_another(conn: psycopg.Connection[Any], table: str, names: Sequence[str] = NAMES) -> None:
    """The schema that the files make, and only the history of another tool."""
    apply_migrations(conn, FOLDER[: len(names)])
    conn.execute("DROP SCHEMA stackctl CASCADE")
    conn.execute(_HISTORIES[table])
    conn.execute(_RECORD[table], (list(names),))


def test_the_folder_uses_every_directive() -> None:
    text = "".join(migration.path.read_text() for migration in FOLDER)
    assert len(FOLDER) >= 30
    for directive in ("SPLIT_STATEMENT", "SINGLE_STATEMENT", "RUN_OUTSIDE_TRANSACTION", "SCHEMA_NAME",
                      "CONDITIONALLY_REPEAT_MIGRATION"):  # fmt: skip
        assert f"{directive}_SENTINEL" in text
    assert any(b"\r\n" in migration.path.read_bytes() for migration in FOLDER)
    assert any(migration.path.read_bytes().startswith(b"\xef\xbb\xbf") for migration in FOLDER)


@pytest.mark.parametrize("schema", ["public", 'Other "one"'])
def test_it_applies_once_to_any_schema(conn: psycopg.Connection[Any], schema: str) -> None:
    assert [applied.name for applied in apply_migrations(conn, FOLDER, schema=schema).applied] == NAMES
    assert apply_migrations(conn, FOLDER, schema=schema).applied == ()
    assert verify(conn, FOLDER, schema) == ()
    tables = conn.execute("SELECT count(*) FROM pg_tables WHERE schemaname = %s", (schema,)).fetchone()
    assert tables == (12,)
    invalid = conn.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid").fetchone()
    assert invalid == (0,)


def test_the_same_files_make_the_same_schema_under_another_name(conn: psycopg.Connection[Any]) -> None:
    for schema in ("first", "other"):
        apply_migrations(conn, FOLDER, schema=schema)
    assert dump_schema(conn, "other").replace("other", "first") == dump_schema(conn, "first")


def test_backfills_fill_every_row_once_in_batches(conn: psycopg.Connection[Any]) -> None:
    apply_migrations(conn, before(SEEDED_BEFORE))
    conn.execute("INSERT INTO \"Project\" VALUES ('p', now(), now(), 'P', false)")
    conn.execute(
        'INSERT INTO "ProjectUser" ("projectUserId", "projectId", "updatedAt", "primaryEmail")'
        " SELECT gen_random_uuid(), 'p', now(), ' User' || n || '@Example.com' FROM generate_series(1, %s) AS n",
        (USERS,),
    )
    repeats = {applied.name: applied.repeats for applied in apply_migrations(conn, FOLDER).applied}
    assert {name: number for name, number in repeats.items() if number} == BACKFILLS
    found = conn.execute(
        'SELECT count(*), count(DISTINCT u."projectUserId"), count(u."tenancyId"), count(u."lastActiveAt"),'
        ' count(*) FILTER (WHERE c."value" = lower(trim(c."value")))'
        ' FROM "ProjectUser" AS u LEFT JOIN "ContactChannel" AS c USING ("projectId", "projectUserId")'
    ).fetchone()
    assert found == (USERS,) * 5


@pytest.mark.parametrize("table", list(_HISTORIES))
def test_another_tools_history_is_taken_over_and_nothing_runs(conn: psycopg.Connection[Any], table: str) -> None:
    migrated_by_another(conn, table)
    schema = dump_schema(conn, "public")
    with pytest.raises(StateError) as refused:
        apply_migrations(conn, FOLDER)
    assert refused.value.code == "not-adopted"
    dry = adopt(conn, FOLDER, dry_run=True)
    assert (dry.source, list(dry.adopted)) == (table, NAMES)
    assert conn.execute("SELECT to_regclass('stackctl.migration_history')").fetchone() == (None,)
    assert adopt(conn, FOLDER) == dry
    assert apply_migrations(conn, FOLDER).applied == ()
    assert verify(conn, FOLDER) == ()
    assert dump_schema(conn, "public") == schema
    times = {entry.applied_at.isoformat() for entry in read_status(conn, FOLDER).applied}
    assert times == {"2025-09-01T10:00:00+00:00"}
    assert adopt(conn, FOLDER).adopted == ()


def test_the_rest_of_a_history_is_applied_and_told_to_the_backend(conn: psycopg.Connection[Any]) -> None:
    known = NAMES[:20]
    migrated_by_another(conn, "SchemaMigration", known)
    assert list(adopt(conn, FOLDER).adopted) == known
    assert [applied.name for applied in apply_migrations(conn, FOLDER).applied] == NAMES[20:]
    recorded = conn.execute('SELECT "migrationName" FROM "SchemaMigration" WHERE "finishedAt" IS NOT NULL ORDER BY 1')
    assert [name for (name,) in recorded] == NAMES


def test_what_prisma_did_not_finish_stops_adopting_and_what_it_rolled_back_does_not(
    conn: psycopg.Connection[Any],
) -> None:
    migrated_by_another(conn, "_prisma_migrations", NAMES[:10])
    conn.execute(
        "INSERT INTO _prisma_migrations (migration_name, finished_at, rolled_back_at)"
        " VALUES (%s, NULL, NULL), (%s, NULL, now()), ('20200101000000_gone', now(), NULL)",
        (NAMES[10], NAMES[11]),
    )
    with pytest.raises(StateError) as caught:
        adopt(conn, FOLDER)
    assert (caught.value.code, caught.value.details["names"]) == ("failed-elsewhere", [NAMES[10]])
    conn.execute("UPDATE _prisma_migrations SET rolled_back_at = now() WHERE migration_name = %s", (NAMES[10],))
    found = adopt(conn, FOLDER)
    assert list(found.adopted) == NAMES[:10]
    assert found.without_file == ("20200101000000_gone",)
    assert [applied.name for applied in apply_migrations(conn, FOLDER).applied] == NAMES[10:]


def test_a_version_named_by_hand_must_fit_the_database(conn: psycopg.Connection[Any]) -> None:
    apply_migrations(conn, before("20250108000000_customers"))
    conn.execute("DROP SCHEMA stackctl CASCADE")
    with pytest.raises(UsageError) as nothing:
        adopt(conn, FOLDER)
    assert nothing.value.code == "nothing-to-adopt"
    with pytest.raises(StateError) as too_high:
        adopt(conn, FOLDER, through=NAMES[-1])
    assert too_high.value.code == "schema-mismatch"
    assert any("Subscription" in what for what in too_high.value.details["missing"])
    assert conn.execute("SELECT to_regclass('stackctl.migration_history')").fetchone() == (None,)
    right = NAMES[NAMES.index("20250108000000_customers") - 1]
    assert adopt(conn, FOLDER, through=right[:14]).adopted[-1] == right
    assert apply_migrations(conn, FOLDER).applied[0].name == "20250108000000_customers"


def test_adopting_into_the_wrong_schema_is_noticed(conn: psycopg.Connection[Any]) -> None:
    conn.execute(_HISTORIES["SchemaMigration"])
    conn.execute(_RECORD["SchemaMigration"], (NAMES,))
    with pytest.raises(StateError) as wrong:
        adopt(conn, FOLDER)
    assert wrong.value.code == "schema-mismatch"


def test_a_checkout_on_windows_or_a_new_comment_is_no_edit(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    apply_migrations(conn, FOLDER)
    for migration in FOLDER:
        text = migration.path.read_text(encoding="utf-8-sig")
        folder = tmp_path / migration.name
        folder.mkdir()
        (folder / "migration.sql").write_bytes(("-- why\n" + text).replace("\n", "\r\n").encode())
    assert verify(conn, discover(tmp_path)) == ()
    last = tmp_path / NAMES[-1] / "migration.sql"
    last.write_text(last.read_text().replace("'TRUE'", "NULL"))
    assert [(finding.kind, finding.name) for finding in verify(conn, discover(tmp_path))] == [("edited", NAMES[-1])]


def test_the_table_of_a_statement_is_that_of_the_schema(conn: psycopg.Connection[Any]) -> None:
    """Two schemas with the same names: what is migrated in one leaves the other alone."""
    apply_migrations(conn, FOLDER)
    schema = dump_schema(conn, "public")
    apply_migrations(conn, FOLDER, schema="second")
    assert dump_schema(conn, "public") == schema
    assert read_status(conn, FOLDER, "second").pending == ()
