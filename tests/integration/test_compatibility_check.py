"""`check` on real git repositories and a real server: what the new files do to the version that runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stackctl.core.errors import AnswerNo, ConfigError, ServiceError, StackctlError, StateError, UsageError
from stackctl.migrate.compatibility import scratch_server
from stackctl.migrate.compatibility.check import CheckOptions, check_compatibility
from stackctl.migrate.compatibility.shell_command import run_command
from stackctl.migrate.folder import discover
from stackctl.migrate.lint.linter import LintFile, lint_files
from stackctl.postgres import embedded
from stackctl.postgres.binaries import find_binaries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stackctl.migrate.compatibility.report import CheckReport

START = """
CREATE TYPE plan AS ENUM ('free', 'pro');
CREATE TABLE account (id uuid PRIMARY KEY, name text NOT NULL, email text, plan plan NOT NULL DEFAULT 'free');
CREATE TABLE invoice (id bigint PRIMARY KEY, account uuid NOT NULL REFERENCES account, cents int CHECK (cents > 0));
"""


class Repository:
    """A git repository with a branch `main`, whose folder `db` holds the migrations."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.folder = directory / "db"
        self.folder.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> str:
        own = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
        return subprocess.run(
            ["git", *own, *arguments], cwd=self.directory, check=True, capture_output=True, text=True
        ).stdout

    def write(self, **files: str) -> Repository:
        """`m05_name="SELECT 1"` becomes version …05; an empty text removes the file."""
        for name, content in files.items():
            path = self.folder / f"202601010000{name[1:]}.sql"
            path.write_text(content) if content else path.unlink()
        return self

    def commit(self, **files: str) -> Repository:
        self.write(**files)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "x")
        return self


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repo").commit(m01_start=START, m05_more="CREATE TABLE more (id int PRIMARY KEY)")


@pytest.fixture(scope="module")
def prepared(environment: Path) -> dict[bool, Path]:
    """Servers as a check makes them, without and with trust; to be copied."""
    folder = Path(tempfile.mkdtemp(prefix="prepared-", dir=environment))
    folder.chmod(0o711)
    made = {trust: folder / str(trust) for trust in (False, True)}
    for trust, directory in made.items():
        scratch_server.make_server(directory, {"fsync": "off"}, trust=trust)
        embedded.attach(directory).release()
    return made


