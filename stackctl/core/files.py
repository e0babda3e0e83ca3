"""Files replaced whole or not at all; what is new is its owner's alone: people's data and passwords come into it."""

from __future__ import annotations

import codecs
import errno
import os
import stat
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stackctl.core.errors import StateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

STDIN, STDOUT = Path("/dev/stdin"), Path("/dev/stdout")  # what a FILE of `-` is
MAX_WRITTEN = 8 << 20  # bytes of a file that people write

_umask_lock = threading.Lock()
_umask_holders = 0
_umask_before = 0


def read_bounded(path: Path, most: int = MAX_WRITTEN) -> bytes:
    """The file's bytes. Raises OSError: `EFBIG` for more than `most`, as of what never ends (`/dev/zero`)."""
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"larger than {most >> 20} MB")
    return data


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` beside the file, with its rights and owner, and put it in its place; behind a link, the link's
    target. A new file may be read by its owner alone. What is no file (`/dev/stdout`, a pipe) is written to.

    Raises OSError, and then no file was changed.
    """
    if is_stream(path):
        path.write_bytes(data)
        return
    refuse_planted(path)
    import tempfile

    target = path.resolve()
    before = target.stat() if target.exists() else None
    descriptor, name = tempfile.mkstemp(prefix=".stackctl.", dir=target.parent)
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if before is not None:
                with suppress(PermissionError):  # only root gives files away
                    os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, before.st_mode & 0o777)
        try:
            beside.replace(target)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            target.write_bytes(data)  # a file that is mounted by itself, as into a container, can't be replaced
            beside.unlink()
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def replace_text(path: Path, before: str | None, after: str) -> None:
    """Replace the file's text, which was read as `before` (None: there was no file), and keep its byte order mark.

    Raises StateError `changed-meanwhile` when it is something else by now, UsageError for stdin, and OSError; then no
    file was changed.
    """
    if path == STDIN:
        raise UsageError("what comes from standard input can't be changed", code="usage", hint="name a file")
    now = path.read_bytes() if path.exists() else None
    if (None if now is None else now.decode("utf-8-sig", "replace")) != before:
        raise StateError(
            f"{path} was changed meanwhile; nothing was written", code="changed-meanwhile", hint="try again"
        )
    mark = codecs.BOM_UTF8 if now is not None and now.startswith(codecs.BOM_UTF8) else b""
    replace_file(path, mark + after.encode())


def refuse_planted(path: Path) -> None:
    """In a folder that everybody may write (/tmp), a link or a file of another user may have been put there for us.

    Raises PermissionError, as the kernel itself does where it protects such folders.
    """
    with suppress(FileNotFoundError):
        folder, found = path.parent.stat(), path.lstat()
        everybodys = folder.st_mode & stat.S_ISVTX and folder.st_mode & stat.S_IWOTH
        if everybodys and found.st_uid not in (os.geteuid(), folder.st_uid):
            raise PermissionError(errno.EACCES, "it belongs to another user, in a folder that everybody may write")


def is_stream(path: Path) -> bool:
    """Whether what is written there goes somewhere else than into a file of that name."""
    # A descriptor may lead to a file that others go on writing.
    return str(path).startswith(("/dev/fd/", "/dev/std", "/proc/")) or (path.exists() and not path.is_file())


def make_private_file(path: Path) -> None:
    """An empty file that only its owner may read, where there is none; what hinders it, whoever opens it will say.

    Raises PermissionError for one that was planted.
    """
    refuse_planted(path)
    with suppress(OSError, RuntimeError):
        os.close(os.open(path.resolve(), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def is_writable(path: Path) -> bool:
    """Whether this process may write what is there, by its rights and by the file system, or nothing is there."""
    return not path.exists() or os.access(path, os.W_OK)


def identify_file(path: Path) -> tuple[int, int] | None:
    """Which file is at a place: its device and inode. None: there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino)


@contextmanager
def private_umask() -> Iterator[None]:
    """Inside, whatever this process makes is its owner's alone: for a library that makes files when it pleases.

    The umask is the whole process's: it is given back when the last thread that needs it is done.
    """
    global _umask_holders, _umask_before
    with _umask_lock:
        if _umask_holders == 0:
            _umask_before = os.umask(0o077)
        _umask_holders += 1
    try:
        yield
    finally:
        with _umask_lock:
            _umask_holders -= 1
            if _umask_holders == 0:
                os.umask(_umask_before)
