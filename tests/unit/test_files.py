from __future__ import annotations

import os
import stat
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stackctl.core.files import make_private_file, private_umask, replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """As most systems have it: what is not made private is not."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_is_private_and_an_old_one_keeps_its_rights(tmp_path: Path) -> None:
    file = tmp_path / "a"
    replace_file(file, b"1")
    assert (file.read_bytes(), mode(file)) == (b"1", 0o600)
    file.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(file)
    with file.open("rb") as held:
        replace_file(link, b"2")
        assert held.read() == b"1", "whoever reads it has the old one, whole"
    assert (file.read_bytes(), mode(file), link.is_symlink()) == (b"2", 0o640, True)
    assert sorted(tmp_path.iterdir()) == [file, link]


def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    file = tmp_path / "a"
    file.touch()
    os.chown(file, 1234, 1235)
    replace_file(file, b"x")
    assert (file.stat().st_uid, file.stat().st_gid) == (1234, 1235)


def test_what_fails_leaves_nothing_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"1")

    def fail(*given: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "fchmod", fail)
    with pytest.raises(OSError, match="no space"):
        replace_file(file, b"2")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("a", b"1")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("make", [lambda path: replace_file(path, b"ours"), make_private_file])
def test_what_was_planted_in_a_folder_of_everybodys_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    tmp_path.chmod(0o1777)
    planted = tmp_path / "planted"
    planted.write_text("theirs")
    link, victim = tmp_path / "link", tmp_path / "folder" / "victim"
    victim.parent.mkdir()
    link.symlink_to(victim)
    for path in (planted, link):
        os.chown(path, 12345, -1, follow_symlinks=False)
    for path in (planted, link):
        with pytest.raises(PermissionError):
            make(path)
    assert (planted.read_text(), victim.exists()) == ("theirs", False)
    make(tmp_path / "new")
    tmp_path.chmod(0o755)
    make(link)
    assert victim.exists()


def test_what_is_no_file_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    replace_file(pipe, b"x")
    reader.join(10)
    assert (found, pipe.is_fifo()) == ([b"x"], True)
    kept = tmp_path / "kept"
    with kept.open("wb") as file:
        inode = kept.stat().st_ino
        replace_file(Path(f"/dev/fd/{file.fileno()}"), b"y")
    assert (kept.read_bytes(), kept.stat().st_ino) == (b"y", inode)


def test_a_private_file_is_made_where_there_is_none(tmp_path: Path) -> None:
    file, link = tmp_path / "a", tmp_path / "link"
    link.symlink_to(file)
    make_private_file(link)
    assert (mode(file), link.is_symlink()) == (0o600, True)
    file.chmod(0o644)
    file.write_bytes(b"x")
    make_private_file(file)
    make_private_file(tmp_path / "no" / "folder")
    assert (mode(file), file.read_bytes()) == (0o644, b"x")


def test_the_umask_is_given_back_by_the_last_who_needs_it(tmp_path: Path) -> None:
    def made(name: str) -> int:
        (tmp_path / name).touch()
        return mode(tmp_path / name)

    first, second = ExitStack(), ExitStack()
    first.enter_context(private_umask())
    second.enter_context(private_umask())
    first.close()
    assert made("within") == 0o600
    second.close()
    assert made("after") == 0o644