@pytest.fixture
def quick_servers(prepared: dict[bool, Path], environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """initdb takes most of a check's time; and what it needs of the disk is in memory."""
    monkeypatch.setattr(tempfile, "tempdir", str(environment))

    def copy(directory: Path, options: Mapping[str, str], *, trust: bool) -> None:
        directory.mkdir(mode=0o711)
        subprocess.run(["cp", "-a", prepared[trust] / "data", directory], check=True)
        embedded.attach(directory, options=options)

    monkeypatch.setattr(scratch_server, "make_server", copy)


@pytest.fixture
def try_out(repository: Repository, quick_servers: None) -> Any:
    def run(ref: str = "main", **options: Any) -> CheckReport:
        given = replace(CheckOptions(rows=20), **options)
        return check_compatibility(repository.folder, discover(repository.folder), ref, given)

    return run


def found(report: CheckReport) -> list[tuple[str, int, str]]:
    """File (`06_name`), line and rule of each finding."""
    return [(finding.file.stem[12:], finding.line, finding.rule) for finding in report.findings]


def test_what_is_only_added_passes(repository: Repository, try_out: Any) -> None:
    repository.write(
        m06_add="ALTER TABLE account ADD COLUMN age int; ALTER TYPE plan ADD VALUE 'team'",
        m07_index="-- stackctl:outside-transaction\nCREATE INDEX CONCURRENTLY by_name ON account (name)",
    )
    report = try_out()
    assert (report.ok, report.findings, len(report.new)) == (True, (), 2)
    assert [(m.statement.line, m.indexes, m.rewrites, m.outside_transaction) for m in report.statements] == [
        (1, (), (), False),
        (1, (), (), False),
        (2, ("by_name",), (), True),
    ]


def test_a_renamed_column_an_added_not_null_and_a_rewrite(repository: Repository, try_out: Any) -> None:
    repository.write(
        m06_rename="-- why\nALTER TABLE account RENAME COLUMN name TO title;",
        m07_required="UPDATE account SET email = '' WHERE email IS NULL;\nALTER TABLE account ALTER email SET NOT NULL",
        m08_rewrite="ALTER TABLE account ADD COLUMN token uuid DEFAULT gen_random_uuid();\n"
        "ALTER TABLE invoice ALTER cents TYPE bigint;",
    )
    report = try_out()
    assert not report.ok
    assert found(report) == [
        ("06_rename", 2, "rename-column"),
        ("07_required", 2, "set-not-null"),
        ("08_rewrite", 1, "volatile-default"),
        ("08_rewrite", 2, "column-type-change"),
        ("08_rewrite", 2, "column-type-change"),
    ]
    rename, update, required, token, cents = report.statements
    assert [(lock.relation, lock.mode) for lock in rename.locks] == [("account", "AccessExclusiveLock")]
    assert ("account", "RowExclusiveLock") in [(lock.relation, lock.mode) for lock in update.locks]
    assert [lock.mode for lock in required.locks] == ["AccessExclusiveLock"]
    assert (token.rewrites, cents.rewrites) == (("account",), ("invoice",))
    assert (token.indexes, cents.indexes) == (("account_pkey",), ("invoice_pkey",))
    assert all(measured.ms > 0 for measured in report.statements)


def test_what_came_and_went_within_the_branch_was_never_used(repository: Repository, try_out: Any) -> None:
    repository.write(
        m06_add="ALTER TABLE account ADD COLUMN age int; CREATE TABLE t (id int)",
        m07_gone="ALTER TABLE account DROP COLUMN age; DROP TABLE t",
        m08_back="ALTER TABLE account DROP COLUMN email",
        m09_back="ALTER TABLE account ADD COLUMN email text",
    )
    # What is gone between two files is gone for a while, whatever comes back.
    assert found(try_out()) == [("08_back", 1, "drop-column")]


def test_a_default_that_does_not_rewrite_and_a_truncate_are_no_rewrites(repository: Repository, try_out: Any) -> None:
    repository.write(
        m06_now="ALTER TABLE more ADD COLUMN at timestamptz NOT NULL DEFAULT now()", m07_off="TRUNCATE more"
    )
    report = try_out()
    assert found(report) == []
    assert [measured.rewrites for measured in report.statements] == [(), ()]


def test_edited_deleted_and_out_of_order_files_fail(repository: Repository, try_out: Any) -> None:
    repository.write(
        m01_start=f"-- a comment may be added\n\n{START}".replace("\n", "\r\n"),
        m05_more="CREATE TABLE more (id bigint PRIMARY KEY)",
    )
    assert found(try_out()) == [("05_more", 1, "file-edited")]
    repository.write(m05_more="", m03_late="CREATE TABLE late (id int)", m06_fine="CREATE TABLE fine (id int)")
    report = try_out()
    assert found(report) == [("03_late", 1, "file-out-of-order"), ("05_more", 1, "file-deleted")]
    assert [measured.migration.name[12:] for measured in report.statements] == ["03_late", "06_fine"]


def test_a_branch_that_lags_behind_has_deleted_nothing(repository: Repository, try_out: Any) -> None:
    repository.git("switch", "-q", "-c", "feature")
    repository.commit(m07_mine="CREATE TABLE mine (id int)")
    repository.git("switch", "-q", "main")
    repository.commit(m06_theirs="CREATE TABLE theirs (id int)")
    repository.git("switch", "-q", "feature")
    report = try_out()
    assert (found(report), [m.name[12:] for m in report.new]) == ([], ["07_mine"])


@pytest.mark.usefixtures("quick_servers")
def test_files_in_folders_and_a_base_without_any(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "prisma").commit()
    folder = repository.folder / "20260101000001_start"
    folder.mkdir()
    (folder / "migration.sql").write_text(START)
    first = check_compatibility(repository.folder, discover(repository.folder), "HEAD", CheckOptions())
    assert (first.ok, len(first.new)) == (True, 1)
    repository.commit()
    (folder / "migration.sql").write_text("SELECT 1")
    edited = check_compatibility(repository.folder, discover(repository.folder), "HEAD", CheckOptions())
    assert [(finding.file, finding.rule) for finding in edited.findings] == [(folder / "migration.sql", "file-edited")]


@pytest.mark.parametrize(
    ("ref", "error", "code"),
    [("nowhere", UsageError, "unknown-git-ref"), ("--help", UsageError, "unknown-git-ref"),
     ("HEAD^{tree}", UsageError, "unknown-git-ref")],
)  # fmt: skip
def test_a_ref_that_is_none(try_out: Any, ref: str, error: type[StackctlError], code: str) -> None:
    with pytest.raises(error) as caught:
        try_out(ref)
    assert caught.value.code == code


def test_no_repository_no_git_no_folder(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    outside = tmp_path / "outside"
    outside.mkdir()
    for folder, code in ((outside, "not-a-git-repository"), (tmp_path / "none", "migrations-dir-missing")):
        with pytest.raises((StateError, ConfigError)) as caught:
            check_compatibility(folder, (), "main", CheckOptions())
        assert caught.value.code == code
    monkeypatch.setenv("PATH", str(outside))
    with pytest.raises(StateError) as missing:
        check_compatibility(repository.folder, (), "main", CheckOptions())
    assert missing.value.code == "git-missing"


def test_a_base_that_is_broken_itself(repository: Repository, try_out: Any) -> None:
    repository.commit(m06_broken="CREATE TABLE broken (id nothing)").write(m07_new="SELECT 1")
    with pytest.raises(AnswerNo) as caught:
        try_out()
    assert caught.value.code == "base-broken" and "06_broken.sql:1:25" in caught.value.message
    repository.commit(m06_broken="COMMIT").write(m06_broken="SELECT 1")
    with pytest.raises(ConfigError) as unreadable:
        try_out("HEAD~0")
    assert unreadable.value.code == "transaction-control" and "HEAD~0:db/202601010000" in unreadable.value.message


def test_a_new_file_that_fails_is_a_finding_and_ends_the_trial_there(repository: Repository, try_out: Any) -> None:
    repository.write(
        m06_fine="ALTER TABLE account DROP COLUMN email",
        m07_broken="CREATE TABLE good (id int);\nCREATE TABLE broken (id nothing);",
        m08_never="DROP TABLE account",
    )
    report = try_out(command="exit 1")
    assert found(report) == [("06_fine", 1, "drop-column"), ("07_broken", 2, "does-not-apply")]
    assert report.run is None


def test_rows_show_what_empty_tables_hide(repository: Repository, try_out: Any) -> None:
    repository.write(
        m06_required="ALTER TABLE more ADD COLUMN name text NOT NULL",
        m07_after="SELECT 1 / (count(*) - 20) FROM more WHERE name IS NOT NULL",
    )
    report = try_out()
    assert found(report) == [
        ("06_required", 1, "not-null-without-default"),
        ("06_required", 1, "fails-on-rows"),
        ("07_after", 1, "fails-on-rows"),  # there were rows again for it, all twenty
    ]
    assert len(report.statements) == 2  # measured all the same
    assert found(try_out(rows=0)) == [("06_required", 1, "not-null-without-default")]


def test_a_comment_with_the_rule_lets_the_statement_below_it_pass(repository: Repository, try_out: Any) -> None:
    repository.write(
        m06_drop="-- stackctl:allow drop-column nobody reads it since v2\nALTER TABLE account DROP COLUMN email;\n"
        "ALTER TABLE invoice DROP COLUMN cents;"
    )
    assert found(try_out()) == [("06_drop", 3, "drop-column")]


def test_one_comment_is_enough_for_lint_and_check(repository: Repository, try_out: Any) -> None:
    repository.write(
        m06_token="-- stackctl:allow volatile-default few rows\n"
        "ALTER TABLE account ADD COLUMN token uuid DEFAULT gen_random_uuid();\n"
        "-- stackctl:allow unique-added nobody writes a name twice\n"
        "-- stackctl:allow unique-not-using-index few rows\n"
        "ALTER TABLE account ADD UNIQUE (name);"
    )
    path = repository.folder / "20260101000006_token.sql"
    assert lint_files([LintFile(path, path.stem)], schema="public") == []
    assert found(try_out()) == []


def test_a_repeated_backfill_is_measured_over_all_its_passes(repository: Repository, try_out: Any) -> None:
    repository.write(
        m06_fill="""ALTER TABLE more ADD COLUMN IF NOT EXISTS filled boolean;
-- stackctl:split
-- stackctl:repeat
WITH batch AS (SELECT id FROM more WHERE filled IS NULL LIMIT 7),
     done AS (UPDATE more SET filled = true WHERE id IN (SELECT id FROM batch) RETURNING 1)
SELECT count(*) > 0 AS should_repeat_migration FROM done;"""
    )
    report = try_out()
    assert found(report) == []
    assert [measured.statement.line for measured in report.statements] == [1, 4]
    assert ("more", "AccessExclusiveLock") in [(lock.relation, lock.mode) for lock in report.statements[0].locks]


def test_another_schema_and_roles_that_the_server_lacks(repository: Repository, try_out: Any) -> None:
    repository.commit(m06_grant='GRANT SELECT ON more TO "the app"').write(
        m07_revoke='REVOKE SELECT ON more FROM "the app"'
    )
    report = try_out(schema="tenant")
    assert (found(report), report.roles) == ([("07_revoke", 1, "grant-revoked")], ("the app",))


def test_an_extension_that_the_server_lacks(repository: Repository, try_out: Any) -> None:
    repository.commit(m06_extension="CREATE EXTENSION postgis").write(m07_new="SELECT 1")
    with pytest.raises(ServiceError) as caught:
        try_out()
    assert caught.value.code == "extension-missing" and "postgis" in caught.value.message


def test_migrations_that_capture_changes_belong_to_it_only_where_the_database_does(
    repository: Repository, try_out: Any
) -> None:
    repository.write(m06_capture="-- stackctl:change-capture\nALTER TABLE account DROP COLUMN email")
    assert found(try_out()) == [("06_capture", 2, "drop-column")]
    assert found(try_out(capture=False)) == []


READ = f'{find_binaries() / "psql"} -qX -v ON_ERROR_STOP=1 "$DATABASE_URL" -c '


@pytest.mark.parametrize(
    ("command", "verdict", "broken_by"),
    [
        # It writes, and must find the database of its second run as that of the first; both variables name it.
        (f'test "$STACKCTL_DATABASE_URL" = "$DATABASE_URL" && {READ} "INSERT INTO more VALUES (1)"', "passes", None),
        (f"{READ} 'SELECT email FROM account'", "broken", "07_drop"),
        (f"{READ} 'SELECT nothing FROM account'", "fails-before-too", None),
        (f"{READ} 'SELECT added FROM account'", "fixed", None),
    ],
)
def test_only_a_command_that_passed_and_then_fails_counts(
    repository: Repository, try_out: Any, command: str, verdict: str, broken_by: str | None
) -> None:
    repository.write(
        m06_add="ALTER TABLE account ADD COLUMN added int",
        m07_drop="-- stackctl:allow drop-column it is unused\nALTER TABLE account DROP COLUMN email",
        m08_more="CREATE TABLE last (id int)",
    )
    report = try_out(command=command, rows=0)
    assert report.run is not None
    assert (report.run.verdict, report.ok) == (verdict, verdict != "broken")
    assert (report.run.broken_by and report.run.broken_by.name[12:]) == broken_by
    assert found(report) == ([("07_drop", 1, "command-fails")] if broken_by else [])
    if not report.run.after.passed:
        assert "does not exist" in report.run.after.tail


def test_a_command_that_is_just_being_started_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self.pid)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_command("exec sleep 600", "postgresql://")
    with pytest.raises(ProcessLookupError):
        os.killpg(started[0], 0)


def test_what_a_command_leaves_running_is_ended(repository: Repository, try_out: Any, tmp_path: Path) -> None:
    sleep = shutil.which("sleep")
    report = try_out(command=f"{sleep} 1234 & echo $! > {tmp_path / 'pid'}")
    assert report.run is not None and report.run.verdict == "passes"
    pid = (tmp_path / "pid").read_text().strip()
    state = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True).stdout.strip()
    assert state == "" or state.startswith("Z")
