"""Where a connection leads: to the server that was named, whatever the environment says, and to no stand-in."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from stackctl.core.errors import ServiceError, StateError
from stackctl.postgres import embedded
from stackctl.postgres.connect import connect
from tests.backend import Project
from tests.conftest import FAST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def trap() -> Iterator[socket.socket]:
    """Somebody who listens, and to whom nobody may come."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening
        with pytest.raises(BlockingIOError):
            listening.accept()


def set_traps(monkeypatch: pytest.MonkeyPatch, trap: socket.socket, folder: Path) -> None:
    """Every variable that leads elsewhere, or that makes a connection fail."""
    port = str(trap.getsockname()[1])
    (folder / "services").write_text(f"[trap]\nhost=127.0.0.1\nhostaddr=127.0.0.1\nport={port}\nuser=nobody\n")
    for name, value in {
        "PGHOST": "127.0.0.1", "PGHOSTADDR": "127.0.0.1", "PGPORT": port, "PGDATABASE": "nowhere", "PGUSER": "nobody",
        "PGSERVICE": "trap", "PGSERVICEFILE": str(folder / "services"), "PGREQUIREAUTH": "scram-sha-256",
        "PGTARGETSESSIONATTRS": "standby", "PGGSSENCMODE": "require", "PGCHANNELBINDING": "require",
        "PGSSLMODE": "bogus", "PGOPTIONS": "-c nonsense", "PGTZ": "Nowhere", "PGDATESTYLE": "x", "PGGEQO": "x",
        "PGCLIENTENCODING": "x", "PGCONNECT_TIMEOUT": "x", "PGMAXPROTOCOLVERSION": "x", "PGLOADBALANCEHOSTS": "x",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


def test_an_embedded_server_is_reached_whatever_is_set(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: socket.socket
) -> None:
    set_traps(monkeypatch, trap, tmp_path)
    project = Project(tmp_path, f"embedded:{environment}/trapped?dbname=shop")
    assert project.run("migrate", "up").code == 0
    assert project.run("status", "--json").code == 0


def test_a_server_that_a_url_names_is_reached_whatever_is_set(
    empty_db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: socket.socket
) -> None:
    for name, value in {"PGHOSTADDR": "127.0.0.1", "PGPORT": str(trap.getsockname()[1]), "PGDATABASE": "x"}.items():
        monkeypatch.setenv(name, value)
    assert Project(tmp_path, empty_db).run("migrate", "up").code == 0
    refused = Project(tmp_path, "postgresql://someone@nobody.invalid/shop").run("fuse", "show")
    assert refused.code == 4
    assert "can't be reached at nobody.invalid:5432" in refused.stderr


def test_the_place_in_a_message_is_the_one_that_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "127.0.0.1")
    monkeypatch.setenv("PGPORT", "1")
    assert "at 127.0.0.1:1" in Project(tmp_path, "postgresql:///shop").run("fuse", "show").stderr


def test_a_stand_in_at_the_socket_is_refused_before_anything_is_done(
    environment: Path, server: embedded.EmbeddedServer
) -> None:
    mine = embedded.attach(environment / "replaced", options=FAST)
    own = Path(mine.parameters()["host"]) / ".s.PGSQL.5432"
    kept = own.rename(own.with_name("kept"))
    own.symlink_to(Path(server.parameters()["host"]) / own.name)
    try:
        for work in (lambda: connect(f"embedded:{environment}/replaced"), lambda: mine.ensure_database("new")):
            with pytest.raises(StateError) as caught:
                work()
            assert caught.value.code == "another-server"
        with server.connect(server.parameters()) as conn:
            assert conn.execute("SELECT count(*) FROM pg_database WHERE datname = 'new'").fetchone() == (0,)
    finally:
        kept.rename(own)
        mine.release()


class Server:
    """Somebody who plays a server: says what it was told to, and keeps what it heard."""

    def __init__(self, *answers: bytes) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._answers = answers
        self._held: list[socket.socket] = []
        self.url = f"postgresql://u:pw12@127.0.0.1:{self._listening.getsockname()[1]}/db"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                conn, _ = self._listening.accept()
            except OSError:
                return
            self._held.append(conn)
            while conn.recv(4096)[4:8] == b"\x04\xd2\x16\x2f":  # a request for TLS
                conn.sendall(b"N")
            for answer in self._answers:
                conn.sendall(answer)

    def close(self) -> None:
        for one in (self._listening, *self._held):
            one.close()


@pytest.fixture
def play() -> Iterator[Callable[..., Server]]:
    played: list[Server] = []

    def start(*answers: bytes) -> Server:
        played.append(Server(*answers))
        return played[-1]

    yield start
    for one in played:
        one.close()


GSS = b"R\x00\x00\x00\x08\x00\x00\x00\x07"


@pytest.mark.parametrize("asked", [None, "!password", "!md5", "!none", "!sspi", "!gss,!md5"])
def test_a_tenancys_server_gets_no_ticket(play: Callable[..., Server], asked: str | None) -> None:
    url = play(GSS).url + (f"?require_auth={quote(asked)}" if asked else "")
    with pytest.raises(ServiceError) as caught:
        connect(url, author="neighbour")
    assert "server requested GSSAPI authentication" in caught.value.message


@pytest.mark.parametrize(
    "asked", ["connect_timeout=99999", "connect_timeout=0", "connect_timeout=x&tcp_user_timeout=1"]
)
def test_a_tenancys_server_that_says_nothing_holds_nobody_up_for_long(
    play: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setattr("stackctl.postgres.connect.CONNECT_TIMEOUT", 2)
    started = time.monotonic()
    with pytest.raises(ServiceError) as caught:
        connect(f"{play().url}?{asked}", author="neighbour")
    assert (caught.value.code, time.monotonic() - started < 8) == ("unreachable", True)
