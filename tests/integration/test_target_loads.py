"""Whole loads into tables that are not empty, and rows that a target takes without keeping: every kind of target."""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg
import pytest

from tests.backend import (
    MINE,
    Connection,
    Project,
    add_many_users,
    add_user,
    differences,
    insert,
    sequence,
    settle,
    sync,
)

if TYPE_CHECKING:
    from stackctl.core.errors import StackctlError
    from stackctl.sync.engine.database_sync import DatabaseResult
    from stackctl.sync.pipeline import Pipeline

IDS = [uuid.UUID(int=number) for number in range(1, 21)]


class Copy:
    """The only external database of MINE, with the users, as its consumer sees it."""

    def __init__(self, project: Project, external_db: str, kind: str) -> None:
        self.kind, self._url, self._directory = kind, external_db, project.directory
        if kind == "postgres":
            project.postgres(MINE, external_db, mappings=["users"])
        elif kind == "sqlite":
            project.sqlite(MINE, mappings=["users"])
        else:
            pytest.importorskip("duckdb", reason="the extra stackctl[duckdb] is not installed")
            project.duckdb(MINE, mappings=["users"])
        self.pipeline: Pipeline = project.pipeline()
        self.name = next(iter(self.pipeline.databases[MINE])).id

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """The rows of the last statement; all of them are committed."""
        if self.kind == "postgres":
            with psycopg.connect(self._url, autocommit=True) as conn:
                cursor = [conn.execute(cast("LiteralString", statement)) for statement in statements][-1]
                return cursor.fetchall() if cursor.description else []
        if self.kind == "sqlite":
            with closing(sqlite3.connect(self._directory / "copy.db", isolation_level=None)) as file:
                return [file.execute(statement).fetchall() for statement in statements][-1]
        import duckdb

        with duckdb.connect(str(self._directory / "copy.duckdb")) as file:
            return [file.execute(statement).fetchall() for statement in statements][-1]

    def count(self, query: str) -> int:
        ((number,),) = self.run(f"SELECT count(*) FROM {query}")
        return number

    def sync(self, *, full: bool = False) -> StackctlError | None:
        return only(sync(self.pipeline, full=full)).error


def only(results: list[DatabaseResult]) -> DatabaseResult:
    (result,) = results
    return result


@pytest.fixture(params=["postgres", "sqlite", "duckdb"])
def copy(request: pytest.FixtureRequest, project: Project, external_db: str) -> Copy:
    return Copy(project, external_db, request.param)


@pytest.fixture
def postgres(project: Project, external_db: str) -> Copy:
    return Copy(project, external_db, "postgres")


@pytest.fixture
def loaded(copy: Copy, source: Connection) -> Copy:
    """Twenty users."""
    add_many_users(source, len(IDS))
    settle(copy.pipeline)
    return copy


def delete_unseen(source: Connection, user: uuid.UUID) -> None:
    """Delete a user without a tombstone."""
    source.execute("SET session_replication_role = replica")
    source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (user,))
    source.execute("RESET session_replication_role")


# -- tables that are not empty


def test_a_full_load_changes_what_differs_and_deletes_what_is_gone(loaded: Copy, source: Connection) -> None:
    delete_unseen(source, IDS[0])
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'new\' WHERE "projectUserId" = %s', (IDS[1],))
    add_user(source, id=uuid.UUID(int=99))
    loaded.run(
        f"UPDATE users SET display_name = 'damaged' WHERE id = '{IDS[2]}'", f"DELETE FROM users WHERE id = '{IDS[3]}'"
    )
    result = only(sync(loaded.pipeline, full=True))
    assert result.error is None
    (users,) = result.mappings
    assert (users.upserted, users.deleted, users.batches) == (20, 1, 1)
    assert differences(loaded.pipeline) == []


def test_delete_triggers_fire_for_rows_that_are_gone_only(loaded: Copy, source: Connection) -> None:
    if loaded.kind == "duckdb":
        pytest.skip("DuckDB has no triggers")
    loaded.run("CREATE TABLE gone (id text)")
    if loaded.kind == "postgres":
        loaded.run(
            "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN INSERT INTO gone VALUES (OLD.id); RETURN OLD; END $$",
            "CREATE TRIGGER note BEFORE DELETE ON users FOR EACH ROW EXECUTE FUNCTION note()",
        )
    else:
        loaded.run("CREATE TRIGGER note AFTER DELETE ON users BEGIN INSERT INTO gone VALUES (OLD.id); END")
    delete_unseen(source, IDS[0])
    assert loaded.sync(full=True) is None
    assert loaded.run("SELECT id FROM gone") == [(str(IDS[0]),)]
    assert differences(loaded.pipeline) == []


