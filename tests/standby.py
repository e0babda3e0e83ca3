"""A streaming standby of a PostgreSQL, which can be cut off and promoted."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from stackctl.postgres.binaries import find_binaries, find_server_account

if TYPE_CHECKING:
    from types import TracebackType

DEADLINE = 30.0  # seconds


class Standby:
    """A running standby of the server that `primary_url` names; `directory` is its socket's."""

    def __init__(self, primary_url: str, environment: Path) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="sb-", dir=environment))
        account = find_server_account() if os.geteuid() == 0 else None
        self._as: dict[str, Any] = {}
        if account is not None:
            os.chown(self.directory, account.pw_uid, account.pw_gid)
            self._as = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        data = str(self.directory / "data")
        self._run("pg_basebackup", "-d", primary_url, "-D", data, "-R", "-X", "stream", "-c", "fast", "--no-sync")
        options = (
            f"-c unix_socket_directories={self.directory} -c listen_addresses='' -c port=5432 -c max_connections=200"
            " -c fsync=off"
        )
        self._run("pg_ctl", "start", "-w", "-D", data, "-l", str(self.directory / "log"), "-o", options)

    def __enter__(self) -> Standby:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self.directory / "data"))
        shutil.rmtree(self.directory)

    def url(self, dbname: str) -> str:
        return f"postgresql://postgres@/{dbname}?host={self.directory}&port=5432"

    def catch_up(self, primary: psycopg.Connection[Any]) -> None:
        """Wait until it shows all that the primary has committed."""
        position = primary.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
        self._wait_for("SELECT pg_last_wal_replay_lsn() >= %s", *(position or ()))

    def cut_off(self) -> None:
        """It gets nothing more of its primary."""
        with self._connect() as conn:
            conn.execute("ALTER SYSTEM SET primary_conninfo = ''")
            conn.execute("SELECT pg_reload_conf()")
        self._wait_for("SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)")

    def promote(self) -> None:
        with self._connect() as conn:
            conn.execute("SELECT pg_promote(true)")

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url("postgres"), autocommit=True)

    def _wait_for(self, query: Any, *parameters: Any) -> None:
        deadline = time.monotonic() + DEADLINE
        with self._connect() as conn:
            while conn.execute(query, parameters).fetchone() != (True,):
                assert time.monotonic() < deadline, query
                time.sleep(0.02)

    def _run(self, program: str, *arguments: str) -> None:
        with tempfile.TemporaryFile("w+") as said:  # not a pipe, which the server would keep open
            done = subprocess.run([str(find_binaries() / program), *arguments], cwd=self.directory, umask=0o077,
                                  stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False,
                                  **self._as)  # fmt: skip
            said.seek(0)
            assert done.returncode == 0, said.read()
