"""stackctl migrate check and dump, as a CI job and an operator run them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from psycopg import sql

from tests import forked
from tests.backend import DEADLINE, Project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Connect

START = """CREATE TABLE account (id int PRIMARY KEY, name text NOT NULL, email text);
GRANT SELECT ON account TO app;
"""
CHANGE = """-- People have names, accounts have titles.
ALTER TABLE account RENAME COLUMN name TO title;
ALTER TABLE account ADD COLUMN token uuid DEFAULT gen_random_uuid();
"""
_IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")


@pytest.fixture
def branch(tmp_path: Path) -> Project:
    """A repository whose branch adds one migration, without any database configured."""
    folder = tmp_path / "db"
    folder.mkdir()
    (folder / "20260101000001_start.sql").write_text(START)
    for arguments in (("init", "-q", "-b", "main"), ("add", "-A"), (*_IDENTITY, "commit", "-q", "-m", "start")):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    (folder / "20260101000002_change.sql").write_text(CHANGE)
    return Project(tmp_path)


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary servers live while a command runs."""
    directory = Path(tempfile.mkdtemp(prefix="sct-"))
    directory.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(directory))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def test_the_document_and_what_people_read(branch: Project, scratch: Path) -> None:
    told = branch.run("migrate", "check", "--base", "main", "--dir", "db", "--rows", "50", "--run", "exit 1", "--json")
    document = told.json
    assert (told.code, document["ok"], document["base"]) == (1, False, "main")
    assert [(f["file"], f["line"], f["column"], f["rule"], f["severity"]) for f in document["findings"]] == [
        ("db/20260101000002_change.sql", 2, 1, "rename-column", "breaking"),
        ("db/20260101000002_change.sql", 3, 1, "volatile-default", "warning"),
    ]
    assert all(finding["message"] and finding["suggestion"] for finding in document["findings"])
    rename, token = document["statements"]
    assert rename["sql"] == "ALTER TABLE account RENAME COLUMN name TO title"
    assert rename["locks"] == [{"relation": "account", "mode": "AccessExclusiveLock"}]
    assert (token["line"], token["rewrites"], token["ms"] > 0) == (3, ["account"], True)
    assert (document["run"]["verdict"], document["run"]["before"]["exit_code"]) == ("fails-before-too", 1)
    assert document["made_up_roles"] == ["app"]
    assert list(scratch.iterdir()) == []

    (branch.directory / "db" / "20260101000002_change.sql").write_text("ALTER TABLE account ADD COLUMN age int;")
    fine = branch.run("migrate", "check", "--base", "main", "--dir", "db")
    assert fine.code == 0
    shown = fine.stdout.splitlines()
    assert shown[0] == "db/20260101000002_change.sql"
    assert shown[1].startswith("    1  ALTER TABLE account ADD COLUMN age int  ") and shown[1].endswith(" ms")
    assert shown[2] == "       AccessExclusiveLock on account"
    assert shown[-1] == "1 new migration since main: nothing breaks"


def test_annotations_for_github_and_other_formats(branch: Project, scratch: Path) -> None:
    told = branch.run("migrate", "check", "--base", "main", "--dir", "db", "--rows", "0", "--format", "github")
    first, second = told.stdout.splitlines()
    assert first.startswith(
        "::error file=db/20260101000002_change.sql,line=2,col=1,title=rename-column::column account."
    )
    assert second.startswith("::warning file=db/20260101000002_change.sql,line=3,col=1,title=volatile-default::")
    assert told.code == 1
    assert "1 new migration since main: 1 breaking, 1 warning" in told.stderr
    told = branch.run("migrate", "check", "--base", "main", "--dir", "db", "--rows", "0", "--format", "sarif")
    (run,) = told.json["runs"]
    assert [(one["ruleId"], one["level"]) for one in run["results"]] == [
        ("rename-column", "error"), ("volatile-default", "warning")
    ]  # fmt: skip
    assert run["tool"]["driver"]["rules"][run["results"][0]["ruleIndex"]]["id"] == "rename-column"
    assert "1 new migration since main: 1 breaking, 1 warning" in told.stderr


