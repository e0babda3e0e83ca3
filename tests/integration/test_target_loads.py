"""Whole loads into tables that are not empty, and rows that a target takes without keeping: every kind of target."""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg
import pytest

from stackctl.sync.targets.postgres import PostgresTarget
from tests.backend import (
    MINE,
    Connection,
    Project,
    add_many_users,
    add_team,
    add_user,
    differences,
    insert,
    no_capture,
    sequence,
    settle,
    sync,
)

if TYPE_CHECKING:
    from stackctl.core.errors import StackctlError
    from stackctl.postgres import embedded
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
    with no_capture(source, "ProjectUser"):
        source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (user,))


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


def test_a_row_that_consumers_refer_to_is_named_and_the_others_go(postgres: Copy, source: Connection) -> None:
    add_many_users(source, len(IDS))
    settle(postgres.pipeline)
    postgres.run(
        "CREATE TABLE orders (of_user uuid REFERENCES users)",
        f"INSERT INTO orders VALUES ('{IDS[0]}'), ('{IDS[1]}')",
    )
    for user in (IDS[0], IDS[2]):
        delete_unseen(source, user)
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'new\'')
    sequence(postgres.pipeline)
    for full in (True, False):
        error = postgres.sync(full=full)
        assert error is not None and error.code == "rows-refused"
        assert [row["key"] for row in error.details["rows"]] == [[str(IDS[0])]]
        assert postgres.count("users WHERE display_name = 'new'") == 18
        assert postgres.count("users") == 19
    postgres.run("DELETE FROM orders")
    assert postgres.sync() is None
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


def test_two_rows_for_a_key_whatever_its_index_is_called(postgres: Copy, project: Project, source: Connection) -> None:
    (project.directory / "mine").mkdir()
    (project.directory / "mine" / "users.yaml").write_text("""
name: users
source: ProjectUser
target: users
key: {id: projectUserId}
columns: {id: uuid, name: text null}
select: |
  SELECT u."projectUserId" AS id, t."displayName" AS name FROM "ProjectUser" AS u
  JOIN "Team" AS t ON t."tenancyId" = u."tenancyId"
  WHERE u."tenancyId" = :tenancy_id
""")
    project.settings["mappings_dir"] = "./mine"
    postgres.pipeline = project.pipeline()
    settle(postgres.pipeline)
    postgres.run("ALTER TABLE users RENAME CONSTRAINT users_pkey TO theirs")
    add_user(source)
    for _ in range(2):
        add_team(source)
    sequence(postgres.pipeline)
    error = postgres.sync(full=True)
    assert error is not None and error.code == "two-rows-for-a-key"
    postgres.run("ALTER TABLE users ADD CONSTRAINT users_pkey UNIQUE (name)")
    source.execute('DELETE FROM "Team" WHERE "teamId" IN (SELECT "teamId" FROM "Team" LIMIT 1)')
    add_user(source)
    sequence(postgres.pipeline)
    error = postgres.sync(full=True)
    assert error is not None and error.code == "rows-refused"


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
    for asked in ("verify", "verify --repair", "mappings diff", "doctor"):
        outcome = project.run(*asked.split())
        assert outcome.code == (5 if asked.startswith("verify") else 1), asked
        assert "has rows, and stackctl has never loaded it" in outcome.stdout + outcome.stderr, asked
    (check,) = project.run("verify", "--mapping", "users", "--json").json["checks"]
    assert check["error_code"] == "not-ours"
    differences_found = {
        one["mapping"]: one["change"] for one in project.run("mappings", "diff", "--json").json["copies"]
    }
    assert differences_found["users"] == "not-ours"
    assert copy.run("SELECT id FROM users") in ([(uuid.UUID(int=77),)], [(str(uuid.UUID(int=77)),)])
    if copy.kind == "postgres":
        ((rights,),) = copy.run("SELECT relacl::text FROM pg_class WHERE relname = 'users'")
        assert rights is None, "nobody was given the right to read it"
    asked = project.run(*command.split()[1:])
    assert (asked.code, asked.stdout) == (5, "")
    assert f"{MINE} {copy.name}: the table of users\nerror: Take over 1 table? In each, rows that" in asked.stderr
    assert copy.count("users") == 1
    outcome = project.run(*command.split()[1:], "--yes")
    assert outcome.code == 0, outcome.stderr
    assert copy.count("users") == 20
    assert differences(copy.pipeline) == []
    assert project.run("sync", "--all", "--full").code == 0, "it is ours from then on"
    assert "Rebuild 1 table?" in project.run("sync", "--all", "--rebuild", "users").stderr


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
    outcome = project.run("sync", "--all", "--adopt", "--yes", "--json")
    assert (outcome.code, outcome.json["databases"][0]["error_code"]) == (1, "rows-refused")
    assert postgres.count("users") == 19


