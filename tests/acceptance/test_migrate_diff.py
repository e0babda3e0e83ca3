"""stackctl migrate diff and new --revert: schemas compared, on real files and servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stackctl.migrate.diff import DatabaseSide, DiffOptions, diff_sides
from tests.backend import Project

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Connect

TEAM = """CREATE TYPE mood AS ENUM ('ok');
CREATE TABLE team (id int PRIMARY KEY, slug text);
CREATE INDEX team_slug ON team (slug);
"""


@pytest.fixture
def own(tmp_path: Path, empty_db: str) -> Project:
    """A folder `db` with one migration, applied."""
    project = Project(tmp_path, empty_db)
    write(project, "20260101000001_team", TEAM)
    assert project.run("migrate", "up", "--dir", "db").code == 0
    return project


def write(project: Project, name: str, text: str) -> None:
    (project.directory / "db").mkdir(exist_ok=True)
    (project.directory / "db" / f"{name}.sql").write_text(text)


def test_equal_is_0_and_says_nothing_on_stdout(own: Project) -> None:
    told = own.run("migrate", "diff", "--to", "db")
    assert (told.code, told.stdout) == (0, "")
    assert "no difference" in told.stderr
    assert own.run("migrate", "diff", "--from", "db", "--json").json == {
        "equal": True, "from": "db", "to": "the operated database", "sql": "", "statements": [], "not_done": [],
    }  # fmt: skip


def test_drift_is_shown_and_the_sql_brings_the_database_back(own: Project, empty_db: str, connect: Connect) -> None:
    conn = connect(empty_db, autocommit=True)
    conn.execute("ALTER TABLE team ADD COLUMN by_hand int; DROP INDEX team_slug; COMMENT ON TABLE team IS 'ours'")
    told = own.run("migrate", "diff", "--to", "db")
    assert told.code == 1
    assert (
        told.stdout
        == """\
CREATE INDEX team_slug ON team USING btree (slug);

COMMENT ON TABLE team IS NULL;

-- destroys: column team.by_hand and its values
ALTER TABLE team DROP COLUMN by_hand;
"""
    )
    assert "3 statements, 1 of them destroying data" in told.stderr
    conn.execute(told.stdout.encode())
    assert own.run("migrate", "diff", "--to", "db").code == 0


def test_what_was_made_by_hand_becomes_a_migration(own: Project, empty_db: str, connect: Connect) -> None:
    """The migration that takes the folder's state to the database's, new enum values in front of what uses them."""
    connect(empty_db, autocommit=True).execute("ALTER TYPE mood ADD VALUE 'fine'")
    connect(empty_db, autocommit=True).execute("ALTER TABLE team ADD COLUMN mood mood DEFAULT 'fine'")
    told = own.run("migrate", "diff", "--from", "db", "--json")
    assert [one["destroys"] for one in told.json["statements"]] == [None, None]
    assert told.json["sql"].startswith("-- stackctl:outside-transaction\nALTER TYPE mood ADD VALUE 'fine';")
    write(own, "20260102000000_by_hand", told.json["sql"])
    assert own.run("migrate", "diff", "--from", "db").code == 0


def test_two_folders_of_which_each_makes_its_role(own: Project) -> None:
    write(own, "20260102000000_role", "CREATE ROLE diff_maker; GRANT SELECT ON team TO diff_maker;")
    other = own.directory / "other"
    other.mkdir()
    (other / "20260101000001_team.sql").write_text(TEAM + "CREATE ROLE diff_maker;")
    told = own.run("migrate", "diff", "--from", "other", "--to", "db")
    assert (told.code, told.stdout) == (1, "GRANT SELECT ON TABLE team TO diff_maker;\n")


def test_two_databases_by_their_urls(own: Project, external_db: str, connect: Connect) -> None:
    connect(external_db, autocommit=True).execute("CREATE VIEW seen AS SELECT 1 AS one")
    told = own.run("migrate", "diff", "--from", external_db, "--to", external_db)
    assert (told.code, "scratch" in told.stderr) == (0, False)
    told = own.run("migrate", "diff", "--to", external_db)
    assert told.stdout.startswith("CREATE VIEW seen AS")
    assert "DROP TABLE team" in told.stdout


def test_histories_of_runners_are_no_difference(own: Project, empty_db: str, connect: Connect) -> None:
    conn = connect(empty_db, autocommit=True)
    conn.execute("CREATE TABLE schema_migrations (version text PRIMARY KEY); CREATE TABLE changes (id int)")
    told = own.run("migrate", "diff", "--to", "db")
    assert told.stdout == "-- destroys: table changes and its rows\nDROP TABLE changes;\n"


def test_what_no_statement_does_is_said(own: Project, empty_db: str, connect: Connect) -> None:
    conn = connect(empty_db, autocommit=True)
    conn.execute("CREATE STATISTICS pairs ON id, slug FROM team; CREATE SCHEMA audit; ALTER TYPE mood ADD VALUE 'bad'")
    conn.execute("CREATE RULE quiet AS ON DELETE TO team DO INSTEAD NOTHING")
    told = own.run("migrate", "diff", "--to", "db", "--json")
    assert (told.code, told.json["statements"]) == (1, [])
    assert told.json["not_done"] == [
        "type mood has the values 'bad', which no statement takes back: make another type for its columns",
        "rule quiet on team is to go: write that by hand",
        "statistics pairs is to go: write that by hand",
        "schema audit is to go, with what is in it",
    ]
    assert told.json["sql"].count("-- not done: ") == 4


def test_stackctls_tables_behind_a_folder_are_no_difference(own: Project) -> None:
    assert own.run("migrate", "up", "--dir", "db", "--bundled").code == 0
    assert own.run("migrate", "diff", "--to", "db").code == 0


def test_a_folder_that_does_not_apply_is_an_input_error(own: Project) -> None:
    write(own, "20260102000000_bad", "SELECT 1 / 0;")
    told = own.run("migrate", "diff", "--to", "db", "--json")
    assert (told.code, told.json["error"]["code"]) == (3, "migrations-do-not-apply")
    assert "20260102000000_bad.sql:1" in told.json["error"]["message"]
    assert own.run("migrate", "diff", "--to", "nowhere").code == 3


def test_another_version_of_the_server_is_read_by_way_of_its_dump(
    own: Project, empty_db: str, external_db: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = connect(empty_db, autocommit=True), connect(external_db, autocommit=True)
    other.execute(TEAM.encode())
    versions = iter([17, 18])
    monkeypatch.setattr("stackctl.migrate.diff._read_version", lambda conn: next(versions, 17))
    said: list[str] = []
    options = DiffOptions("public", trust=False, capture="auto")
    found = diff_sides(DatabaseSide(one), DatabaseSide(other), options, tell=said.append)
    assert (found.is_empty, sum("by way of a dump" in text for text in said)) == (True, 2)
