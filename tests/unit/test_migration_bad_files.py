"""What lies in the place of a migration file and is none: one clear error, and no waiting."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stackctl.core.errors import ConfigError
from stackctl.migrate.folder import discover
from stackctl.migrate.lint.file_selection import select_files
from stackctl.migrate.lint.linter import lint_files

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "20260101000000_x.sql"
SQL = "-- é\nSELECT 1;\n"


def write(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def make_socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # the whole path may be too long for one
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


# What makes it, the error's code, and what its message and hint say.
BAD: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a directory": (lambda path: path.mkdir(), "migration-file-missing", f"{NAME}/migration.sql does not exist"),
    "a link to nowhere": (lambda path: path.symlink_to("gone.sql"), "migration-file-missing", "is a link to gone.sql"),
    "a link in a circle": (
        lambda path: path.symlink_to(path.name), "migration-file-missing", "is a link that leads in a circle"
    ),
    "a link to a directory": (
        lambda path: path.symlink_to(path.parent), "migration-file-missing", f"{NAME}/migration.sql does not exist"
    ),
    "a FIFO": (os.mkfifo, "migration-file-missing", "is a FIFO, not a file"),
    "a socket": (make_socket, "migration-file-missing", "is a socket, not a file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "migration-file-missing", "is a device, not a file"),
    "UTF-16 with its mark": (write(SQL.encode("utf-16")), "migration-not-utf8", "iconv -f UTF-16 -t UTF-8"),
    "UTF-16 without": (write(SQL.encode("utf-16-le")), "migration-not-utf8", "iconv -f UTF-16LE -t UTF-8"),
    "UTF-16 the other way round": (write(SQL.encode("utf-16-be")), "migration-not-utf8", "iconv -f UTF-16BE -t UTF-8"),
    "UTF-16 of ASCII": (write("SELECT 1".encode("utf-16-le")), "migration-not-utf8", ":1: UTF-16LE, not UTF-8"),
    "UTF-32": (write(SQL.encode("utf-32")), "migration-not-utf8", "iconv -f UTF-32 -t UTF-8"),
    "Latin-1": (write(SQL.encode("latin-1")), "migration-not-utf8", ":1: not UTF-8 (byte 0xe9)"),
    "a NUL byte": (write(b"SELECT 1;\nSELECT \x002"), "invalid-migration", ":2: a NUL byte"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_it_is_refused_with_what_it_is(tmp_path: Path, what: str) -> None:
    make, code, said = BAD[what]
    make(tmp_path / NAME)
    with pytest.raises(ConfigError) as caught:
        discover(tmp_path)
    error = caught.value
    assert (error.code, said in f"{error.message}\n{error.hint}") == (code, True)
    assert NAME in error.message
    assert error.hint


@pytest.mark.parametrize("what", BAD)
def test_lint_calls_it_unreadable(tmp_path: Path, what: str) -> None:
    BAD[what][0](tmp_path / NAME)
    (files,) = select_files([tmp_path])
    assert [finding.rule for finding in lint_files(files, schema="public")] == ["unreadable-file"]


@pytest.mark.parametrize("name", ["notes.sql", "7_x.sql", "20260101000000_x/migration.sql"])
def test_a_fifo_of_another_name_holds_nobody_up(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(ConfigError):
        discover(tmp_path)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))  # root may read everything

    (tmp_path / NAME).write_text(SQL)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError) as caught:
        discover(tmp_path)
    assert caught.value.code == "migration-unreadable"
    assert f"{NAME} can't be read: Permission denied" in caught.value.message


def test_a_file_that_goes_while_the_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / NAME, tmp_path / "20260101000001_y.sql"
    for path in (first, second):
        path.write_text(SQL)
    read = Path.read_bytes

    def read_and_remove(path: Path) -> bytes:
        second.unlink(missing_ok=True)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_and_remove)
    with pytest.raises(ConfigError) as caught:
        discover(tmp_path)
    assert (caught.value.code, second.name in caught.value.message) == ("migration-file-missing", True)


@pytest.mark.parametrize("name", [b"20260101000000_\xff.sql", b"20260101000000_\xff/migration.sql", b"7_\xff.sql"])
def test_a_name_that_is_not_utf8_can_not_be_recorded(tmp_path: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    path.parent.mkdir(exist_ok=True)
    path.write_text(SQL)
    with pytest.raises(ConfigError) as caught:
        discover(tmp_path)
    assert (caught.value.code, "is not UTF-8" in caught.value.message) == ("invalid-migration-file-name", True)


@pytest.mark.parametrize("name", ["a'b\"c", "a\u202eb", "a\\b", "a%s{}", "a b ", "x" * 236])
def test_odd_names_are_names(tmp_path: Path, name: str) -> None:
    (tmp_path / f"20260101000000_{name}.sql").write_text(SQL)
    assert [migration.name for migration in discover(tmp_path)] == [f"20260101000000_{name}"]


def test_a_name_of_two_lines_is_none(tmp_path: Path) -> None:
    (tmp_path / "20260101000000_a\nb.sql").write_text(SQL)
    with pytest.raises(ConfigError) as caught:
        discover(tmp_path)
    assert caught.value.code == "invalid-migration-file-name"


def test_names_that_differ_in_case_alone_have_one_version(tmp_path: Path) -> None:
    for name in ("20260101000000_a.sql", "20260101000000_A.sql"):
        (tmp_path / name).write_text(SQL)
    with pytest.raises(ConfigError) as caught:
        discover(tmp_path)
    assert caught.value.code == "duplicate-migration-version"


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "migrations").write_text(SQL)
    with pytest.raises(ConfigError) as caught:
        discover(tmp_path / "migrations")
    assert (caught.value.code, "is a file" in caught.value.message) == ("migrations-dir-missing", True)


def test_three_thousand_files_are_read_in_their_order(tmp_path: Path) -> None:
    names = [f"{20260101000000 + number}_f" for number in range(3_000)]
    for name in reversed(names):
        (tmp_path / f"{name}.sql").write_text("SELECT 1")
    assert [migration.name for migration in discover(tmp_path)] == names
