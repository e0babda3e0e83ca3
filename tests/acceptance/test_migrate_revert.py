"""stackctl migrate new --revert: the draft, and what `up` makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stackctl.migrate.schema.dump import dump_schema
from tests.backend import Project

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Connect

START = """CREATE TYPE mood AS ENUM ('ok');
CREATE TABLE team (id int PRIMARY KEY, slug text, note varchar(20) DEFAULT 'a');
CREATE TABLE old_name (id int);
CREATE INDEX team_slug ON team (slug);
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
"""


@pytest.fixture
def own(tmp_path: Path, empty_db: str) -> Project:
    project = Project(tmp_path, empty_db)
    (tmp_path / "db").mkdir()
    write(project, "20260101000000_start", START)
    assert project.run("migrate", "up", "--dir", "db").code == 0
    return project


def write(project: Project, name: str, text: str) -> None:
    (project.directory / "db" / f"{name}.sql").write_text(text)


def draft(project: Project, *arguments: str) -> tuple[str, list[str]]:
    """The text of the new file without its first line, and what is missing."""
    told = project.run("migrate", "new", "--revert", *arguments, "--dir", "db", "--json")
    assert told.code == 0, told.stderr
    text = (project.directory / told.json["path"]).read_text()
    return text.partition("\n")[2].strip(), told.json["missing"]


def apply_and_revert(project: Project, url: str, connect: Connect, text: str) -> str:
    """Apply a migration and the draft of its reverse; the schema is what it was. Returns the draft."""
    conn = connect(url, autocommit=True)
    before = dump_schema(conn, "public")
    write(project, "20260102000000_change", text)
    assert project.run("migrate", "up", "--dir", "db").code == 0
    assert dump_schema(conn, "public") != before
    reverse, missing = draft(project, "20260102000000")
    assert missing == []
    up = project.run("migrate", "up", "--dir", "db")
    assert up.code == 0, up.stderr
    assert dump_schema(conn, "public") == before
    return reverse


def test_what_can_be_reversed_is(own: Project, empty_db: str, connect: Connect) -> None:
    reverse = apply_and_revert(
        own, empty_db, connect,
        """CREATE TABLE member (id int PRIMARY KEY, team int REFERENCES team);
        INSERT INTO member VALUES (1, NULL);
        ALTER TABLE team ADD COLUMN size int NOT NULL DEFAULT 0, ADD CONSTRAINT small CHECK (size < 9);
        ALTER TABLE team ALTER slug SET NOT NULL, ALTER note SET DEFAULT 'b';
        ALTER TABLE team RENAME COLUMN note TO remark;
        ALTER TABLE old_name RENAME TO new_name;
        DROP INDEX team_slug;
        CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2';
        CREATE VIEW seen AS SELECT remark FROM team;
        """,
    )  # fmt: skip
    assert reverse.startswith(
        'ALTER TABLE "new_name" RENAME TO "old_name";\nALTER TABLE "team" RENAME COLUMN "remark" TO "note";\n'
    )
    for part in ("ALTER TABLE team ALTER COLUMN slug DROP NOT NULL;", "CREATE INDEX team_slug ON team", "SELECT 1",
                 "-- destroys: table member and its rows\nDROP TABLE member;", "DROP VIEW seen;",
                 "-- destroys: column team.size and its values\nALTER TABLE team DROP COLUMN size;"):  # fmt: skip
        assert part in reverse
    assert "DROP CONSTRAINT member_team_fkey" not in reverse


def test_concurrently_built_is_concurrently_dropped_and_the_other_way(
    own: Project, empty_db: str, connect: Connect
) -> None:
    reverse = apply_and_revert(
        own, empty_db, connect,
        """ALTER TABLE team ADD COLUMN a int;
        -- stackctl:split
        -- stackctl:outside-transaction
        CREATE UNIQUE INDEX CONCURRENTLY fresh ON team (note);
        DROP INDEX CONCURRENTLY team_slug;
        """,
    )  # fmt: skip
    assert (
        reverse
        == """-- stackctl:outside-transaction
DROP INDEX CONCURRENTLY fresh;

-- stackctl:split
-- destroys: column team.a and its values
ALTER TABLE team DROP COLUMN a;

