"""Databases that another tool has migrated: its history is known, taken over where names match, and never run over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

import pytest

from stackctl.core.errors import StateError, UsageError
from stackctl.migrate.adopt import adopt
from stackctl.migrate.folder import discover
from stackctl.migrate.runner.run import apply_migrations
from tests.migrations import catch_error, fetch_value, list_applied, write_files

if TYPE_CHECKING:
    from pathlib import Path

    from stackctl.migrate.files import Migration
    from stackctl.migrate.runner.events import Event
    from tests.conftest import Connect
    from tests.migrations import Connection


@dataclass(frozen=True)
class Tool:
    """`history`: its table, in which the first of two files is applied. `others`: what else it has."""

    history: LiteralString
    numbers: tuple[str, str] = ("20260101000001", "20260101000002")
    others: tuple[str, ...] = ()


# The tables as the tools make them.
TOOLS = {
    "dbmate": Tool(
        "CREATE TABLE schema_migrations (version varchar(128) PRIMARY KEY);"
        "INSERT INTO schema_migrations VALUES ('20260101000001'), ('20250101000000')",
        others=("20250101000000",),
    ),
    "golang-migrate": Tool(
        "CREATE TABLE schema_migrations (version bigint NOT NULL PRIMARY KEY, dirty boolean NOT NULL);"
        "INSERT INTO schema_migrations VALUES (1, false)",
        ("000001", "000002"),
    ),
    "goose": Tool(
        "CREATE TABLE goose_db_version (id serial PRIMARY KEY, version_id bigint NOT NULL, is_applied boolean NOT NULL,"
        " tstamp timestamp DEFAULT now());"
        "INSERT INTO goose_db_version (version_id, is_applied)"
        " VALUES (0, true), (1, true), (2, true), (2, false)",
        ("00001", "00002"),
    ),
    "Flyway": Tool(
        "CREATE TABLE flyway_schema_history (installed_rank int PRIMARY KEY, version varchar(50), description text,"
        " type varchar(20), script text, checksum int, installed_by text, installed_on timestamp DEFAULT now(),"
        " execution_time int, success boolean NOT NULL);"
        "INSERT INTO flyway_schema_history (installed_rank, version, type, success) VALUES"
        " (1, '20260101000001', 'SQL', true), (2, '20260101000002', 'SQL', true), (3, NULL, 'SQL', true),"
        " (4, '20260101000002', 'UNDO_SQL', true)"
    ),
    "node-pg-migrate": Tool(
        "CREATE TABLE pgmigrations (id serial PRIMARY KEY, name varchar(255) NOT NULL, run_on timestamp NOT NULL);"
        "INSERT INTO pgmigrations (name, run_on) VALUES ('20260101000001_a', now())"
    ),
    "sql-migrate": Tool(
        "CREATE TABLE gorp_migrations (id text PRIMARY KEY, applied_at timestamptz);"
        "INSERT INTO gorp_migrations VALUES ('20260101000001_a.sql', now())"
    ),
    "tern": Tool(
        "CREATE TABLE schema_version (version int4 NOT NULL); INSERT INTO schema_version VALUES (1)", ("001", "002")
    ),
}
UNREADABLE: dict[str, LiteralString] = {
    "Alembic": "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)",
    "Django": "CREATE TABLE django_migrations (id serial, app text, name text, applied timestamptz)",
    "Liquibase": "CREATE TABLE databasechangelog (id text, author text, filename text)",
    "Knex": "CREATE TABLE knex_migrations (id serial, name text, batch int, migration_time timestamptz)",
    "sqitch": "CREATE SCHEMA sqitch; CREATE TABLE sqitch.changes (change_id text PRIMARY KEY, change text)",
}


PRISMAS: LiteralString = (
    "CREATE TABLE _prisma_migrations (migration_name text, finished_at timestamptz, rolled_back_at timestamptz);"
    "INSERT INTO _prisma_migrations VALUES ('20260101000001_a', NULL, NULL), ('20250101000000_o', NULL, now())"
)
DIRTY: LiteralString = (
    "CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL);"
    "INSERT INTO schema_migrations VALUES (20260101000001, true)"
)


@pytest.fixture
def conn(empty_db: str, connect: Connect) -> Connection:
    return connect(empty_db, autocommit=True)


def write(directory: Path, numbers: tuple[str, str]) -> tuple[Migration, ...]:
    for number, (name, text) in zip(numbers, (("a", "CREATE TABLE a ()"), ("b", "CREATE TABLE b ()")), strict=True):
        (directory / f"{number}_{name}.sql").write_text(f"-- migrate:up\n{text}")
    return discover(directory)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_history_is_taken_over_and_never_run_over(conn: Connection, tmp_path: Path, tool: str) -> None:
    given = TOOLS[tool]
    conn.execute("CREATE TABLE a ()")
    conn.execute(given.history)
    first, second = write(tmp_path, given.numbers)
    error = catch_error(conn, (first, second))
    assert (error.code, error.details["names"]) == ("not-adopted", [first.name])
    found = adopt(conn, (first, second))
    assert (found.adopted, found.without_file) == ((first.name,), given.others)
    assert [one.name for one in apply_migrations(conn, (first, second)).applied] == [second.name]
    assert adopt(conn, (first, second)).adopted == ()


@pytest.mark.parametrize("tool", UNREADABLE)
def test_one_whose_entries_name_no_files_is_refused_by_name(conn: Connection, tmp_path: Path, tool: str) -> None:
    conn.execute(UNREADABLE[tool])
    migrations = write_files(tmp_path, a="CREATE TABLE a ()")
    with pytest.raises(UsageError) as caught:
        adopt(conn, migrations)
    assert (caught.value.code, tool in caught.value.message) == ("nothing-to-adopt", True)
    remarks: list[Event] = []
    assert list_applied(apply_migrations(conn, migrations, on_event=remarks.append)) == ["a"]
    assert [tool in event.detail for event in remarks if event.kind == "remark"] == [True]


@pytest.mark.parametrize(
    ("history", "named"),
    [
        (PRISMAS, "20260101000001_a"),
        (DIRTY, "20260101000001"),
    ],
    ids=["prisma", "golang-migrate"],
)
def test_what_another_tool_did_not_finish_stops_it_unless_told(
    conn: Connection, tmp_path: Path, history: LiteralString, named: str
) -> None:
    conn.execute("CREATE TABLE a ()")
    conn.execute(history)
    migrations = write_files(tmp_path, a="CREATE TABLE a ()")
    with pytest.raises(StateError) as caught:
        adopt(conn, migrations)
    assert (caught.value.code, caught.value.details["names"]) == ("failed-elsewhere", [named])
    assert adopt(conn, migrations, through="20260101000001").adopted == (migrations[0].name,)


def test_a_temporary_table_is_not_lacking(conn: Connection, tmp_path: Path) -> None:
    conn.execute("CREATE TABLE a ()")
    conn.execute(TOOLS["sql-migrate"].history)
    (migration,) = write_files(tmp_path, a="CREATE TEMP TABLE work (x int); CREATE TABLE a ()")
    assert adopt(conn, (migration,)).doubtful == ()
    assert fetch_value(conn, "SELECT count(*) FROM stackctl.migration_history") == 1
