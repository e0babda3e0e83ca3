"""stackctl migrate squash: one file for many, on databases that have all, none or some of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stackctl.migrate.schema.dump import dump_schema
from tests.backend import Project, fetch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Connect

FILES = {
    "20260101000001_team": "CREATE TABLE team (id serial PRIMARY KEY, slug text, at timestamptz DEFAULT now());\n"
    "CREATE TABLE plan (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, long text"
    " GENERATED ALWAYS AS (name || '!') STORED);",
    "20260101000002_rows": "INSERT INTO plan (name) VALUES ('free'), ('it''s \\ pro'), (NULL);\n"
    "INSERT INTO team (slug) VALUES ('a');",
    "20260101000003_more": "ALTER TABLE team ADD COLUMN plan int REFERENCES plan;\n"
    "CREATE INDEX team_slug ON team (slug);\n"
    "-- stackctl:split\n-- stackctl:outside-transaction\n"
    "CREATE INDEX CONCURRENTLY by_at ON team (at);",
}
LAST = "20260101000004_last"
BASELINE = "20260101000003_baseline"


# What a dump does not hold, by its statement: one look names as many as a sentence takes.
LOST = (
    {
        "CREATE STATISTICS pairs ON id, slug FROM team": "statistics pairs",
        "CREATE SCHEMA audit; CREATE TABLE audit.log ()": "schema audit",
        "ALTER TABLE team ALTER slug SET STORAGE EXTERNAL": "column team.slug",
    },
    {
        "ALTER TABLE team ALTER at SET STATISTICS 500": "column team.at",
        "ALTER TABLE team CLUSTER ON team_pkey": "index that team is clustered by",
        "COMMENT ON SCHEMA public IS 'ours'": "comment on schema public: ours",
        "SELECT lo_create(4711)": "large object 4711",
    },
)


@pytest.fixture
def own(tmp_path: Path, empty_db: str) -> Project:
    """Three files and a fourth, none applied."""
    (tmp_path / "db").mkdir()
    for name, text in (FILES | {LAST: "CREATE TABLE last ();"}).items():
        (tmp_path / "db" / f"{name}.sql").write_text(text)
    return Project(tmp_path, empty_db)


def squash(project: Project, *arguments: str) -> None:
    done = project.run("migrate", "squash", "--to", "20260101000003", "--dir", "db", "--yes", *arguments)
    assert done.code == 0, done.stderr


def list_files(project: Project) -> list[str]:
    return sorted(path.name for path in (project.directory / "db").iterdir())


def states(project: Project) -> dict[str, str]:
    told = project.run("migrate", "status", "--dir", "db", "--json").json
    return (
        dict.fromkeys(told["pending"], "pending")
        | {entry["name"]: "applied" for entry in told["applied"]}
        | dict.fromkeys(told["unknown"], "unknown")
    )


def test_a_database_that_has_them_all_needs_nothing(own: Project, empty_db: str, connect: Connect) -> None:
    assert own.run("migrate", "up", "--dir", "db", "--to", "20260101000003").code == 0
    before = dump_schema(connect(empty_db, autocommit=True), "public")
    squash(own)
    assert list_files(own) == [f"{BASELINE}.sql", f"{LAST}.sql"]
    assert states(own) == {BASELINE: "applied", LAST: "pending"}
    assert own.run("migrate", "verify", "--dir", "db").code == 0
    assert own.run("migrate", "up", "--dir", "db", "--json").json["applied"][0]["name"] == LAST
    assert own.run("migrate", "status", "--check", "--dir", "db").code == 0
    assert own.run("migrate", "verify", "--dir", "db").code == 0
    assert own.run("migrate", "up", "--dir", "db", "--json").json == {"applied": []}
    assert before in dump_schema(connect(empty_db, autocommit=True), "public").replace("CREATE TABLE last ();\n\n", "")


def test_an_empty_database_gets_the_same_by_the_one_file(
    own: Project, empty_db: str, external_db: str, connect: Connect
) -> None:
    assert own.run("migrate", "up", "--dir", "db").code == 0
    squash(own)
    assert own.run("migrate", "up", "--dir", "db", "--database-url", external_db).code == 0
    one, other = connect(empty_db, autocommit=True), connect(external_db, autocommit=True)
    assert dump_schema(other, "public") == dump_schema(one, "public")
    for conn in (one, other):
        assert fetch(conn, "SELECT id, name, long FROM plan ORDER BY id") == [
            (1, "free", "free!"), (2, "it's \\ pro", "it's \\ pro!"), (3, None, None),
        ]  # fmt: skip
        assert fetch(conn, "INSERT INTO plan (name) VALUES ('x') RETURNING id") == [(4,)]
        assert fetch(conn, "INSERT INTO team DEFAULT VALUES RETURNING id") == [(2,)]
    for check in ("status --check", "verify"):
        assert own.run("migrate", *check.split(), "--dir", "db", "--database-url", external_db).code == 0


def test_where_sequences_stand_is_carried_over(own: Project, empty_db: str, external_db: str, connect: Connect) -> None:
    (own.directory / "db" / f"{LAST}.sql").write_text(
        "CREATE SEQUENCE fresh START 5; CREATE SEQUENCE used; SELECT nextval('used');"
        "CREATE SEQUENCE ahead; SELECT setval('ahead', 41, false); ALTER TABLE plan ALTER id RESTART WITH 100;"
    )
    assert own.run("migrate", "up", "--dir", "db").code == 0
    assert own.run("migrate", "squash", "--dir", "db", "--yes").code == 0
    assert own.run("migrate", "up", "--dir", "db", "--database-url", external_db).code == 0
    for url in (empty_db, external_db):
        conn = connect(url, autocommit=True)
        assert fetch(conn, "SELECT nextval('fresh'), nextval('used'), nextval('ahead')") == [(5, 2, 41)]
        assert fetch(conn, "INSERT INTO plan (name) VALUES ('x') RETURNING id") == [(100,)]


def test_a_baseline_is_forgotten_with_the_files_that_it_stands_for(own: Project) -> None:
    assert own.run("migrate", "up", "--dir", "db").code == 0
    squash(own)
    baseline = "20260101000003_baseline"
    marked = own.run("migrate", "repair", "--applied", baseline, "--dir", "db", "--yes", "--json")
    assert marked.json["repaired"] == []
    gone = own.run("migrate", "repair", "--pending", baseline, "--dir", "db", "--yes", "--json")
    assert [row["name"] for row in gone.json["repaired"]] == list(FILES)
    assert baseline in own.run("migrate", "status", "--dir", "db", "--json").json["pending"]


def test_a_database_in_between_is_refused_with_what_to_do(own: Project) -> None:
    assert own.run("migrate", "up", "--dir", "db", "--to", "20260101000002").code == 0
    squash(own)
    refused = own.run("migrate", "up", "--dir", "db", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (5, "baseline-behind")
    assert "up to 20260101000003_more" in refused.json["error"]["hint"]
    assert states(own) == {
        "20260101000001_team": "unknown", "20260101000002_rows": "unknown", BASELINE: "pending", LAST: "pending",
    }  # fmt: skip
    assert own.run("migrate", "verify", "--dir", "db").code == 1


def test_a_baseline_is_squashed_again_with_what_came_behind(own: Project) -> None:
    assert own.run("migrate", "up", "--dir", "db").code == 0
    squash(own)
    assert own.run("migrate", "squash", "--dir", "db", "--yes").code == 0
    assert list_files(own) == ["20260101000004_baseline.sql"]
    assert states(own) == {"20260101000004_baseline": "applied"}
    assert own.run("migrate", "up", "--dir", "db", "--json").json == {"applied": []}
    assert own.run("migrate", "squash", "--dir", "db", "--yes").code == 2


def test_a_dry_run_and_an_unanswered_question_change_nothing(own: Project) -> None:
    before = list_files(own)
    shown = own.run("migrate", "squash", "--to", "20260101000003", "--dir", "db", "--dry-run", "--json").json
    assert shown["stands_for"] == list(FILES)
    assert shown["rows"] == {"plan": 3, "team": 1}
    assert shown["sql"].count("-- stackctl:baseline 2026") == 3
    asked = own.run("migrate", "squash", "--dir", "db", "--json")
    assert (asked.code, asked.json["error"]["code"]) == (5, "confirmation-required")
    assert "values like now() among them: plan (3), team (1)" in asked.stderr
    assert list_files(own) == before


@pytest.mark.parametrize(
    ("text", "code", "word"),
    [
        ("-- stackctl:change-capture\nSELECT 1;", "change-capture", "20260101000004_last.sql"),
        ("CREATE ROLE squash_maker;", "squash-differs", "role squash_maker"),
        *((";".join(some), "squash-differs", "|".join(some.values())) for some in LOST),
    ],
)
def test_what_one_file_can_not_hold_is_refused(own: Project, text: str, code: str, word: str) -> None:
    (own.directory / "db" / f"{LAST}.sql").write_text(text)
    before = list_files(own)
    refused = own.run("migrate", "squash", "--dir", "db", "--yes", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (5, code)
    assert [one for one in word.split("|") if one not in refused.json["error"]["message"]] == []
    assert list_files(own) == before


def test_another_runners_history_names_the_files_that_a_baseline_stands_for(
    own: Project, empty_db: str, connect: Connect
) -> None:
    """`adopt` takes the last of them for the baseline; with an earlier one alone, `up` is refused."""
    conn = connect(empty_db, autocommit=True)
    conn.execute('CREATE TABLE "SchemaMigration" (id text, "migrationName" text, "finishedAt" timestamp)')
    squash(own)
    conn.execute("""INSERT INTO "SchemaMigration" VALUES ('1', '20260101000001_team', now())""")
    refused = own.run("migrate", "up", "--dir", "db", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (5, "baseline-behind")
    conn.execute("""INSERT INTO "SchemaMigration" VALUES ('2', '20260101000003_more', now())""")
    conn.execute("CREATE TABLE team (id int, slug text, at timestamptz, plan int)")
    conn.execute("CREATE TABLE plan (id int, name text, long text)")
    adopted = own.run("migrate", "adopt", "--dir", "db", "--json")
    assert (adopted.code, adopted.json["adopted"], adopted.json["without_file"]) == (0, [BASELINE], [])
    assert states(own) == {BASELINE: "applied", LAST: "pending"}
