"""Fixtures that every test may use: a fixed environment, and a real PostgreSQL of the test run's own."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
import pytest
from psycopg import sql

from stackctl import embedded

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
        yield
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
