"""`sync --rebuild`: a table that gets another shape, and what hangs on it, in every kind of target."""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import errors

from stackctl.sync import service
from stackctl.sync.engine.database_sync import SyncOptions
from stackctl.sync.stop import Stop
from stackctl.sync.targets import postgres_rebuild
from tests.backend import MINE, Connection, Project, add_user, failures, fetch, one, poll
from tests.integration.test_changed_mappings import CREATED, Copy, copy, loaded

if TYPE_CHECKING:
    from tests.backend import Outcome
    from tests.conftest import Connect

__all__ = ["copy", "loaded"]
NUMBER = {"name": '4 + char_length(u."displayName")'}


def rebuild(copy: Copy, **options: Any) -> Outcome:
    return copy.project.run("sync", MINE, "--database", copy.name, "--rebuild", "people", "--yes", **options)


def retype(copy: Copy, type_: str = "integer", **parts: str) -> None:
    """The column `name` becomes a number."""
    copy.write(**NUMBER | parts)
    copy.file.write_text(copy.file.read_text().replace("name: text null", f"name: {type_}"))


def test_a_column_of_another_type(loaded: Copy, source: Connection) -> None:
    retype(loaded)
    add_user(source, displayName="four")
    assert loaded.project.run("sync", "--all").code == 5
    asked = loaded.project.run("sync", "--all", "--rebuild", "people")
    assert asked.code == 5 and "error: Rebuild 1 table? In each, what the mapping no longer has is" in asked.stderr
    assert rebuild(loaded).code == 0
    assert sorted(loaded.names()) == [8, 10, 10, 10]
    add_user(source, displayName="fifth")
    assert loaded.settle().error is None
    assert sorted(loaded.names()) == [8, 9, 10, 10, 10]
    assert loaded.equals_source()


def test_a_column_that_goes_and_one_that_must_not_be_null(loaded: Copy) -> None:
    loaded.write(**CREATED)
    assert loaded.settle().error is None
    loaded.write(columns=", anonymous: boolean", selected=', u."isAnonymous" AS anonymous')
    assert loaded.settle().error is not None
    assert rebuild(loaded).code == 0
    assert loaded.run("SELECT count(*) FROM people WHERE anonymous") == [(0,)]
    with pytest.raises(Exception, match="created"):
        loaded.run("SELECT created FROM people")
    assert loaded.equals_source()


def test_another_key(loaded: Copy, source: Connection) -> None:
    loaded.write(key="{name: displayName}", columns="", selected="")
    loaded.file.write_text(loaded.file.read_text().replace("name: text null", "name: text"))
    assert loaded.settle().error is not None
    assert rebuild(loaded).code == 0
    assert loaded.names() == ["user 1", "user 2", "user 3"]
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'new\' WHERE "displayName" = \'user 2\'')
    assert loaded.settle().error is None
    assert "new" in loaded.names()


def test_another_target_leaves_the_old_table(loaded: Copy) -> None:
    loaded.file.write_text(loaded.file.read_text().replace("target: people", "target: humans"))
    error = loaded.settle().error
    assert error is not None
    assert "the table was people" in error.message
    assert rebuild(loaded).code == 0
    assert loaded.run("SELECT count(*) FROM humans") == loaded.run("SELECT count(*) FROM people") == [(3,)]
    assert loaded.settle().error is None


def test_what_nobody_wrote_down_can_be_built_anew(loaded: Copy) -> None:
    loaded.run("DROP TABLE _stack_sync_mapping")
    retype(loaded)
    error = loaded.settle().error
    assert error is not None
    assert error.code == "table-differs"
    assert rebuild(loaded).code == 0
    assert loaded.equals_source()


def test_what_was_refused_is_forgotten(loaded: Copy) -> None:
    retype(loaded)
    pipeline = loaded.project.pipeline()
    with pipeline.open_session() as conn:
        service.entries.enqueue(conn, [MINE])
    poll(pipeline)
    assert [failure.code for failure in failures(pipeline)] == ["mapping-changed"]
    assert loaded.project.run("status", "--check").code == 1
    assert rebuild(loaded).code == 0
    assert failures(pipeline) == []
    assert loaded.project.run("status", "--check").code == 0


