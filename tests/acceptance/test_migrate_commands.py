"""stackctl migrate, as an operator and a CI job run it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import psycopg
import pytest

from stackctl.core.bundled import find_bundled
from stackctl.migrate.folder import discover
from tests.backend import Project, ended

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Connect

NAMES = [migration.name for migration in discover(find_bundled("migrations"))]


@pytest.fixture
def empty(tmp_path: Path, empty_db: str) -> Project:
    return Project(tmp_path, empty_db)


@pytest.mark.quick
def test_up_applies_once_and_status_says_so(empty: Project) -> None:
    before = empty.run("migrate", "status", "--check", "--json")
    assert (before.code, before.json["pending"], before.json["applied"]) == (1, NAMES, [])
    dry = empty.run("migrate", "up", "--dry-run", "--json")
    assert (dry.code, dry.json["would_apply"]) == (0, NAMES)
    first = empty.run("migrate", "up", "--json")
    assert first.code == 0
    assert [applied["name"] for applied in first.json["applied"]] == NAMES
    assert set(first.json["applied"][0]) == {"name", "duration_ms", "repeats"}
    assert empty.run("migrate", "up", "--json").json == {"applied": []}
    after = empty.run("migrate", "status", "--check", "--json")
    assert after.code == 0
    assert set(after.json) == {"current", "pending", "applied", "drifted", "unknown"}
    assert set(after.json["applied"][0]) == {"name", "applied_at", "checksum", "by"}


def test_two_at_once_apply_everything_once(empty: Project) -> None:
    both = [empty.start("migrate", "up", "--json") for _ in range(2)]
    outcomes = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(NAMES[0] in output for output in outcomes) == 1


def test_a_failure_in_the_middle_keeps_what_was_applied_before(
    empty: Project, empty_db: str, connect: Connect, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "20260101000001_first.sql").write_text("CREATE TABLE first (id int);")
    second = folder / "20260101000002_second.sql"
    second.write_text("CREATE TABLE second (id int);\nSELECT 1 / 0;")
    (folder / "20260101000003_third.sql").write_text("CREATE TABLE third (id int);")
    failed = empty.run("migrate", "up", "--dir", folder, "--json")
    assert failed.code == 1
    error = failed.json["error"]
    assert error["code"] == "migration-failed"
    assert f"{second}:2" in error["message"]
    assert "division by zero" in error["message"]
    assert error["details"]["applied"] == ["20260101000001_first"]
    assert "Traceback" not in failed.stderr
    tables = "SELECT relname FROM pg_class WHERE relname IN ('first', 'second', 'third')"
    assert connect(empty_db).execute(tables).fetchall() == [("first",)]
    second.write_text("CREATE TABLE second (id int);")
    again = empty.run("migrate", "up", "--dir", folder, "--json")
    assert [applied["name"] for applied in again.json["applied"]] == ["20260101000002_second", "20260101000003_third"]


def test_an_edited_file_shows_but_a_comment_does_not(empty: Project, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    file = folder / "20260101000001_first.sql"
    file.write_text("CREATE TABLE first (id int);")
    assert empty.run("migrate", "up", "--dir", folder).code == 0
    file.write_text("-- why\nCREATE TABLE first (\r\n  id int);")
    assert empty.run("migrate", "status", "--check", "--dir", folder).code == 0
    file.write_text("CREATE TABLE first (id bigint);")
    shown = empty.run("migrate", "status", "--check", "--dir", folder)
    assert shown.code == 1
    assert "EDITED" in shown.stdout
    assert "1 edited" in shown.stderr


def test_new_writes_a_file_that_explains_itself(empty: Project, tmp_path: Path) -> None:
    refused = empty.run("migrate", "new", "add team slug")
    assert (refused.code, "--dir" in refused.stderr) == (2, True)
    written = empty.run("migrate", "new", "add team slug", "--dir", tmp_path / "own", "--json")
    text = (tmp_path / "own").joinpath(written.json["path"].rsplit("/", 1)[-1]).read_text()
    assert "stackctl:outside-transaction" in text


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("20260101000001_a.sql", "-- nothing\n", "empty-migration"),
        ("20260101000001_a.sql", "CREATE TABLE a (id int);\nCOMMIT;", None),
        ("first.sql", "SELECT 1;", None),
    ],
)
def test_a_bad_file_is_one_error(empty: Project, tmp_path: Path, name: str, text: str, code: str | None) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / name).write_text(text)
    outcome = empty.run("migrate", "up", "--dir", folder, "--json")
    assert outcome.code == 3
    assert name in outcome.json["error"]["message"]
    assert code in (None, outcome.json["error"]["code"])
    assert outcome.stderr.count("error:") == 1


DBMATES = {
    "20260101000000_a.sql": "-- migrate:up\nCREATE TABLE a (x int);\n\n-- migrate:down\nDROP TABLE a;\n",
    "20260102000000_b.sql": "-- migrate:up transaction:false\nCREATE INDEX CONCURRENTLY i ON a (x);\n-- migrate:down\n",
    "20260103000000_c.sql": "-- migrate:up\n\n-- migrate:down\nDROP TABLE a;\n",
}
GOOSES = {
    "00001_a.sql": "-- +goose Up\nCREATE TABLE a (x int);\n-- +goose Down\nDROP TABLE a;\n",
    "00002_b.sql": "-- +goose NO TRANSACTION\n-- +goose Up\nCREATE INDEX CONCURRENTLY i ON a (x);\n"
    "-- +goose Down\nDROP INDEX i;\n",
}


@pytest.mark.parametrize(("tool", "files"), [("dbmate", DBMATES), ("goose", GOOSES)])
def test_a_folder_of_another_tool_is_migrated_as_it_is(
    empty: Project, tmp_path: Path, tool: str, files: dict[str, str]
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    assert f"format: {tool}; the ways up are run" in empty.run("migrate", "status", "--dir", folder).stdout
    up = empty.run("migrate", "up", "--dir", folder, "--json")
    assert [one["name"] for one in up.json["applied"]] == [name.removesuffix(".sql") for name in files]
    assert empty.run("migrate", "verify", "--dir", folder).code == 0
    with psycopg.connect(empty.settings["database"]["url"]) as conn:
        assert conn.execute("SELECT indisvalid FROM pg_index WHERE indrelid = 'a'::regclass").fetchall() == [(True,)]
    assert empty.run("migrate", "status", "--check", "--dir", folder).code == 0
    assert empty.run("migrate", "lint", folder).code == 0


def test_a_file_that_was_just_made_is_empty_and_pending_and_only_up_stops_at_it(empty: Project, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    made = empty.run("migrate", "new", "later", "--dir", folder).stdout.strip()
    status = empty.run("migrate", "status", "--dir", folder, "--json")
    assert (status.code, status.json["empty"]) == (0, status.json["pending"])
    assert "\tempty\t" in empty.run("migrate", "status", "--dir", folder).stdout
    assert empty.run("migrate", "verify", "--dir", folder).code == 0
    up = empty.run("migrate", "up", "--dir", folder, "--json")
    assert (up.code, up.json["error"]["code"], made in up.stderr) == (3, "empty-migration", True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_done_is_told_when_a_signal_ends_it(empty: Project, tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "20260101000000_a.sql").write_text("CREATE TABLE a ()")
    (folder / "20260102000000_b.sql").write_text("CREATE TABLE b (); SELECT pg_sleep(600)")
    process = empty.start("migrate", "up", "--dir", folder, "--json")
    assert process.stderr is not None
    assert process.stderr.readline().startswith("applied 20260101000000_a")
    process.send_signal(number)
    outcome = ended(process)
    assert (outcome.code, [one["name"] for one in outcome.json["applied"]]) == (130, ["20260101000000_a"])
    with psycopg.connect(empty.settings["database"]["url"]) as conn:
        assert conn.execute("SELECT to_regclass('b')").fetchone() == (None,)


@pytest.mark.parametrize(
    "words", ["down", "rollback", "down 1", "down --all --steps=2", "rollback --to 20260101000000"]
)
def test_there_is_no_way_down_and_what_there_is_instead_is_said(empty: Project, words: str) -> None:
    refused = empty.run("migrate", *words.split())
    assert (refused.code, refused.stdout) == (2, "")
    assert "migrate new --revert VERSION" in refused.stderr
    assert "down" not in empty.run("migrate", "--help").stdout
