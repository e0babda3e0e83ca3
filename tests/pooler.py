"""A transaction-pooling proxy in front of a PostgreSQL: clients share a few sessions, one transaction at a time."""

from __future__ import annotations

import socket
import struct
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from psycopg.conninfo import conninfo_to_dict

if TYPE_CHECKING:
    from types import TracebackType

_SSL, _GSS, _CANCEL = 80877103, 80877104, 80877102
_ENDS_A_ROUND = b"QSF"  # Query, Sync, FunctionCall: the server answers with ReadyForQuery
_PROTOCOL = 196608


class _Stream:
    """PostgreSQL's messages over a socket."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._file = end.makefile("rb")

    def untyped(self) -> bytes:
        """The payload of a message of the startup, which has no type."""
        (length,) = struct.unpack("!i", self._exactly(4))
        return self._exactly(length - 4)

    def message(self) -> tuple[bytes, bytes]:
        """Type and payload."""
        kind = self._exactly(1)
        return kind, self.untyped()

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        self.raw(kind + struct.pack("!i", len(payload) + 4) + payload)

    def raw(self, data: bytes) -> None:
        self._end.sendall(data)

    def close(self) -> None:
        with suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)
        self._file.close()
        self._end.close()

    def _exactly(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise ConnectionError("closed")
        return data


class Pooler:
    """Gives each transaction one of `size` sessions: the one that was given back last, or by turns.

    Like the poolers in use it names a process id of its own to each client, and keeps what clients SET in the session
    that they happened to be given. With `per="session"` a client keeps its session, as in session pooling. `url` leads
    to the same database through it. Server sessions log in without a password.
    """

    def __init__(self, url: str, *, size: int, turns: bool = False, per: Literal["transaction", "session"]) -> None:
        parameters = conninfo_to_dict(url)
        self._server = Path(str(parameters["host"])) / f".s.PGSQL.{parameters['port']}"
        self._startup = f"user\0{parameters['user']}\0database\0{parameters['dbname']}\0\0".encode()
        self._turns, self._per = turns, per
        self._facts: list[bytes] = []
        self._open: set[_Stream] = set()
        self._changed = threading.Condition()
        self._idle = deque(self._session() for _ in range(size))
        self._clients = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = (
            f"postgresql://{parameters['user']}@127.0.0.1:{port}/{parameters['dbname']}?sslmode=disable"
            "&gssencmode=disable"
        )
        threading.Thread(target=self._accept, name="pooler", daemon=True).start()

    def __enter__(self) -> Pooler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._changed:
            for stream in list(self._open):
                stream.close()

    def _session(self) -> _Stream:
        end = socket.socket(socket.AF_UNIX)
        end.connect(str(self._server))
        stream = _Stream(end)
        stream.raw(struct.pack("!ii", len(self._startup) + 8, _PROTOCOL) + self._startup)
        facts: list[bytes] = []
        while (message := stream.message())[0] != b"Z":
            if message[0] == b"S":
                facts.append(message[1])
            assert message[0] != b"E", message[1]
        self._facts = facts
        self._open.add(stream)
        return stream

    def _accept(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._clients += 1
            arguments = (_Stream(end), self._clients)
            threading.Thread(target=self._serve, args=arguments, name="pooler client", daemon=True).start()

    def _serve(self, client: _Stream, number: int) -> None:
        self._open.add(client)
        session: _Stream | None = None
        status = b"I"
        try:
            self._greet(client, number)
            while True:
                kind, payload = client.message()
                if kind == b"X":
                    return
                if session is None:
                    session = self._take()
                session.send(kind, payload)
                if kind in _ENDS_A_ROUND:
                    status = self._answer(session, client)
                    if status == b"I" and self._per == "transaction":
                        self._give_back(session)
                        session = None
        except (OSError, ValueError):  # somebody left
            return
        finally:
            if session is not None:
                self._leave(session, clean=status == b"I")
            self._open.discard(client)
            client.close()

    def _greet(self, client: _Stream, number: int) -> None:
        while (first := struct.unpack("!i", (startup := client.untyped())[:4])[0]) in (_SSL, _GSS):
            client.raw(b"N")
        if first == _CANCEL:
            raise ConnectionError(f"nothing is cancelled here: {startup!r}")
        client.send(b"R", struct.pack("!i", 0))
        for fact in self._facts:
            client.send(b"S", fact)
        client.send(b"K", struct.pack("!ii", 1_000_000 + number, 0))
        client.send(b"Z", b"I")

    @staticmethod
    def _answer(session: _Stream, client: _Stream) -> bytes:
        """Pass on what the server says up to the end of the round; the transaction's status."""
        while True:
            kind, payload = session.message()
            client.send(kind, payload)
            if kind == b"Z":
                return payload

    def _take(self) -> _Stream:
        with self._changed:
            self._changed.wait_for(lambda: self._idle)
            return self._idle.popleft()

    def _give_back(self, session: _Stream) -> None:
        with self._changed:
            if self._turns:
                self._idle.append(session)
            else:
                self._idle.appendleft(session)
            self._changed.notify()

    def _leave(self, session: _Stream, *, clean: bool) -> None:
        """The client is gone: its session is of use to others unless a transaction is open in it."""
        if not clean:
            self._open.discard(session)
            session.close()
            session = self._session()
        self._give_back(session)
