"""Fixtures that every test may use: a fixed environment, and a real PostgreSQL of the test run's own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
import pytest
from psycopg import sql

from stackctl.core.bundled import find_bundled
from stackctl.migrate.folder import discover
from stackctl.migrate.runner.run import apply_migrations
from stackctl.postgres import embedded
from tests import forked, guard
from tests.backend import Project, seed_tenancies
from tests.shop import Shop
from tests.standby import Standby
from tests.stripe_fake import Running, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Of whoever runs the tests: what stackctl, libpq, git, Stripe's SDK and terminals would read. None of it gets through.
THEIRS = ("STACKCTL_", "STRIPE_", "PG", "GIT_", "XDG_", "LC_")
THEIRS_TOO = {"FORCE_COLOR", "CLICOLOR_FORCE", "PY_COLORS", "LANGUAGE", "LINES", "GITHUB_ACTIONS", "VISUAL", "EDITOR"}
# Nothing that a test writes has to outlive the machine.
FAST = {
    "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "wal_init_zero": "off",
    "autovacuum": "off", "io_method": "sync", "max_connections": "200",
}  # fmt: skip
UNIT = Path(__file__).with_name("unit")
ROOM = 2 << 30  # bytes that are to be free in memory for the databases of a run


def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: one process more than there are cores, because tests wait for servers as long as they compute."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Unit tests are quick, and need no server."""
    for item in items:
        if UNIT in item.path.parents:
            item.add_marker(pytest.mark.quick)
            assert "server" not in getattr(item, "fixturenames", ()), f"{item.nodeid} is no unit test: it has a server"


class Connect(Protocol):
    def __call__(self, url: str, autocommit: bool = False) -> psycopg.Connection[Any]: ...


@pytest.fixture(scope="session", autouse=True)
def environment() -> Iterator[Path]:
    """The same terminal, time zone and home everywhere, and nothing of the developer's own settings.

    Yields the directory of this process's servers and its commands' temporary files: in memory where that is large
    enough. It goes with the process, as do the servers, however the process ends (tests/guard.py).
    """
    directory = Path(tempfile.mkdtemp(prefix="sc-", dir=find_memory()))
    directory.chmod(0o711)
    mark = secrets.token_hex(8)
    parent = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else 0
    command = [sys.executable, "-S", guard.__file__, mark, str(parent), str(directory)]
    # The guard of a run that a test has started outlives what the guard of that test ends.
    own = {name: value for name, value in os.environ.items() if name != guard.VARIABLE}
    with pytest.MonkeyPatch.context() as patch, subprocess.Popen(
        command, env=own, stdin=subprocess.PIPE, start_new_session=True
    ):  # fmt: skip
        for name in list(os.environ):
            if name in THEIRS_TOO or name.startswith(THEIRS):
                patch.delenv(name)
        home = directory / "home"
        home.mkdir(mode=0o711)
        # The checkout itself may belong to another user.
        (home / ".gitconfig").write_text("[safe]\n\tdirectory = *\n")
        fixed = {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1", "TZ": "UTC", "LANG": "C.UTF-8"}
        fixed |= {"HOME": str(home), "TMPDIR": str(directory)}
        tempfile.gettempdir()  # of this process: as it was
        for name, value in (fixed | {guard.VARIABLE: mark}).items():
            patch.setenv(name, value)
        time.tzset()
        # A suite that a script starts in the background ignores Ctrl-C, or with nohup the end of its terminal, and so
        # would the commands it starts.
        before = signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGHUP, signal.SIG_DFL)
        yield directory
        for number, handler in zip((signal.SIGINT, signal.SIGHUP), before, strict=True):
            signal.signal(number, handler)
        forked.stop()
    time.tzset()


