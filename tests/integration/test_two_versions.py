"""Two versions of stackctl on one database: the newer migrates its own tables, the older says what it needs."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
from psycopg import sql

from stackctl.core.errors import ServiceError
from stackctl.sync.queue import retries
from tests.backend import (
    MINE,
    Connection,
    Project,
    add_user,
    differences,
    failures,
    fetch,
    one,
    poll,
    populate,
    sequence,
    settle,
)

if TYPE_CHECKING:
    from tests.conftest import Connect

OWN_TABLES = """
SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND (n.nspname = 'stackctl' OR c.relname LIKE '\\_stack\\_sync\\_%%')
"""


def add_column_of_a_later_version(conn: Connection) -> int:
    tables = fetch(conn, OWN_TABLES)
    for schema, table in tables:
        conn.execute(sql.SQL("ALTER TABLE {} ADD COLUMN later text").format(sql.Identifier(schema, table)))
    return len(tables)


def test_the_older_version_goes_on_beside_what_a_later_one_has_added(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    """In the operated database and in the copies; one that runs already, and one that is started."""
    outside = connect(external_db, autocommit=True)
    pipeline = project.postgres(MINE, external_db).sqlite(MINE).pipeline()
    made = populate(source)
    settle(pipeline)
    assert add_column_of_a_later_version(source) > 10
    assert add_column_of_a_later_version(outside) >= 3
    with sqlite3.connect(project.directory / "copy.db") as file:
        for (name,) in file.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE '_stack_sync%'"):
            file.execute(f"ALTER TABLE {name} ADD COLUMN later TEXT")
    for running in (pipeline, project.pipeline()):
        source.execute('DELETE FROM "ContactChannel" WHERE id = %s', (made.channel,))
        add_user(source)
        sequence(running)
        retries.record_failure(source, MINE, "analytics", ServiceError("down", code="unreachable"), scheduled=True)
        source.execute("UPDATE stackctl.delivery SET next_attempt_at = now()")
        poll(running)
        assert failures(running) == []
        assert differences(running) == []
    assert one(source, "SELECT count(*) FROM stackctl.pending_delivery") == 0
    (tenancy,) = project.run("status", "--json").json["tenancies"]
    assert {copy["backlog"] for database in tenancy["databases"] for copy in database["mappings"]} == {0}


@pytest.mark.parametrize("command", ["sequence", "poll", "sync --all", "run --max-duration 1s", "verify"])
def test_the_older_version_says_which_one_is_needed(command: str, project: Project, source: Connection) -> None:
    project.sqlite(MINE, mappings=["users"])
    source.execute("COMMENT ON SCHEMA stackctl IS 'format 2, stackctl 7.3'")
    add_user(source)
    outcome = project.run(*command.split(), "--json")
    error = outcome.lines[-1]["error"]
    assert (outcome.code, error["code"], error["hint"]) == (5, "newer-stackctl", "use stackctl 7.3 or later")
    assert one(source, 'SELECT count(*) FROM "ProjectUser" WHERE "shouldUpdateSequenceId"') == 1


def test_the_newer_version_migrates_what_is_its_own(project: Project, source: Connection, external_db: str) -> None:
    """What an older one has fed goes on where it was."""
    pipeline = project.postgres(MINE, external_db, mappings=["users"]).pipeline()
    populate(source)
    settle(pipeline)
    source.execute("COMMENT ON SCHEMA stackctl IS 'of our own'")
    source.execute("DROP TABLE stackctl.source_history")
    source.execute("DELETE FROM stackctl.migration_history WHERE name >= '20260101000017'")
    add_user(source)
    refused = project.run("sequence", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (5, "not-migrated")
    assert "migrate up --bundled" in refused.json["error"]["hint"]
    assert project.run("migrate", "up", "--bundled").code == 0
    for command in ("sequence", "poll"):
        assert project.run(command).code == 0
    assert differences(project.pipeline()) == []
    assert one(source, "SELECT count(*) FROM stackctl.source_history") == 1