# -- rows that are taken and not kept

PASS_OVER = {
    "postgres": (
        """CREATE FUNCTION pass_over() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF OLD.display_name = 'user 7' OR NEW.display_name = 'user 7' THEN RETURN NULL; END IF;
        RETURN coalesce(NEW, OLD); END $$""",
        "CREATE TRIGGER pass_over BEFORE {event} ON users FOR EACH ROW EXECUTE FUNCTION pass_over()",
    ),
    "sqlite": (
        """CREATE TRIGGER pass_over BEFORE {event} ON users WHEN {row}.display_name = 'user 7'
        BEGIN SELECT raise(IGNORE); END""",
    ),
}


def pass_over(copy: Copy, event: str) -> None:
    """Let a trigger of the consumer's swallow what happens to user 7."""
    if copy.kind == "duckdb":
        pytest.skip("DuckDB has neither triggers nor rules")
    row = "NEW" if event == "INSERT" else "OLD"
    copy.run(*(statement.format(event=event, row=row) for statement in PASS_OVER[copy.kind]))


def swallowed(copy: Copy, *, full: bool = False) -> list[str]:
    """The keys that the error of a sync names."""
    error = copy.sync(full=full)
    assert error is not None and error.code == "rows-refused"
    assert "silently drops" in error.message
    return [row["key"][0] for row in error.details["rows"]]


@pytest.mark.parametrize("count", [10, 1000])
def test_an_insert_that_is_swallowed_is_an_error(count: int, copy: Copy, source: Connection) -> None:
    """In batches of a few rows and of many; the others arrive, and so does this one when it is let."""
    settle(copy.pipeline)
    pass_over(copy, "INSERT")
    add_many_users(source, count)
    sequence(copy.pipeline)
    assert swallowed(copy) == [str(IDS[6])]
    assert copy.count("users") == count - 1
    copy.run("DROP TRIGGER pass_over" + (" ON users" if copy.kind == "postgres" else ""))
    assert copy.sync() is None
    assert differences(copy.pipeline) == []


@pytest.mark.parametrize("event", ["UPDATE", "DELETE"])
def test_an_update_or_delete_that_is_swallowed_is_an_error(event: str, loaded: Copy, source: Connection) -> None:
    pass_over(loaded, event)
    if event == "UPDATE":
        source.execute('UPDATE "ProjectUser" SET "displayName" = "displayName" || \'!\'')
    else:
        source.execute('DELETE FROM "ProjectUser"')
    sequence(loaded.pipeline)
    assert swallowed(loaded) == [str(IDS[6])]
    assert loaded.run("SELECT display_name FROM users WHERE display_name NOT LIKE '%!'") == [("user 7",)]


def test_a_first_load_that_is_swallowed_in_part_is_an_error(copy: Copy, source: Connection) -> None:
    settle(copy.pipeline)
    pass_over(copy, "INSERT")
    copy.run("UPDATE _stack_sync_metadata SET last_synced_sequence_id = -1")
    add_many_users(source, len(IDS))
    sequence(copy.pipeline)
    assert swallowed(copy) == [str(IDS[6])]
    assert copy.count("users") == 19


def test_a_full_load_names_the_row_that_it_can_not_delete(loaded: Copy, source: Connection) -> None:
    pass_over(loaded, "DELETE")
    delete_unseen(source, IDS[6])
    assert swallowed(loaded, full=True) == [str(IDS[6])]


