"""PostgreSQL servers for the length of one command, with databases that are cheap to clone.

The SQL that is tried there may be anybody's. Unless it is trusted it runs as a role that is called as a superuser
usually is, so that files may name it, but is none: it reaches neither files nor programs of the machine. The superuser
has another name and never connects to a database in which that SQL ran.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

from psycopg import sql
from psycopg.rows import class_row

from stackctl.postgres import embedded
from stackctl.postgres.binaries import find_binaries
from stackctl.postgres.libpq import open_connection
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stackctl.postgres.embedded import EmbeddedServer
    from stackctl.postgres.libpq import Connection

_SQL = load_statements(__file__)
_ADMIN = "stackctl_admin"
_PREFIX = "stackctl_"  # of databases; files may make their own
_STAND_INS: dict[str, LiteralString] = {
    "role": "CREATE ROLE {} NOLOGIN",
    "database": "CREATE DATABASE {}",
    "tablespace": "CREATE TABLESPACE {} LOCATION ''",
    "parameter": "GRANT SET ON PARAMETER {} TO postgres",
}

_OPTIONS = {
    # Nothing here has to outlive the command, and no other server's default may decide what is measured.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "wal_level": "logical",  # for files that create replication slots
    "allow_in_place_tablespaces": "on",
}

# Ends when its standard input does: that is, with the command, however it ends.
_CLEANER = """
import sys
sys.stdin.read()
from stackctl.migrate.compatibility.scratch_server import remove_servers
remove_servers(sys.argv[1])
"""


@dataclass(frozen=True)
class ServerObject:
    """A role, a tablespace… or what a server knows about a database; `name` is that of the role, the database…"""

    kind: str
    name: str
    state: str


@contextmanager
def make_scratch_directory() -> Iterator[Path]:
    """A temporary directory for servers, each in a folder of its own; all are gone afterwards, even after a kill -9."""
    directory = Path(tempfile.mkdtemp(prefix="stackctl-check-"))
    directory.chmod(0o711)  # under root, servers run as another user
    with subprocess.Popen(
        [sys.executable, "-c", _CLEANER, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as cleaner:
        try:
            yield directory
        finally:
            remove_servers(str(directory))
            assert cleaner.stdin is not None
            cleaner.stdin.close()


def remove_servers(directory: str) -> None:
    """Stop the servers in `directory`, and remove it; one that can't be stopped ends by itself without its files."""
    path = Path(directory)
    for data in path.glob("*/data"):
        embedded.stop(data.parent)
    shutil.rmtree(path, ignore_errors=True)


def read_server_objects(conn: Connection) -> set[ServerObject]:
    """What there is on the server beside what its databases hold: roles, tablespaces, databases' settings…"""
    with conn.cursor(row_factory=class_row(ServerObject)) as cursor:
        return set(cursor.execute(_SQL["server_objects"]))


@contextmanager
def open_schemas(conn: Connection, role: str) -> Iterator[None]:
    """Inside, what is in a schema may be given to a role that may not create anything there, as a superuser could."""
    opened = [name for (name,) in conn.execute(_SQL["closed_schemas"], {"role": role})]
    for name in opened:
        conn.execute(sql.SQL("GRANT CREATE ON SCHEMA {} TO {}").format(sql.Identifier(name), sql.Identifier(role)))
    yield
    for name in opened:
        conn.execute(sql.SQL("REVOKE CREATE ON SCHEMA {} FROM {}").format(sql.Identifier(name), sql.Identifier(role)))


def make_server(directory: Path, options: Mapping[str, str], *, trust: bool) -> None:
    """Start a new server, whose role `postgres` is a superuser only with `trust`. Raises as `embedded.attach` does."""
    server = embedded.attach(directory, options=options)
    if not trust:
        with server.connect(server.parameters()) as conn:
            conn.execute(_SQL["make_admin"])
        with server.connect(server.parameters("template1", _ADMIN)) as conn:
            conn.execute(_SQL["disempower"])


def _write_trusted_extensions(folder: Path) -> None:
    """Let everybody create `vector`: its script only defines things, and its functions compute."""
    shipped = find_binaries().parent / "share" / "postgresql" / "extension"
    control = shipped / "vector.control"
    (folder / "extension").mkdir(parents=True)
    if control.exists():
        text = f"{control.read_text()}\ntrusted = true\ndirectory = '{shipped}'\n"
        (folder / "extension" / control.name).write_text(text)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)


class ScratchDatabases:
    """Databases by name, made on servers in `directory`.

    `apart`: each has a server of its own, the copy of its template's, so that what SQL does to a whole server (roles,
    tablespaces, settings of the database) is cloned with it and seen by no other. Otherwise all share one.
    """

    def __init__(self, directory: Path, *, trust: bool, apart: bool) -> None:
        self._directory = directory
        self._trust = trust
        self.apart = apart
        self._options = dict(_OPTIONS)
        if not trust:
            extensions = directory / "extensions"
            if not extensions.exists():
                _write_trusted_extensions(extensions)
            self._options["extension_control_path"] = f"{extensions}:$system"
        self._places: dict[str, tuple[Path, str]] = {}  # the folder of the server, and the name there

    def create(self, name: str, *, template: str | None = None) -> None:
        """Make a database, or clone `template` (one of these, with nobody connected)."""
        folder = self._directory / (f"apart-{len(self._places)}" if self.apart else "shared")
        if template is not None and self.apart:
            source, full = self._places[template]
            embedded.stop(source)
            folder.mkdir(mode=0o711)
            subprocess.run(["cp", "-a", source / "data", folder / "data"], check=True)
            self._places[name] = (folder, full)
            return
        if not folder.exists():
            make_server(folder, self._options, trust=self._trust)
        full = f"{_PREFIX}{name}"
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(full))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(self._places[template][1]))
        self._places[name] = (folder, full)
        self._execute(name, statement)

    def url(self, name: str) -> str:
        """The URL of a database; its server runs from now on."""
        return self._server(name).url(self._places[name][1])

    def connect(self, name: str) -> Connection:
        """A connection in autocommit mode."""
        return open_connection(self._server(name).parameters(self._places[name][1]))

    def create_stand_in(self, name: str, kind: str, wanted: str) -> None:
        """Make a role, a database… that a migration names and the server of `name` lacks.

        A parameter is a setting of the application's own, which only superusers may set for a role or a database.
        """
        statement = sql.SQL(_STAND_INS[kind]).format(sql.Identifier(wanted))
        with self.empower(name) if kind in ("tablespace", "parameter") else nullcontext():
            self._execute(name, statement)

    @contextmanager
    def empower(self, name: str) -> Iterator[None]:
        """Inside, the role that runs the SQL is a superuser.

        Only for one statement outside a transaction that runs nobody's code: a session learns what it may do when it
        begins a transaction.
        """
        if self._trust:
            yield
            return
        server = self._server(name)
        with server.connect(server.parameters(user=_ADMIN)) as admin:
            admin.execute("ALTER ROLE postgres SUPERUSER")
            try:
                yield
            finally:
                admin.execute("ALTER ROLE postgres NOSUPERUSER")

    def _server(self, name: str) -> EmbeddedServer:
        return embedded.attach(self._places[name][0], options=self._options)

    def _execute(self, name: str, statement: sql.Composed) -> None:
        # Who made the server has asked for its identity; a role that is no superuser can't.
        with open_connection(self._server(name).parameters()) as conn:
            conn.execute(statement)