def test_what_consumers_hang_on_the_rows_stays(postgres: Copy, source: Connection) -> None:
    add_many_users(source, len(IDS))
    settle(postgres.pipeline)
    postgres.run(
        "ALTER TABLE users ADD note text",
        "UPDATE users SET note = 'own'",
        "CREATE TABLE orders (of_user uuid REFERENCES users ON DELETE CASCADE)",
        "INSERT INTO orders SELECT id FROM users",
    )
    assert postgres.sync(full=True) is None
    assert postgres.count("orders") == 20
    assert postgres.count("users WHERE note = 'own'") == 20
    delete_unseen(source, IDS[0])
    assert postgres.sync(full=True) is None
    assert postgres.count("orders") == 19
    assert differences(postgres.pipeline) == []


def test_two_rows_for_one_key_in_a_load(copy: Copy, project: Project, source: Connection) -> None:
    """Into an empty table and into one that is not."""
    (project.directory / "mine").mkdir()
    path = project.directory / "mine" / "users.yaml"
    path.write_text("""
name: users
source: ProjectUser
target: users
key: {id: projectUserId}
columns: {id: uuid, name: text null}
select: |
  SELECT u."projectUserId" AS id, t."displayName" AS name FROM "ProjectUser" AS u
  LEFT JOIN "Team" AS t ON t."tenancyId" = u."tenancyId"
  WHERE u."tenancyId" = :tenancy_id
""")
    project.settings["mappings_dir"] = "./mine"
    copy.pipeline = project.pipeline()
    add_many_users(source, 3)
    settle(copy.pipeline)
    for number in range(2):
        insert(source, "Team", {"tenancyId": MINE, "teamId": uuid.UUID(int=number), "updatedAt": "now",
                                "mirroredProjectId": "p", "mirroredBranchId": "main", "displayName": "t"})  # fmt: skip
    sequence(copy.pipeline)
    error = copy.sync(full=True)
    assert error is not None and error.code == "two-rows-for-a-key"
    copy.run("DROP TABLE users")
    error = copy.sync()
    assert error is not None and error.code == "two-rows-for-a-key"


# -- tables that are not ours


def make_own(copy: Copy) -> None:
    """A table of the consumer's own that happens to fit, with a row of theirs."""
    compiled = copy.pipeline.compile_mappings(copy.pipeline.databases[MINE][0])[0]
    copy.run(
        compiled.create_table,
        "INSERT INTO users (id, signed_up_at, client_metadata, client_read_only_metadata, server_metadata,"
        f" primary_email_verified, is_anonymous) VALUES ('{uuid.UUID(int=77)}', '2020-01-01', '{{}}', '{{}}', '{{}}',"
        " '0', '0')",
    )


def test_a_table_that_is_not_ours_is_refused_and_adopted(copy: Copy, project: Project, source: Connection) -> None:
    make_own(copy)
    add_many_users(source, len(IDS))
    sequence(copy.pipeline)
    for _ in range(2):
        outcome = project.run("sync", "--all", "--json")
        assert outcome.code == 5, outcome.stderr
        (database,) = outcome.json["databases"]
        assert database["error_code"] == "not-ours"
        assert copy.count("users") == 1
        assert copy.count("_stack_sync_metadata") == 0
    command = f"stackctl sync {MINE} --database {copy.name} --mapping users --adopt"
    assert f"`{command}`" in project.run("sync", "--all").stderr
    for arguments in ("--full", "--mapping users"):
        assert project.run("sync", "--all", *arguments.split()).code == 5
    assert project.run("backfill", "users").code == 5
    assert project.run("verify", str(MINE), "--repair").code == 1
    assert copy.run("SELECT id FROM users") in ([(uuid.UUID(int=77),)], [(str(uuid.UUID(int=77)),)])
    if copy.kind == "postgres":
        ((rights,),) = copy.run("SELECT relacl::text FROM pg_class WHERE relname = 'users'")
        assert rights is None, "nobody was given the right to read it"
    outcome = project.run(*command.split()[1:])
    assert outcome.code == 0, outcome.stderr
    assert copy.count("users") == 20
    assert differences(copy.pipeline) == []
    assert project.run("sync", "--all", "--full").code == 0, "it is ours from then on"


def test_an_empty_table_that_fits_is_taken(copy: Copy, source: Connection) -> None:
    make_own(copy)
    copy.run("DELETE FROM users")
    add_many_users(source, len(IDS))
    settle(copy.pipeline)
    assert differences(copy.pipeline) == []


def test_a_table_whose_cursor_was_deleted_is_not_ours(loaded: Copy, source: Connection) -> None:
    loaded.run("DELETE FROM _stack_sync_metadata")
    error = loaded.sync()
    assert error is not None and error.code == "not-ours"
    assert loaded.count("_stack_sync_metadata") == 0


def test_adopting_goes_on_page_by_page_past_a_refused_row(postgres: Copy, project: Project, source: Connection) -> None:
    make_own(postgres)
    postgres.run("ALTER TABLE users ADD CHECK (display_name <> 'user 7')")
    add_many_users(source, len(IDS))
    sequence(postgres.pipeline)
    outcome = project.run("sync", "--all", "--adopt", "--json")
    assert (outcome.code, outcome.json["databases"][0]["error_code"]) == (1, "rows-refused")
    assert postgres.count("users") == 19
