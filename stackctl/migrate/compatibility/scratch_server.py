"""A PostgreSQL for the length of one command, with databases that are cheap to clone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg import sql

from stackctl.core.errors import StackctlError
from stackctl.postgres import embedded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.postgres.embedded import EmbeddedServer
    from stackctl.postgres.libpq import Connection

# Nothing here has to outlive the command, and no other server's default may decide what is measured.
_OPTIONS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}

# Ends when its standard input does: that is, with the command, however it ends.
_CLEANER = """
import sys
sys.stdin.read()
from stackctl.migrate.compatibility.scratch_server import remove_server
remove_server(sys.argv[1])
"""


@contextmanager
def run_scratch_server() -> Iterator[EmbeddedServer]:
    """A server of the command's own in a temporary directory; both are gone afterwards, even after a kill -9.

    Raises what `embedded.attach` raises.
    """
    directory = Path(tempfile.mkdtemp(prefix="stackctl-check-"))
    with subprocess.Popen(
        [sys.executable, "-c", _CLEANER, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as cleaner:
        try:
            yield embedded.attach(directory, options=_OPTIONS)
        finally:
            remove_server(str(directory))
            assert cleaner.stdin is not None
            cleaner.stdin.close()


def remove_server(directory: str) -> None:
    """Stop the server in `directory`, if one runs, and remove the directory."""
    path = Path(directory)
    if not path.is_dir():
        return
    if (path / "data").exists():
        # What is left of one that fails is removed all the same, and a server without files ends by itself.
        with suppress(StackctlError):
            embedded.attach(path).release()
    shutil.rmtree(path, ignore_errors=True)


class ScratchDatabases:
    """Databases and roles on a server, dropped when the block ends. `prefix` keeps the names apart from others'."""

    def __init__(self, server: EmbeddedServer, prefix: str) -> None:
        self._server = server
        self._prefix = prefix
        self._made: list[str] = []
        self._roles: list[str] = []

    def __enter__(self) -> ScratchDatabases:
        return self

    def __exit__(self, *exc: object) -> None:
        for name in self._made:
            self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        for role in self._roles:
            self._execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))

    def create(self, name: str, *, template: str | None = None) -> str:
        """Make a database, or clone `template` (one of these, with nobody connected); returns the name's URL."""
        full = f"{self._prefix}{name}"
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(full))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(f"{self._prefix}{template}"))
        self._made.append(full)
        self._execute(statement)
        return self._server.url(full)

    def connect(self, name: str) -> Connection:
        """A connection in autocommit mode."""
        return self._server.connect(self._server.parameters(f"{self._prefix}{name}"))

    def create_role(self, role: str) -> None:
        """Make a role that a migration names and this server lacks; it may do nothing."""
        self._execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
        self._roles.append(role)

    def _execute(self, statement: sql.Composed) -> None:
        with self._server.connect(self._server.parameters()) as conn:
            conn.execute(statement)