def find_memory() -> Path | None:
    """Where a directory is kept in memory, if there is such a place with room."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and shutil.disk_usage(shared).free > ROOM else None


@pytest.fixture(scope="session")
def server(environment: Path) -> Iterator[embedded.EmbeddedServer]:
    """One PostgreSQL for each test process."""
    attached = embedded.attach(environment / "pg", options=FAST)
    yield attached
    attached.release()


class Databases:
    """The server's databases, each of one test."""

    def __init__(self, server: embedded.EmbeddedServer) -> None:
        self._server = server
        self._conn = psycopg.connect(server.url(), autocommit=True)
        self._templates: set[str] = set()

    def create(self, prefix: str = "test", template: str = "template1") -> str:
        """A new database's name."""
        name = f"{prefix}_{secrets.token_hex(6)}"
        self._conn.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        return name

    def url(self, name: str) -> str:
        return self._server.url(name)

    def drop(self, name: str) -> None:
        self._conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    @contextmanager
    def one(self, prefix: str = "test", template: str = "template1") -> Iterator[str]:
        """The URL of a database that is gone afterwards."""
        name = self.create(prefix, template)
        try:
            yield self._server.url(name)
        finally:
            self.drop(name)

    def template(self, build: Callable[[psycopg.Connection[Any]], object]) -> str:
        """The name of a database that `build` filled, once in this process; to be cloned, not used."""
        name = f"template_{build.__module__}_{build.__name__}"[-63:]
        if name not in self._templates:
            self._conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            with psycopg.connect(self._server.url(name), autocommit=True) as conn:
                build(conn)
            self._templates.add(name)
        return name

    def close(self) -> None:
        self._conn.close()


@pytest.fixture(scope="session")
def databases(server: embedded.EmbeddedServer) -> Iterator[Databases]:
    opened = Databases(server)
    yield opened
    opened.close()


@pytest.fixture
def empty_db(databases: Databases) -> Iterator[str]:
    """The URL of a database of this test's own, with nothing in it."""
    with databases.one() as url:
        yield url


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Open connections that are closed at the end of the test."""
    opened: list[psycopg.Connection[Any]] = []

    def open_one(url: str, autocommit: bool = False) -> psycopg.Connection[Any]:
        connection: psycopg.Connection[Any] = psycopg.connect(url, autocommit=autocommit)
        opened.append(connection)
        return connection

    yield open_one
    for connection in opened:
        connection.close()


@pytest.fixture(scope="module")
def standby(server: embedded.EmbeddedServer, environment: Path) -> Iterator[Standby]:
    """A streaming standby of the test server."""
    with Standby(server.url(), environment) as running:
        yield running


# -- payments


@pytest.fixture
def stripe() -> Iterator[Running]:
    """A stand-in for Stripe on loopback."""
    with running() as fake:
        yield fake


@pytest.fixture
def shop(tmp_path: Path, migrated_db: str, stripe: Running) -> Shop:
    """A project directory whose tenancies sell through the stand-in."""
    return Shop(tmp_path, migrated_db, stripe)


# -- the pipeline: migrated databases, external ones, and a directory to run the command in


def migrated(conn: psycopg.Connection[Any]) -> None:
    """Every bundled migration, and two tenancies."""
    apply_migrations(conn, discover(find_bundled("migrations")))
    seed_tenancies(conn)


@pytest.fixture
def migrated_db(databases: Databases) -> Iterator[str]:
    """The URL of a backend's database of this test's own: migrated, two tenancies, no other row."""
    with databases.one(template=databases.template(migrated)) as url:
        yield url


@pytest.fixture
def external_db(databases: Databases) -> Iterator[str]:
    """The URL of an empty database to sync into."""
    with databases.one("external") as url:
        yield url


@pytest.fixture
def source(migrated_db: str, connect: Connect) -> psycopg.Connection[Any]:
    """The application's connection to `migrated_db`, in autocommit mode."""
    return connect(migrated_db, autocommit=True)


@pytest.fixture
def project(tmp_path: Path, migrated_db: str) -> Project:
    """A directory whose stackctl.yaml names `migrated_db` and, so far, no external database."""
    return Project(tmp_path, migrated_db)
