"""The files of an embedded server: whose they are, who may pass, and the locks among them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pwd
import re
import socket
import stat
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from stackctl.core.errors import ServiceError, StateError
from stackctl.postgres.binaries import find_server_account, grant_passage

if TYPE_CHECKING:
    from collections.abc import Iterator

USE_LOCK, KEEPER_LOCK = "use.lock", "keeper.lock"
PORT = 5432  # only a part of the socket's name: there is no TCP
WAIT_SECONDS = 30.0  # for another process that is starting or stopping the server
POLL_SECONDS = 0.02
_SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103


class ServerFiles:
    """The directory of an embedded server; see embedded.py for what is in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.start_lock: int | None = None  # inside `alone`

    def server_account(self) -> pwd.struct_passwd | None:
        """Whom postgres runs as when that is not this process's user: it refuses to run as root."""
        if os.geteuid() != 0:
            return None
        with contextlib.suppress(FileNotFoundError, KeyError):
            owner = self.data.stat().st_uid
            if owner != 0:
                return pwd.getpwuid(owner)
        return find_server_account()

    def make_private(self, path: Path) -> None:
        """Make a directory that the account of postgres alone may use."""
        path.mkdir(mode=0o700)
        account = self.server_account()
        if account is None:
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(descriptor, account.pw_uid, account.pw_gid)
        finally:
            os.close(descriptor)

    def open(self, name: str) -> int:
        """Open a file of DIR, made on first use so that root and the user postgres runs as can both use it."""
        path = self.directory / name
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return os.open(path, flags)
        account = self.server_account()
        if account is not None:
            os.fchown(descriptor, account.pw_uid, account.pw_gid)
        return descriptor

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, no other process starts or stops the server. Raises StateError `embedded-busy`."""
        lock = self.open("start.lock")
        try:
            deadline = time.monotonic() + WAIT_SECONDS
            while not try_lock(lock):
                if time.monotonic() > deadline:
                    raise StateError(
                        f"another process is starting or stopping the PostgreSQL in {self.directory}",
                        code="embedded-busy",
                        hint=f"wait for it, or see who holds {self.directory / 'start.lock'}",
                    )
                time.sleep(POLL_SECONDS)
            self.start_lock = lock
            yield
        finally:
            self.start_lock = None
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    def is_kept(self) -> bool:
        """Whether a keeper (keeper.py) lives."""
        with (self.directory / KEEPER_LOCK).open("ab") as lock:
            return not try_lock(lock.fileno())

    def socket_directory_names(self) -> tuple[str, str]:
        """Beside `data`, and in the directory for temporary files."""
        # The data directory's inode is in the name: a server whose files somebody removed takes the socket it made
        # along when it notices, and that must not be the socket of its successor.
        inode = b"%x" % self.data.stat().st_ino
        digest = hashlib.sha256(os.fsencode(self.directory) + b"\0" + inode).hexdigest()
        return f"run-{inode.decode()}", f"stackctl-{digest[:16]}"

    def make_socket_directory(self) -> Path:
        """A private directory, empty of sockets, whose path libpq and postgres can use."""
        near, far = self.socket_directory_names()
        sockets = self.directory / near
        too_long = len(os.fsencode(sockets / f".s.PGSQL.{PORT}")) > _SOCKET_PATH_BYTES
        # libpq and postgres read a list there: split at commas, with quotes, without the blanks around.
        if too_long or not re.fullmatch(r"[\w./+=~-]+", str(sockets), re.ASCII):
            sockets = Path(tempfile.gettempdir()).resolve() / far
        with contextlib.suppress(FileExistsError):
            self.make_private(sockets)
        account = self.server_account()
        owner = os.geteuid() if account is None else account.pw_uid
        found = sockets.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or stat.S_IMODE(found.st_mode) & 0o077:
            raise ServiceError(
                f"the socket directory {sockets} is not a private directory of user {owner}",
                code="embedded-socket-directory",
                hint="remove it, or set TMPDIR to a directory of your own",
            )
        if account is not None:
            grant_passage(sockets.parent, account, own=self.directory)
        for leftover in sockets.glob(".s.PGSQL.*"):
            if _is_listened_to(leftover):  # by a server that another container runs: its processes can't be seen here
                raise StateError(
                    f"a PostgreSQL runs on {self.data}, and its processes can't be seen from here",
                    code="embedded-busy",
                    hint="stop what uses it, perhaps in another container",
                )
            leftover.unlink()
        return sockets

    def log_since(self, offset: int) -> list[str]:
        """The lines of server.log behind so many bytes."""
        with os.fdopen(self.open("server.log"), "rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace").splitlines()


def _is_listened_to(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
    return True


def try_lock(descriptor: int) -> bool:
    """Whether the file could be locked exclusively, which nothing waits for."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