def test_a_tombstone_of_a_row_that_was_never_there_is_no_error(copy: Copy, source: Connection) -> None:
    settle(copy.pipeline)
    add_many_users(source, len(IDS))
    source.execute('DELETE FROM "ProjectUser"')
    settle(copy.pipeline)
    assert differences(copy.pipeline) == []


@pytest.mark.parametrize("event", ["INSERT", "DELETE"])
def test_a_rule_that_does_nothing_instead_is_an_error(event: str, postgres: Copy, source: Connection) -> None:
    add_many_users(source, len(IDS))
    settle(postgres.pipeline)
    postgres.run(f"CREATE RULE nothing AS ON {event} TO users DO INSTEAD NOTHING")
    source.execute('DELETE FROM "ProjectUser" WHERE "displayName" = \'user 7\'')
    add_user(source, id=uuid.UUID(int=99))
    sequence(postgres.pipeline)
    error = postgres.sync()
    assert error is not None
    assert [row["key"] for row in error.details["rows"]] == [[str(IDS[6] if event == "DELETE" else uuid.UUID(int=99))]]


def test_policies_that_hide_rows_are_an_error(
    project: Project, source: Connection, external_db: str, server: embedded.EmbeddedServer
) -> None:
    owner = Copy(project, external_db, "postgres")
    add_many_users(source, len(IDS))
    settle(owner.pipeline)
    role = f"writer_{external_db.rpartition('external_')[2][:12]}"
    owner.run(
        f"CREATE ROLE {role} LOGIN",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
        f"CREATE POLICY own ON users TO {role} USING (display_name <> 'user 7')",
        "ALTER TABLE users ENABLE ROW LEVEL SECURITY",
    )
    try:
        project.settings["tenancies"] = {}
        writer = project.postgres(MINE, external_db.replace("postgres@", f"{role}@"), mappings=["users"]).pipeline()
        source.execute('DELETE FROM "ProjectUser" WHERE "displayName" = \'user 7\'')
        sequence(writer)
        (result,) = sync(writer)
        assert result.error is not None
        assert "row-level security" in result.error.message
    finally:
        owner.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.mark.parametrize(
    ("obstacle", "taken_off"),
    [
        (None, True),
        ("SELECT FROM users", False),  # in a transaction that stays open
        ("CREATE TABLE notes (user_id uuid REFERENCES users)", False),
        ("ALTER TABLE users REPLICA IDENTITY USING INDEX users_pkey", False),
        ("CREATE RULE unseen AS ON DELETE TO users DO ALSO NOTHING", False),
    ],
)
def test_a_new_table_gets_its_key_when_it_is_filled(
    obstacle: LiteralString | None,
    taken_off: bool,
    postgres: Copy,
    external_db: str,
    source: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Unless somebody uses the table by then, or something needs the key."""
    original, put_back = PostgresTarget.replace_rows, list[str]()

    def replace_rows(self: PostgresTarget, *arguments: Any) -> Any:
        with psycopg.connect(external_db) as conn:
            if obstacle is not None:
                conn.execute(obstacle)
            if obstacle != "SELECT FROM users":
                conn.commit()
            return original(self, *arguments)

    def put_key_back(self: PostgresTarget, mapping: Any, key: str) -> None:
        put_back.append(key)
        restore(self, mapping, key)

    restore = PostgresTarget._put_key_back  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(PostgresTarget, "replace_rows", replace_rows)
    monkeypatch.setattr(PostgresTarget, "_put_key_back", put_key_back)
    add_many_users(source, 30)
    settle(postgres.pipeline)
    assert put_back == (["users_pkey"] if taken_off else [])
    key = "pg_index WHERE indrelid = 'users'::regclass AND indisprimary AND indisvalid"
    assert (postgres.count("users"), postgres.count(key)) == (30, 1)
    assert postgres.run("SELECT conname FROM pg_constraint WHERE conrelid = 'users'::regclass AND contype = 'p'") == [
        ("users_pkey",)
    ]
    assert differences(postgres.pipeline) == []
