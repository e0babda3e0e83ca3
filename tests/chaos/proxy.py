"""A TCP proxy on loopback in front of a PostgreSQL, which can cut, refuse, delay and swallow connections."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from types import TracebackType

_CHUNK = 65536
# Closing with this sends a reset instead of an orderly end.
_RESET = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class _Link:
    client: socket.socket
    server: socket.socket

    def cut(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Proxy:
    """Forwards to the server of a libpq URL until `close()`. Its methods may be called from any thread."""

    def __init__(self, url: str) -> None:
        self._parameters = conninfo_to_dict(url)
        self._links: set[_Link] = set()
        self._lock = threading.Lock()
        self._closed = self._refusing = False
        self.refused = 0  # connections that were turned away
        self._delay = 0.0
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def url(self, url: str) -> str:
        """The same database by way of the proxy."""
        parameters: dict[str, Any] = conninfo_to_dict(url)
        parameters |= {"host": "127.0.0.1", "port": self.port, "sslmode": "disable", "gssencmode": "disable"}
        return make_conninfo("", **parameters)

    def cut(self) -> int:
        """Break all connections; returns how many there were."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.cut()
        return len(links)

    def refuse(self, refused: bool = True) -> None:
        """Reset new connections from now on, or take them again."""
        self._refusing = refused

    def swallow(self, swallowed: bool = True) -> None:
        """Pass nothing on, in either direction, without a word; False: what was held back goes out."""
        if swallowed:
            self._flowing.clear()
        else:
            self._flowing.set()

    def delay(self, seconds: float) -> None:
        """Hold every piece back for so long."""
        self._delay = seconds

    def heal(self) -> None:
        """An ordinary connection again."""
        self.refuse(False)
        self.delay(0)
        self.swallow(False)

    def close(self) -> None:
        self._closed = True
        self.heal()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), name="proxy link", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._refusing or self._closed:
                raise ConnectionRefusedError
            server = self._connect()
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            self.refused += 1
            return
        link = _Link(client, server)
        with self._lock:
            self._links.add(link)
        if self._closed:
            link.cut()
        back = threading.Thread(target=self._pump, args=(link, server, client), name="proxy link", daemon=True)
        back.start()
        self._pump(link, client, server)
        back.join()
        with self._lock:
            self._links.discard(link)
        client.close()
        server.close()

    def _connect(self) -> socket.socket:
        host = str(self._parameters.get("host") or "localhost")
        port = int(self._parameters.get("port") or 5432)
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(str(Path(host) / f".s.PGSQL.{port}"))
        except OSError:
            server.close()
            raise
        return server

    def _pump(self, link: _Link, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(_CHUNK):
                if self._delay:
                    threading.Event().wait(self._delay)
                self._flowing.wait()
                sink.sendall(piece)
        # One end is gone: PostgreSQL has no half-closed connections.
        link.cut()
