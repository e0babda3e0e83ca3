"""Which process serves a data directory: what postmaster.pid says, held against the processes that live.

A PID alone tells nothing, because it may be another program's by now; but postgres, all of its processes and nothing
else, works in its data directory. Where the system shows no working directories (macOS), its name must do.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from stackctl.postgres.libpq import Connection

# The first field of the file is the system identifier, by which PostgreSQL itself tells clusters apart. It is read by a
# name relative to the data directory: the server's account may have lost the way to the absolute one, which
# pg_control_system() takes.
_READ_IDENTITY = "SELECT current_setting('data_directory'), pg_read_binary_file('global/pg_control', 0, 8)"
_PROCESSES = Path("/proc")
_NAME = "postgres"


def read_pid_file(data: Path) -> list[str]:
    """The lines of postmaster.pid: PID, data directory, start, port, socket directory, TCP address…; none without it.

    A server that is just starting has written the first ones only.
    """
    try:
        return os.fsdecode((data / "postmaster.pid").read_bytes()).splitlines()
    except FileNotFoundError:
        return []


def find_postmaster(data: Path) -> int | None:
    """The PID in postmaster.pid, if it is that of a server on this directory."""
    lines = read_pid_file(data)
    with suppress(ValueError, OverflowError):
        pid = int(lines[0]) if lines else 0
        if pid > 0 and _serves(pid, data):
            return pid
    return None


def is_served(data: Path) -> bool:
    """Whether any process of a server works there: after the postmaster was killed, its children do for a moment."""
    if find_postmaster(data) is not None:
        return True
    return _PROCESSES.is_dir() and any(
        _serves(int(entry.name), data) for entry in _PROCESSES.iterdir() if entry.name.isdigit()
    )


def _serves(pid: int, data: Path) -> bool:
    process = _PROCESSES / str(pid)
    try:
        if _PROCESSES.is_dir():
            return (process / "comm").read_text().strip() == _NAME and (process / "cwd").samefile(data)
        shown = subprocess.run(["ps", "-p", str(pid), "-o", "comm="], capture_output=True, text=True, check=False)
        return Path(shown.stdout.strip()).name == _NAME
    except OSError:  # it is gone, or another user's
        return False


def is_server_of(conn: Connection, data: Path) -> bool:
    """Whether a superuser's connection is to the server of this directory."""
    try:
        row = conn.execute(_READ_IDENTITY).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return False  # where our superuser is none
    assert row is not None
    directory, identifier = Path(row[0]), row[1]
    with (data / "global" / "pg_control").open("rb") as control:
        expected = control.read(len(identifier))
    return identifier == expected and directory.exists() and data.samefile(directory)
