"""Sets of migrations in one database: two services, a folder of one's own beside stackctl's tables, and repairs."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import psycopg
import pytest

from stackctl.core.bundled import find_bundled
from stackctl.migrate.folder import discover
from tests.backend import Project

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Connect

BUNDLED = [migration.name for migration in discover(find_bundled("migrations"))]
FIRST, SECOND = "20260801000001_first", "20260801000002_second"


@pytest.fixture
def own(tmp_path: Path, empty_db: str) -> Project:
    """A project with two migrations of its own."""
    write(tmp_path / "db", first="CREATE TABLE first (id int);", second="CREATE TABLE second (id int);")
    project = Project(tmp_path, empty_db)
    project.settings["migrations"] = {"dir": "db"}
    project.write()
    return project


def write(folder: Path, **contents: str) -> None:
    folder.mkdir(exist_ok=True)
    for number, (name, content) in enumerate(contents.items(), 1):
        (folder / f"2026080100000{number}_{name}.sql").write_text(content)


def list_names(entries: list[dict[str, str]]) -> list[str]:
    return [entry["name"] for entry in entries]


def fetch(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as conn:
        return conn.execute(query.encode()).fetchall()


def test_two_services_keep_their_equally_named_files_apart(own: Project, empty_db: str, tmp_path: Path) -> None:
    assert own.run("migrate", "up").code == 0
    write(tmp_path / "billing", first="CREATE TABLE billing (id int); INSERT INTO billing VALUES (1);")
    refused = own.run("migrate", "up", "--dir", "billing", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (5, "migration-edited")
    assert "migrations.history" in refused.json["error"]["hint"]
    billing = ("--dir", "billing", "--history", "billing")
    assert list_names(own.run("migrate", "up", *billing, "--json").json["applied"]) == [FIRST]
    assert own.run("migrate", "up", *billing, "--json").json == {"applied": []}
    assert fetch(empty_db, "SELECT id FROM billing") == [(1,)]
    status = own.run("migrate", "status", *billing, "--check", "--json")
    assert (status.code, status.json["history"], list_names(status.json["applied"])) == (0, "billing", [FIRST])
    assert own.run("migrate", "verify", *billing).code == 0
    mine = own.run("migrate", "status", "--check", "--json")
    assert (mine.code, list_names(mine.json["applied"]), mine.json["unknown"]) == (0, [FIRST, SECOND], [])
    assert own.run("migrate", "verify").code == 0


def test_a_history_that_holds_what_is_no_file_here_is_remarked(own: Project, tmp_path: Path) -> None:
    assert own.run("migrate", "up").code == 0
    write(tmp_path / "other", a="SELECT 1")
    (tmp_path / "other" / "20260801000001_a.sql").rename(tmp_path / "other" / "20260901000000_a.sql")
    done = own.run("migrate", "up", "--dir", "other")
    assert done.code == 0
    assert f"no file here: {FIRST}, {SECOND}" in done.stderr
    assert "migrations.history" in done.stderr


def test_what_another_history_has_applied_is_not_run_again(own: Project, tmp_path: Path) -> None:
    assert own.run("migrate", "up", "--history", "shop").code == 0
    for words, meant in ((), "--history shop"), (("--history", "other"), "--history shop"):
        for dry in ((), ("--dry-run",)):
            refused = own.run("migrate", "up", *words, *dry, "--json")
            assert (refused.code, refused.json["error"]["code"]) == (5, "other-history")
            assert refused.json["error"]["details"]["names"] == [FIRST, SECOND]
            assert meant in refused.json["error"]["hint"]
    assert own.run("migrate", "repair", "--applied", FIRST, "--yes").code == 0
    (tmp_path / "db" / f"{SECOND}.sql").write_text("CREATE TABLE another (id int);")
    assert list_names(own.run("migrate", "up", "--json").json["applied"]) == [SECOND]
    refused = own.run("migrate", "up", "--history", "other", "--json")
    assert "without a name" in refused.json["error"]["message"]


def test_the_name_of_a_history_is_a_word_and_needs_a_folder(own: Project, tmp_path: Path) -> None:
    for name in ("Billing", "a b", "", "a" * 41, "1a", "x;--"):
        found = own.run("migrate", "status", "--history", name, "--json")
        assert (found.code, found.json["error"]["code"]) == (2, "usage")
    own.settings["migrations"] = {"history": "billing"}
    own.write()
    found = own.run("migrate", "status", "--json")
    assert (found.code, "migrations.dir" in found.json["error"]["hint"]) == (2, True)
    own.settings["migrations"] = {"dir": "db", "history": "no word"}
    own.write()
    assert own.run("migrate", "status").code == 3
    own.settings["migrations"] = {"dir": "db"}
    own.settings["migrations_dir"] = "elsewhere"
    own.write()
    assert own.run("migrate", "status", "--json").json["error"]["code"] == "config-conflict"


def test_stackctls_own_tables_beside_a_folder(own: Project, empty_db: str) -> None:
    assert list_names(own.run("migrate", "up", "--json").json["applied"]) == [FIRST, SECOND]
    refused = own.run("sequence")
    assert refused.code != 0
    assert "stackctl migrate up --bundled" in refused.stderr
    assert own.run("migrate", "status", "--check", "--json").code == 0  # nobody has asked for them yet
    asked = own.run("migrate", "status", "--bundled", "--check", "--json")
    assert (asked.code, asked.json["pending"], asked.json["bundled"]["pending"]) == (1, [], BUNDLED)
    assert own.run("migrate", "up", "--bundled", "--dry-run", "--json").json["would_apply"] == BUNDLED
    assert list_names(own.run("migrate", "up", "--bundled", "--json").json["applied"]) == BUNDLED
    assert own.run("sequence").code == 0
    status = own.run("migrate", "status", "--check", "--json")
    assert status.code == 0
    assert list_names(status.json["applied"]) == [FIRST, SECOND]
    assert (list_names(status.json["bundled"]["applied"]), status.json["bundled"]["unknown"]) == (BUNDLED, [])
    assert "\n\nstackctl's own:\n" in own.run("migrate", "status").stdout
    assert own.run("migrate", "verify").code == 0
    checks = {check["name"]: check for check in own.run("doctor", "--json").json["checks"]}
    assert (checks["migrations"]["status"], checks["migrations"]["message"]) == (
        "ok",
        f"{len(BUNDLED) + 2} applied, none pending",
    )
    # Once begun, they are looked after by every run.
    with psycopg.connect(empty_db) as conn:
        conn.execute("DELETE FROM stackctl.migration_history WHERE name = %s", (BUNDLED[-1],))
    assert own.run("migrate", "status", "--check").code == 1
    assert own.run("migrate", "verify").code == 0
    assert list_names(own.run("migrate", "up", "--json").json["applied"]) == BUNDLED[-1:]


def test_an_own_file_that_is_called_like_one_of_stackctls_asks_for_none_of_them(own: Project, tmp_path: Path) -> None:
    (tmp_path / "db" / f"{BUNDLED[1]}.sql").write_text("SELECT 1")
    names = [BUNDLED[1], FIRST, SECOND]
    assert list_names(own.run("migrate", "up", "--json").json["applied"]) == names
    status = own.run("migrate", "status", "--check", "--json")
    assert (status.code, list_names(status.json["applied"]), "bundled" in status.json) == (0, names, False)


@pytest.mark.parametrize("to", [FIRST, BUNDLED[3]])
def test_to_stops_in_the_set_that_has_it(own: Project, to: str) -> None:
    both = [FIRST, SECOND, *BUNDLED]
    done = own.run("migrate", "up", "--bundled", "--to", to, "--json")
    assert list_names(done.json["applied"]) == both[: both.index(to) + 1]


def test_what_fails_behind_the_own_files_tells_those_as_applied(own: Project, empty_db: str) -> None:
    with psycopg.connect(empty_db) as conn:
        conn.execute('CREATE TABLE "ProjectUser" (x int)')
    failed = own.run("migrate", "up", "--bundled", "--json")
    assert failed.code == 1
    assert failed.json["error"]["details"]["applied"][:2] == [FIRST, SECOND]


def test_own_named_history_and_the_tables_of_stackctl(own: Project) -> None:
    own.settings["migrations"] = {"dir": "db", "history": "shop"}
    own.write()
    assert list_names(own.run("migrate", "up", "--bundled", "--json").json["applied"]) == [FIRST, SECOND, *BUNDLED]
    status = own.run("migrate", "status", "--check", "--json")
    assert (status.code, status.json["unknown"], status.json["bundled"]["unknown"]) == (0, [], [])
    assert own.run("migrate", "verify").code == 0


# -- repair


def test_an_edit_is_shown_and_accepted(own: Project, tmp_path: Path, empty_db: str) -> None:
    for words in ("init -q", "add db", "-c user.name=a -c user.email=a@b commit -qm one"):
        subprocess.run(["git", *words.split()], cwd=tmp_path, check=True)
    assert own.run("migrate", "up").code == 0
    (tmp_path / "db" / f"{SECOND}.sql").write_text("CREATE TABLE second (id bigint);")
    assert own.run("migrate", "up").code == 5
    before = fetch(empty_db, "SELECT * FROM stackctl.migration_history")
    dry = own.run("migrate", "repair", "--dry-run", "--json")
    (found,) = dry.json["repaired"]
    assert (found["name"], found["action"]) == (SECOND, "accepted")
    assert "-CREATE TABLE second (id int);" in found["difference"]
    assert "+CREATE TABLE second (id bigint);" in found["difference"]
    refused = own.run("migrate", "repair")
    assert (refused.code, "--yes" in refused.stderr) == (5, True)
    assert fetch(empty_db, "SELECT * FROM stackctl.migration_history") == before
    assert own.run("migrate", "repair", FIRST, "--yes").stdout == "nothing to repair\n"
    assert own.run("migrate", "repair", f"{SECOND}.sql", "--yes").code == 0
    assert own.run("migrate", "verify").code == 0
    assert own.run("migrate", "up", "--json").json == {"applied": []}
    assert fetch(empty_db, "SELECT data_type FROM information_schema.columns WHERE table_name = 'second'") == [
        ("integer",)
    ]


def test_an_edit_that_git_does_not_know_is_said_to_be_unknown(own: Project, tmp_path: Path) -> None:
    assert own.run("migrate", "up").code == 0
    (tmp_path / "db" / f"{SECOND}.sql").write_text("CREATE TABLE second (id bigint);")
    found = own.run("migrate", "repair", "--yes")
    assert found.code == 0
    assert "git does not hold what was applied" in found.stderr


def test_an_edited_half_is_accepted_as_far_as_it_is_applied(own: Project, tmp_path: Path, empty_db: str) -> None:
    file = tmp_path / "db" / "20260801000003_third.sql"
    outside = "-- stackctl:split\n-- stackctl:outside-transaction\n"
    file.write_text(f"CREATE TABLE third (id int);\n{outside}CREATE INDEX CONCURRENTLY ON nothing (id);")
    assert own.run("migrate", "up").code == 1
    file.write_text(f"CREATE TABLE third (id bigint);\n{outside}CREATE INDEX CONCURRENTLY third_id ON third (id);")
    assert own.run("migrate", "up", "--json").json["error"]["code"] == "migration-edited-halfway"
    assert own.run("migrate", "repair", "--yes").code == 0
    assert list_names(own.run("migrate", "up", "--json").json["applied"]) == [file.stem]
    file.write_text("")
    assert own.run("migrate", "repair", "--yes", "--json").json["repaired"][0]["name"] == file.stem
    with psycopg.connect(empty_db) as conn:
        conn.execute("UPDATE stackctl.migration_history SET applied_at = NULL WHERE name = %s", (file.stem,))
    assert own.run("migrate", "repair", "--yes", "--json").json["error"]["code"] == "edited-too-far"


def test_files_are_marked_applied_and_pending(own: Project, tmp_path: Path, empty_db: str) -> None:
    marked = own.run("migrate", "repair", "--applied", FIRST, "--applied", SECOND, "--yes", "--json")
    assert [(row["name"], row["action"]) for row in marked.json["repaired"]] == [
        (FIRST, "applied"),
        (SECOND, "applied"),
    ]
    assert marked.json["repaired"][0]["lacks"] == ["table first"]
    assert own.run("migrate", "up", "--json").json == {"applied": []}
    assert own.run("migrate", "repair", "--pending", SECOND, "--yes").code == 0
    assert list_names(own.run("migrate", "up", "--json").json["applied"]) == [SECOND]
    (tmp_path / "db" / f"{SECOND}.sql").unlink()
    assert own.run("migrate", "verify").code == 1
    gone = own.run("migrate", "repair", "--pending", SECOND, "--yes", "--json")
    assert gone.json["repaired"][0]["action"] == "forgotten"
    assert own.run("migrate", "verify").code == 0
    for words in (
        ["--pending", "nothing"],
        ["nothing"],
        ["--applied", FIRST, "--pending", FIRST[:14]],
        [FIRST, FIRST[:14]],
    ):
        assert own.run("migrate", "repair", *words, "--yes").code == 2


def test_the_file_of_a_folder_names_no_migration_by_itself(own: Project, tmp_path: Path, empty_db: str) -> None:
    for name in (FIRST, SECOND):
        (tmp_path / "db" / name).mkdir()
        (tmp_path / "db" / f"{name}.sql").rename(tmp_path / "db" / name / "migration.sql")
    assert own.run("migrate", "up", "--to", "migration.sql", "--json").json["error"]["code"] == "unknown-migration"
    assert own.run("migrate", "up", "--to", f"db/{FIRST}/migration.sql").code == 0
    for named in ("migration", "migration.sql"):
        assert own.run("migrate", "repair", "--pending", named, "--yes").code == 2
    assert fetch(empty_db, "SELECT name FROM stackctl.migration_history") == [(FIRST,)]


def test_to_forget_takes_the_right_to_delete(own: Project, empty_db: str) -> None:
    assert own.run("migrate", "up").code == 0
    with psycopg.connect(empty_db) as conn:
        role = f"{conn.info.dbname}_clerk"
        conn.execute(f"CREATE ROLE {role} LOGIN".encode())
        conn.execute(f"GRANT SELECT, INSERT, UPDATE ON stackctl.migration_history TO {role}".encode())
    try:
        forget = ("migrate", "repair", "--pending", FIRST, "--yes", "--database-url")
        refused = own.run(*forget, empty_db.replace("postgres@", f"{role}@"), "--json")
        assert refused.json["error"]["code"] == "permission-denied"
        with psycopg.connect(empty_db) as conn:
            conn.execute(refused.json["error"]["hint"].partition(": ")[2].encode())
        assert own.run(*forget, empty_db.replace("postgres@", f"{role}@")).code == 0
    finally:
        with psycopg.connect(empty_db) as conn:
            conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_another_runners_record_goes_along_and_stands_in_the_way(own: Project, empty_db: str) -> None:
    with psycopg.connect(empty_db) as conn:
        conn.execute('CREATE TABLE "SchemaMigration" ("migrationName" text UNIQUE, "finishedAt" timestamp)')
    assert own.run("migrate", "repair", "--applied", FIRST, "--yes").code == 0
    assert fetch(empty_db, 'SELECT "migrationName" FROM "SchemaMigration"') == [(FIRST,)]
    refused = own.run("migrate", "repair", "--pending", FIRST, "--yes", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (5, "applied-elsewhere")


def test_what_changes_after_it_was_shown_is_not_repaired(
    own: Project, tmp_path: Path, connect: Connect, empty_db: str
) -> None:
    assert own.run("migrate", "up").code == 0
    (tmp_path / "db" / f"{SECOND}.sql").write_text("CREATE TABLE second (id bigint);")
    conn = connect(empty_db, autocommit=True)
    conn.execute("SELECT pg_advisory_lock(hashtextextended('stackctl.migrate:public', 0))")
    process = own.start("migrate", "repair", "--yes", "--json")
    for line in process.stderr or ():
        if "waiting" in line:
            break
    conn.execute("DELETE FROM stackctl.migration_history WHERE name = %s", (SECOND,))
    conn.execute("SELECT pg_advisory_unlock_all()")
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, "changed-meanwhile" in out) == (5, True)
