"""Git as it is asked about migrations: the repository that the folder lies in, read and not obeyed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from stackctl.core.errors import StateError
from stackctl.migrate.compatibility.baseline import read_baseline
from stackctl.migrate.git import Git
from stackctl.migrate.lint.file_selection import find_changed_files

TABLE, INDEX = "20260101000000_table.sql", "20260101000001_index.sql"


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=n@example.com")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def make_repository(folder: Path, *names: str) -> Path:
    """A repository with one commit on main, which holds the files in db/."""
    (folder / "db").mkdir(parents=True)
    for name in names:
        (folder / "db" / name).write_text(f"SELECT '{folder.name}';\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder / "db"


@pytest.fixture
def db(tmp_path: Path) -> Path:
    folder = make_repository(tmp_path / "ours", TABLE)
    (folder / INDEX).write_text("SELECT 1;\n")
    return folder


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "theirs", INDEX).parent


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GIT_DIR", "{other}/.git"),
        ("GIT_COMMON_DIR", "{other}/.git"),
        ("GIT_WORK_TREE", "{other}"),
        ("GIT_INDEX_FILE", "{other}/.git/index"),
        ("GIT_OBJECT_DIRECTORY", "{other}/.git/objects"),
        ("GIT_CEILING_DIRECTORIES", "{ours}"),
        ("GIT_NAMESPACE", "theirs"),
        ("GIT_PREFIX", "theirs/"),
        ("GIT_REPLACE_REF_BASE", "refs/heads/"),
        ("GIT_SHALLOW_FILE", "{other}/.git/HEAD"),
        ("GIT_GRAFT_FILE", "{other}/.git/HEAD"),
        ("GIT_CONFIG_PARAMETERS", "'core.worktree={other}'"),
        ("GIT_CONFIG_GLOBAL", "{other}/.git/HEAD"),
        ("GIT_CONFIG_SYSTEM", "{other}/.git/HEAD"),
        ("GIT_CONFIG_COUNT", "x"),
        ("GIT_TRACE", "1"),
        ("GIT_LITERAL_PATHSPECS", "x"),
        ("GIT_DEFAULT_HASH", "x"),
        ("GIT_EXEC_PATH", "{other}"),
    ],
)
def test_the_environment_names_no_other_repository(
    name: str, value: str, db: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value.format(other=other, ours=db))
    assert [m.name for m in read_baseline(db, "main").migrations] == [TABLE.removesuffix(".sql")]
    assert read_baseline(db, "main").migrations[0].pieces[0].statements[0].sql == "SELECT 'ours'"
    assert find_changed_files(db, "main") == {db / INDEX}


def test_the_repositorys_configuration_starts_no_program(db: Path, tmp_path: Path) -> None:
    program, ran = tmp_path / "program", tmp_path / "ran"
    program.write_text(f"#!/bin/sh\necho $* >> {ran}\ncat\n")
    program.chmod(0o755)
    for key in ("core.fsmonitor", "diff.external", "diff.x.textconv", "diff.x.command", "filter.x.clean", "core.pager"):
        git(db, "config", key, str(program))
    (db.parent / ".gitattributes").write_text("*.sql filter=x diff=x\n")
    os.utime(db / TABLE, (0, 0))  # so that git has to look into it
    assert find_changed_files(db, "main") == {db / INDEX}
    assert len(read_baseline(db, "main").migrations) == 1
    assert not ran.exists()
    git(db, "diff", "main")
    assert ran.exists()  # it would have been started


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_what_git_says_of_a_repository_of_somebody_else_is_kept(
    db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # that of the tests calls every folder safe
    for variable in ("GIT_CONFIG_COUNT", "GIT_TEST_ASSUME_DIFFERENT_OWNER"):
        monkeypatch.setenv(variable, "0")
    for path in (db.parent, *db.parent.rglob("*")):
        os.lchown(path, 1234, 1234)
    for ask in (find_changed_files, read_baseline):
        with pytest.raises(StateError, match="dubious ownership"):
            ask(db, "main")


def test_what_has_changed(db: Path) -> None:
    (db / ".gitignore").write_text("*ignored.sql\n")
    (db / "20260101000009_ignored.sql").write_text("SELECT 1;\n")
    (db / TABLE).write_bytes(b"SELECT 'ours';\r\n")  # the line endings of a checkout
    changes = Git(db, "").list_changed("main")
    assert changes == {Path(".gitignore"), Path(INDEX)}
    git(db, "add", ".")
    (db / TABLE).write_text("SELECT 2;\n")
    (db / INDEX).unlink()
    assert Git(db, "").list_changed("main") == {Path(".gitignore"), Path(TABLE)}
    git(db, "commit", "-q", "-a", "-m", "second")
    assert Git(db, "").list_changed("main~1") == {Path(".gitignore"), Path(TABLE)}
    assert Git(db, "").list_changed("main") == set()


def test_a_tree_that_leads_out_of_its_folder_writes_nothing_there(db: Path, tmp_path: Path) -> None:
    blob = git(db, "hash-object", "-w", TABLE)
    up = make_tree(db, ("100644", "20260101000005_up.sql", blob))
    folder = make_tree(db, ("40000", "..", up), ("100644", TABLE, blob))
    commit = git(db, "commit-tree", "-m", "evil", make_tree(db, ("40000", "db", folder)))
    assert [m.name for m in read_baseline(db, commit).migrations] == [TABLE.removesuffix(".sql")]


def make_tree(folder: Path, *entries: tuple[str, str, str]) -> str:
    """A tree object of (mode, name, object), one that git itself would refuse as well."""
    tree = b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(object_) for mode, name, object_ in entries)
    command = ["git", "hash-object", "-t", "tree", "-w", "--stdin", "--literally"]
    return subprocess.run(command, cwd=folder, input=tree, check=True, capture_output=True).stdout.decode().strip()