-- stackctl:split
-- stackctl:outside-transaction
CREATE INDEX CONCURRENTLY team_slug ON team USING btree (slug);"""
    )


def test_what_is_lost_is_said_and_keeps_the_file_from_running(own: Project) -> None:
    write(own, "20260102000000_change", """ALTER TYPE mood ADD VALUE 'bad';
UPDATE team SET slug = 'x';
INSERT INTO team VALUES (1);
ALTER TABLE team DROP COLUMN note;
DROP TABLE old_name;
DO $$ BEGIN PERFORM 1; END $$;
CREATE ROLE someone;
SET lock_timeout = '1s';
ALTER TABLE team ADD COLUMN size int;
""")  # fmt: skip
    text, missing = draft(own, "20260102000000_change.sql", "take it back")
    assert missing == [
        "line 2: UPDATE team SET slug = 'x': what the rows held before is gone",
        "line 3: INSERT INTO team VALUES (1): the rows that it made stay",
        "line 4: ALTER TABLE team DROP COLUMN note: column team.note comes back empty",
        "line 5: DROP TABLE old_name: table old_name comes back empty",
        "line 6: DO $$ BEGIN PERFORM 1; END $$: what it did can't be told from the schema",
        "line 7: CREATE ROLE someone: what it did can't be told from the schema",
        "type mood has the values 'bad', which no statement takes back: make another type for its columns",
    ]
    assert text.count("-- not reversed: ") == 7
    assert "CREATE TABLE old_name (\n  id integer\n);" in text
    assert own.run("migrate", "up", "--dir", "db", "--to", "20260102000000").code == 0
    refused = own.run("migrate", "up", "--dir", "db", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (3, "empty-migration")
    assert "is a draft" in refused.json["error"]["message"]
    file = next((own.directory / "db").glob("*_take_it_back.sql"))
    assert f"{file.stem}\t" in own.run("migrate", "status", "--dir", "db").stdout
    file.write_text(file.read_text().replace("-- stackctl:draft\n", ""))
    assert own.run("migrate", "up", "--dir", "db").code == 0


def test_where_nothing_can_be_reversed_the_file_is_empty(own: Project) -> None:
    write(own, "20260102000000_change", "UPDATE team SET slug = 'x';")
    text, _ = draft(own, "20260102000000_change")
    assert text.startswith("-- not reversed: line 1") and ";" not in text
    assert own.run("migrate", "up", "--dir", "db").code == 3


def test_an_earlier_migration_that_later_ones_need(own: Project) -> None:
    write(own, "20260102000000_change", "CREATE TABLE member (id int);")
    write(own, "20260103000000_later", "CREATE VIEW members AS SELECT * FROM member;")
    text, missing = draft(own, "20260102000000")
    assert "-- Later migrations may need what it takes away: 20260103000000_later" in text
    assert len(missing) == 1
    assert "behind the last migration it fails" in missing[0] and "view members depends on table member" in missing[0]


@pytest.mark.parametrize(
    ("text", "down"),
    [
        ("-- migrate:up\nCREATE TABLE x ();\n\n-- migrate:down\nDROP TABLE x;\n", "DROP TABLE x;"),
        (
            "-- migrate:up\nCREATE TABLE x ();\n-- migrate:down transaction:false\nDROP TABLE x;\n",
            "-- stackctl:outside-transaction\nDROP TABLE x;",
        ),
        ("-- +goose Up\nCREATE TABLE x ();\n-- +goose Down\n\nDROP TABLE x;\n", "DROP TABLE x;"),
    ],
)
def test_the_way_down_of_another_tools_file_is_the_draft(own: Project, text: str, down: str) -> None:
    write(own, "20260102000000_x", text)
    assert own.run("migrate", "up", "--dir", "db").code == 0
    assert draft(own, "20260102000000") == (down, [])
    assert own.run("migrate", "up", "--dir", "db").code == 0
    assert own.run("migrate", "status", "--check", "--dir", "db").code == 0


def test_a_pairs_way_down_and_what_is_wrong_with_the_command_line(own: Project) -> None:
    (own.directory / "db" / "20260102000000_x.up.sql").write_text("CREATE TABLE x ();")
    (own.directory / "db" / "20260102000000_x.down.sql").write_text("DROP TABLE x; -- gone\n")
    assert draft(own, "20260102000000") == ("DROP TABLE x; -- gone", [])
    assert own.run("migrate", "new", "--revert", "20990101000000", "--dir", "db").code == 2
    assert own.run("migrate", "new", "--dir", "db").code == 2