def test_refusals(branch: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    unknown = branch.run("migrate", "check", "--base", "nowhere", "--dir", "db", "--json")
    assert (unknown.code, unknown.json["error"]["code"]) == (2, "unknown-git-ref")
    assert branch.run("migrate", "check", "--base", "main", "--dir", "none").code == 3
    assert branch.run("migrate", "check", "--dir", "db").code == 2
    assert branch.run("migrate", "check", "--base", "main", "--json", "--format", "github").code == 2


@pytest.mark.parametrize(
    ("how", "again"),
    [
        (signal.SIGINT, True),
        (signal.SIGHUP, False),
        (signal.SIGKILL, False),
        *(
            pytest.param(how, again, marks=pytest.mark.long)
            for how, again in ((signal.SIGINT, False), (signal.SIGHUP, True), (signal.SIGKILL, True))
        ),
        *(pytest.param(signal.SIGTERM, again, marks=pytest.mark.long) for again in (False, True)),
    ],
)
def test_nothing_is_left_when_it_is_stopped(branch: Project, scratch: Path, how: signal.Signals, again: bool) -> None:
    """Nor by a second signal while the command, which ends only five seconds after it was asked to, is waited for."""
    ready = branch.directory / "ready"
    asked = branch.directory / "asked"
    command = f"trap 'echo > {asked}{'' if again else '; exit'}' TERM; echo $$ > {ready}; while :; do sleep 0.05; done"
    process = branch.start("migrate", "check", "--base", "main", "--dir", "db", "--rows", "0", "--run", command)
    try:
        _until(lambda: ready.exists() and ready.read_text().strip() != "")
        assert [path.name[:15] for path in scratch.iterdir()] == ["stackctl-check-"]
        (postmaster,) = scratch.glob("stackctl-check-*/*/data/postmaster.pid")
        server = int(postmaster.read_text().splitlines()[0])
        process.send_signal(how)
        if again and how != signal.SIGKILL:
            _until(asked.exists)
            process.send_signal(signal.SIGTERM)
            process.send_signal(how)
        code = process.wait(DEADLINE)
        assert code == (-signal.SIGKILL if how == signal.SIGKILL else 130)
        _until(lambda: list(scratch.iterdir()) == [])
        _until(lambda: not Path(f"/proc/{server}").exists())
        if how != signal.SIGKILL:
            assert not _alive(int(ready.read_text()))
    finally:
        process.kill()
        process.communicate()
        if ready.exists() and _alive(int(ready.read_text())):
            os.killpg(int(ready.read_text()), signal.SIGKILL)


@pytest.mark.parametrize(("command", "code"), [("no-such-command-here", 127), ("./stackctl.yaml", 126)])
def test_a_command_that_does_not_run_is_bad_usage(branch: Project, scratch: Path, command: str, code: int) -> None:
    told = branch.run("migrate", "check", "--base", "main", "--dir", "db", "--rows", "0", "--run", command, "--json")
    assert (told.code, told.json["error"]["code"]) == (2, "command-not-run")
    assert told.json["error"]["details"]["exit_code"] == code


def test_the_bundled_set_is_not_judged_for_the_operators(branch: Project) -> None:
    told = branch.run("migrate", "check", "--base", "main")
    assert (told.code, "no folder of your own migrations is named" in told.stderr) == (2, True)


def test_a_file_that_was_just_made_is_passed_over(branch: Project, scratch: Path) -> None:
    (branch.directory / "db" / "20260101000002_change.sql").write_text("CREATE TABLE more (id int);")
    assert branch.run("migrate", "new", "later", "--dir", "db").code == 0
    told = branch.run("migrate", "check", "--base", "main", "--dir", "db", "--rows", "0", "--json")
    assert (told.code, told.json["new"]) == (0, ["20260101000002_change"])


def test_dump_to_the_terminal_and_to_a_file(tmp_path: Path, empty_db: str, connect: Connect) -> None:
    project = Project(tmp_path, empty_db)
    odd = "postgresql://u:pw@h/d sk_live_abc :x: [red]\ta\r\nb \x1b[2J \u202e é ::stop-commands::x"
    connect(empty_db, autocommit=True).execute(
        sql.SQL("CREATE TABLE first (id int PRIMARY KEY); CREATE VIEW v AS SELECT {}::text AS odd").format(odd)
    )
    shown = project.run("migrate", "dump")
    assert shown.code == 0 and "CREATE TABLE first (\n  id integer NOT NULL,\n" in shown.stdout
    written = project.run("migrate", "dump", "--output", "schema.sql", "--json")
    assert json.loads(written.stdout) == {"schema": "public", "output": "schema.sql", "sql": None}
    assert (tmp_path / "schema.sql").read_text() == shown.stdout
    for encoding in ("utf-8", "ascii", "latin-1"):
        with (tmp_path / "redirected.sql").open("wb") as file:
            environ = os.environ | {"PYTHONIOENCODING": encoding}
            with forked.start(["migrate", "dump"], cwd=tmp_path, env=environ, stdout=file, fresh=True) as process:
                assert process.communicate(timeout=DEADLINE)[1] == ""
        assert (tmp_path / "redirected.sql").read_bytes() == (tmp_path / "schema.sql").read_bytes()
    assert odd in (tmp_path / "schema.sql").read_bytes().decode()
    assert project.run("migrate", "dump", "--output", "/dev/stdout").stdout == shown.stdout
    assert odd in project.run("migrate", "dump", "--json").json["sql"]
    assert project.run("migrate", "dump", "--output", "none/schema.sql").code == 3


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _until(true: object) -> None:
    deadline = time.monotonic() + DEADLINE
    assert callable(true)
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
