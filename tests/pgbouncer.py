"""Debian's pgbouncer in front of a PostgreSQL, in transaction mode, with a pool of a few sessions for everybody."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from stackctl.postgres.binaries import find_server_account

if TYPE_CHECKING:
    from types import TracebackType

PROGRAM = "pgbouncer"
PORT = 6432  # of a socket in a directory of its own
START = 10.0  # seconds
MISSING = "pgbouncer is not installed (Debian: apt-get install pgbouncer)"


class PgBouncer:
    """A running pgbouncer in front of the server that `server_url` names; `options` are lines of its configuration."""

    def __init__(self, server_url: str, directory: Path, *, size: int = 2, **options: object) -> None:
        program = shutil.which(PROGRAM) or shutil.which(PROGRAM, path="/usr/sbin:/usr/local/sbin")
        if program is None:
            pytest.fail(MISSING) if os.environ.get("CI") else pytest.skip(MISSING)
        self._program = program
        self._directory = Path(tempfile.mkdtemp(prefix="pb-", dir=directory))
        account = find_server_account() if os.geteuid() == 0 else None
        self._as: dict[str, Any] = {}
        if account is not None:
            os.chown(self._directory, account.pw_uid, account.pw_gid)
            self._as = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        server = conninfo_to_dict(server_url)
        settings = {
            "unix_socket_dir": self._directory, "listen_port": PORT, "auth_type": "any", "pool_mode": "transaction",
            "default_pool_size": size, "max_client_conn": 100, "stats_period": 3600,
            "logfile": self._directory / "log",
        } | options  # fmt: skip
        place = f"host={server['host']} port={server['port']} user={server['user']}"
        lines = [
            "[databases]",
            f"* = {place}",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in settings.items()),
        ]
        (self._directory / "ini").write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._user = server["user"]
        self.start()

    def __enter__(self) -> PgBouncer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._directory)

    def url(self, database_url: str) -> str:
        """The way through it to a database of the server."""
        return (
            f"postgresql://{self._user}@/{conninfo_to_dict(database_url)['dbname']}?host={self._directory}&port={PORT}"
        )

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._program, "-q", str(self._directory / "ini")], stderr=subprocess.DEVNULL, **self._as
        )
        deadline = time.monotonic() + START
        while True:
            with suppress(OSError), socket.socket(socket.AF_UNIX) as end:
                end.connect(str(self._directory / f".s.PGSQL.{PORT}"))
                return
            assert time.monotonic() < deadline, (self._directory / "log").read_text()
            time.sleep(0.01)

    def stop(self) -> None:
        """At once, and with it every connection."""
        self._process.terminate()
        self._process.wait()