def test_what_others_hang_on_the_table_lives_on(loaded: Copy) -> None:
    loaded.run("ALTER TABLE people ADD COLUMN note TEXT", "UPDATE people SET note = 'mine'",
               "CREATE INDEX by_name ON people (name)", "CREATE VIEW notes AS SELECT id, note FROM people",
               "CREATE VIEW shouted AS SELECT id, name FROM people")  # fmt: skip
    retype(loaded)
    assert rebuild(loaded).code == 0
    assert loaded.run("SELECT DISTINCT note FROM notes") == [("mine",)]
    assert loaded.run("SELECT DISTINCT name FROM shouted") == [(10,)]
    with pytest.raises(Exception, match="by_name"):
        loaded.run("CREATE INDEX by_name ON people (name)")
    assert loaded.settle().error is None


def test_a_view_of_what_goes_is_in_the_way_and_nothing_happens(loaded: Copy) -> None:
    loaded.write(**CREATED)
    assert loaded.settle().error is None
    loaded.run("CREATE VIEW ages AS SELECT id, created FROM people")
    before = loaded.record()
    loaded.write()
    outcome = rebuild(loaded)
    assert outcome.code == 5
    assert "ages" in outcome.stderr
    assert "can't be rebuilt" in outcome.stderr
    assert loaded.run("SELECT count(*) FROM ages WHERE created IS NOT NULL") == [(3,)]
    assert loaded.record() == before


POINTS = {
    "postgres": ["postgres:PostgresTarget.prepare:after", "postgres_rebuild:TableRebuild.exchange:before",
                 "postgres_rebuild:TableRebuild.exchange:after", "postgres:PostgresTarget.advance_cursor:after"],
    "sqlite": ["sqlite:SqliteTarget.replace_rows:after", "sqlite:SqliteTarget.rebuild_table:after",
               "sqlite:SqliteTarget.advance_cursor:after"],
    "duckdb": ["duckdb:DuckdbTarget.replace_rows:after", "duckdb:DuckdbTarget.rebuild_table:after",
               "duckdb:DuckdbTarget.advance_cursor:after"],
}  # fmt: skip


def test_a_kill_anywhere_leaves_the_old_table(loaded: Copy) -> None:
    before = loaded.record()
    retype(loaded)
    for point in POINTS[loaded.kind]:
        assert rebuild(loaded, point=f"stackctl.sync.targets.{point}").code == -9, point
        assert loaded.names() == ["user 1", "user 2", "user 3"], point
        assert loaded.record() == before, point
    assert rebuild(loaded).code == 0
    assert loaded.names() == [10, 10, 10]
    assert [len(row) for row in loaded.run("SELECT * FROM people")] == [2, 2, 2]
    assert loaded.equals_source()


def test_taken_back_it_leaves_nothing_behind(loaded: Copy) -> None:
    retype(loaded)
    point = POINTS[loaded.kind][0]
    assert rebuild(loaded, point=f"stackctl.sync.targets.{point}").code == -9
    loaded.write()
    assert loaded.settle().error is None
    assert [len(row) for row in loaded.run("SELECT * FROM people")] == [2, 2, 2]


# -- PostgreSQL: readers, grants, foreign keys


@pytest.fixture
def people(project: Project, external_db: str, source: Connection) -> Copy:
    copy = Copy(project, external_db, "postgres")
    add_user(source, displayName="user 1")
    assert copy.settle().error is None
    return copy


