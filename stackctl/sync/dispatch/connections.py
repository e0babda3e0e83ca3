"""Connections over HTTP that are kept for the next request; each request can be broken off by another thread.

Of the standard library: what is posted has its own time limits, and no redirect may be followed.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECT_TIMEOUT = 5.0  # seconds
LONGEST_ANSWER = 8 * 1024 * 1024  # bytes that are read of it; header names are in lower case


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Connections:
    """To one server, shared by threads. `timeout`: seconds of each step of a request."""

    def __init__(self, url: str, timeout: float) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port
        self._timeout = timeout
        self._context = ssl.create_default_context() if parts.scheme == "https" else None
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def send(
        self, call: Call, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Answer:
        """Raises OSError or http.client.HTTPException; `call.aborted` then says whether it was broken off.

        What is asked twice must come to the same as once: over a connection that lay idle, it may be.
        """
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None:
            try:
                return self._exchange(connection, call, method, target, headers, body)
            except (ConnectionError, http.client.BadStatusLine):
                # It may have been closed since.
                if call.aborted:
                    raise
        return self._exchange(self._connect(), call, method, target, headers, body)

    def _connect(self) -> http.client.HTTPConnection:
        if self._context is not None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=CONNECT_TIMEOUT, context=self._context)
        return http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_TIMEOUT)

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        call: Call,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> Answer:
        keep = False
        try:
            if connection.sock is None:
                connection.connect()
            sock: socket.socket = connection.sock  # pyright: ignore[reportAssignmentType]
            sock.settimeout(self._timeout)
            call.begin(sock)
            connection.request(method, target, body, dict(headers))
            response = connection.getresponse()
            read = response.read(LONGEST_ANSWER)
            if response.length and len(read) < LONGEST_ANSWER:
                raise http.client.IncompleteRead(read, response.length)
            keep = response.isclosed() and not response.will_close
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, read)
        finally:
            call.end()
            with self._lock:
                if keep and not call.aborted:
                    self._idle.append(connection)
                else:
                    connection.close()


class Call:
    """One post under way, which another thread may break off: a socket's own time limit is for each of its steps."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.aborted = self.connected = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def begin(self, sock: socket.socket) -> None:
        with self._lock:
            if self.aborted:
                raise TimeoutError("broken off")
            self._socket, self.connected = sock, True

    def end(self) -> None:
        with self._lock:
            self._socket = None

    def abort(self) -> None:
        with self._lock:
            self.aborted = True
            if self._socket is not None:
                try:
                    self._socket.shutdown(socket.SHUT_RDWR)
                except OSError:
                    return  # it has ended by itself
