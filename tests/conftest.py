"""Fixtures that every test may use: a fixed environment, and a real PostgreSQL of the test run's own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
import pytest
from backend import Project, seed_tenancies
from psycopg import sql

from stackctl.core.bundled import bundled
from stackctl.migrate.files import discover
from stackctl.migrate.run import apply_migrations
from stackctl.postgres import embedded
from stackctl.postgres.binaries import find_binaries, server_account
from tests.shop import Shop
from tests.stripe_fake import Running, running

if TYPE_CHECKING:
    from collections.abc import Iterator

# Nothing that a test writes has to outlive the machine.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}


class Connect(Protocol):
    def __call__(self, url: str, autocommit: bool = False) -> psycopg.Connection[Any]: ...


@pytest.fixture(scope="session", autouse=True)
def environment() -> Iterator[None]:
    """The same terminal and time zone everywhere, and nothing of the developer's own settings."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name == "FORCE_COLOR" or name.startswith(("STACKCTL_", "STRIPE_", "PG")):
                patch.delenv(name)
        for name, value in {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1", "TZ": "UTC"}.items():
            patch.setenv(name, value)
        time.tzset()
        # A suite that a script starts in the background ignores Ctrl-C, and so would the commands it starts.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)
    time.tzset()


@pytest.fixture(scope="session")
def server() -> Iterator[embedded.EmbeddedServer]:
    """One PostgreSQL for each test process."""
    directory = Path(tempfile.mkdtemp(prefix="sc-"))
    attached = embedded.attach(directory, options=FAST)
    yield attached
    attached.release()
    shutil.rmtree(directory)


@pytest.fixture
def empty_db(server: embedded.EmbeddedServer) -> Iterator[str]:
    """The URL of a database of this test's own, with nothing in it."""
    name = f"test_{secrets.token_hex(6)}"
    server.ensure_database(name)
    yield server.url(name)
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


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
def standby(server: embedded.EmbeddedServer) -> Iterator[str]:
    """The socket directory of a streaming standby of the test server."""
    directory = Path(tempfile.mkdtemp(prefix="sb-"))
    account = server_account() if os.geteuid() == 0 else None
    binaries = find_binaries()
    run: dict[str, Any] = {}
    if account is not None:
        os.chown(directory, account.pw_uid, account.pw_gid)
        run = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    data = directory / "data"

    def program(name: str, *arguments: str) -> None:
        done = subprocess.run([str(binaries / name), *arguments], cwd=directory, umask=0o077,
                              capture_output=True, text=True, check=False, **run)  # fmt: skip
        assert done.returncode == 0, done.stderr

    program("pg_basebackup", "-d", server.url(), "-D", str(data), "-R", "-X", "stream", "-c", "fast", "--no-sync")
    options = f"-c unix_socket_directories={directory} -c listen_addresses='' -c port=5432 -c max_connections=200"
    with (directory / "log").open("w") as log:
        (directory / "log").chmod(0o666)
        done = subprocess.run([str(binaries / "pg_ctl"), "start", "-w", "-D", str(data), "-o", options],
                              cwd=directory, stdout=log, stderr=log, check=False, **run)  # fmt: skip
    assert done.returncode == 0, (directory / "log").read_text()
    yield str(directory)
    program("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(data))
    shutil.rmtree(directory)


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


def _drop(server: embedded.EmbeddedServer, name: str) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def template(server: embedded.EmbeddedServer) -> str:
    """The name of a database with every bundled migration and two tenancies; to be cloned, not used."""
    name = "template_migrated"
    server.ensure_database(name)
    with psycopg.connect(server.url(name), autocommit=True) as connection:
        apply_migrations(connection, discover(bundled("migrations")))
        seed_tenancies(connection)
    return name


@pytest.fixture
def migrated_db(server: embedded.EmbeddedServer, template: str) -> Iterator[str]:
    """The URL of a backend's database of this test's own: migrated, two tenancies, no other row."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
    yield server.url(name)
    _drop(server, name)


@pytest.fixture
def external_db(server: embedded.EmbeddedServer) -> Iterator[str]:
    """The URL of an empty database to sync into."""
    name = f"external_{secrets.token_hex(6)}"
    server.ensure_database(name)
    yield server.url(name)
    _drop(server, name)


@pytest.fixture
def source(migrated_db: str, connect: Connect) -> psycopg.Connection[Any]:
    """The application's connection to `migrated_db`, in autocommit mode."""
    return connect(migrated_db, autocommit=True)


@pytest.fixture
def project(tmp_path: Path, migrated_db: str) -> Project:
    """A directory whose stackctl.yaml names `migrated_db` and, so far, no external database."""
    return Project(tmp_path, migrated_db)