def test_grants_foreign_keys_and_dependent_views_are_kept(people: Copy, external_db: str, connect: Connect) -> None:
    outside = connect(external_db, autocommit=True)
    role = f"reader_{uuid.uuid4().hex}"
    outside.execute(f"CREATE ROLE {role}")  # type: ignore[arg-type]
    people.run("REVOKE ALL ON people FROM PUBLIC", f"GRANT SELECT ON people TO {role}",
               f"GRANT UPDATE (name) ON people TO {role}", "COMMENT ON COLUMN people.name IS 'what it is'",
               "CREATE UNIQUE INDEX one_name ON people (name)",
               "ALTER TABLE people ADD CONSTRAINT named CHECK (name IS NOT NULL)",
               "CREATE TABLE orders (who uuid REFERENCES people ON DELETE CASCADE)",
               "INSERT INTO orders SELECT id FROM people",
               "CREATE VIEW named WITH (security_barrier) AS SELECT id, name FROM people",
               f"GRANT SELECT ON named TO {role}", "CREATE MATERIALIZED VIEW counted AS SELECT count(name) FROM named",
               "CREATE UNIQUE INDEX ON counted (count)", "COMMENT ON VIEW named IS 'for reports'")  # fmt: skip
    oid = one(outside, "SELECT 'people'::regclass::oid")
    retype(people, "integer null")
    try:
        assert rebuild(people).code == 0
        assert one(outside, "SELECT 'people'::regclass::oid") == oid
        assert fetch(outside, "SELECT * FROM orders JOIN people ON id = who") != []
        assert fetch(outside, "SELECT name FROM named") == [(10,)]
        assert fetch(outside, "SELECT * FROM counted") == [(1,)]
        rights = ("people", "SELECT"), ("named", "SELECT")
        for table, right in rights:
            assert one(outside, "SELECT has_table_privilege(%s, %s, %s)", role, table, right)
        assert one(outside, "SELECT has_column_privilege(%s, 'people', 'name', 'UPDATE')", role)
        assert not one(outside, "SELECT has_table_privilege(%s, 'people', 'DELETE')", role)
        assert one(outside, "SELECT reloptions FROM pg_class WHERE relname = 'named'") == ["security_barrier=true"]
        assert one(outside, "SELECT obj_description('named'::regclass, 'pg_class')") == "for reports"
        assert one(outside, "SELECT col_description('people'::regclass, attnum) FROM pg_attribute"
                   " WHERE attrelid = 'people'::regclass AND attname = 'name'") == "what it is"  # fmt: skip
        assert one(outside, "SELECT indexdef FROM pg_indexes WHERE indexname = 'one_name'").endswith("(name)")
        assert one(outside, "SELECT count(*) FROM pg_indexes WHERE tablename = 'counted'") == 1
        with pytest.raises(errors.CheckViolation):
            outside.execute("UPDATE people SET name = NULL")
    finally:
        outside.execute(f"DROP OWNED BY {role}")  # type: ignore[arg-type]
        outside.execute(f"DROP ROLE {role}")  # type: ignore[arg-type]


def test_a_type_that_was_narrowed_by_hand(people: Copy) -> None:
    people.write(**CREATED)
    assert people.settle().error is None
    people.run("ALTER TABLE people ALTER created TYPE timestamp(0)")
    error = people.settle().error
    assert error is not None
    assert error.code == "table-differs"
    assert rebuild(people).code == 0
    assert people.equals_source()


def test_a_foreign_key_to_another_key_is_named(people: Copy, external_db: str) -> None:
    people.run("CREATE TABLE orders (who uuid REFERENCES people)")
    people.write(key="{name: displayName}")
    people.file.write_text(people.file.read_text().replace("name: text null", "name: text"))
    outcome = rebuild(people)
    assert outcome.code == 5
    assert "orders_who_fkey" in outcome.stderr
    assert people.names() == ["user 1"]


def test_readers_see_the_old_rows_or_the_new_ones(people: Copy, external_db: str, source: Connection) -> None:
    """Whatever they read, and also in a transaction that began before."""
    seen: set[tuple[Any, ...]] = set()
    done, reading = threading.Event(), threading.Event()

    def read() -> None:
        with psycopg.connect(external_db, autocommit=True) as conn:
            while not done.is_set():
                seen.add(tuple(conn.execute("SELECT id, name::text FROM people").fetchall()))
                reading.set()

    thread = threading.Thread(target=read)
    thread.start()
    assert reading.wait(30)
    retype(people)
    try:
        with psycopg.connect(external_db) as old:
            old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            old.execute("SELECT count(*) FROM _stack_sync_owner")  # its snapshot, and no lock on the table
            assert rebuild(people).code == 0
            reading.clear()
            assert reading.wait(30)
            assert old.execute("SELECT count(*) FROM people").fetchone() == (1,)
    finally:
        done.set()
        thread.join()
    assert sorted(name for rows in seen for _, name in rows) == ["10", "user 1"]


def test_a_reader_that_holds_the_table_is_waited_for_but_not_long(
    people: Copy, external_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_rebuild, "LOCK_ATTEMPTS", 1)
    retype(people)
    with psycopg.connect(external_db) as reader:
        reader.execute("SELECT * FROM people")
        options = SyncOptions(batch_size=1000, rebuild="people")
        scope = service.Scope(None, mappings=["people"])
        (result,) = service.sync(people.project.pipeline(), scope, options, Stop(), service.Reports())
        assert result.error is not None
        assert result.error.code == "lock-timeout"
    assert rebuild(people).code == 0
