"""The stand-in's HTTP: on loopback, with a thread a request."""

from __future__ import annotations

import itertools
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from stackctl.payments.stand_in.answers import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    # Status, body (JSON, or a text that is HTML) and further headers; status 0 cuts the connection.
    Answer = Callable[[Request], tuple[int, Any, dict[str, str]]]


class Server(ThreadingHTTPServer):
    """Serves `answer` on 127.0.0.1 once `serve_forever` is called; port 0 is one that is free."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer: Answer, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.answer = answer
        self.number = itertools.count(1)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not wait for its answer is no error of ours."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def _stripe(self) -> Server:
        assert isinstance(self.server, Server)
        return self.server

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _serve(self, method: str) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, answer, extra = self._stripe.answer(Request(method, url.path, url.query, body, headers))
        if status == 0:
            self.close_connection = True
            return
        self._send(status, answer, extra)

    def _send(self, status: int, body: Any, extra: dict[str, str]) -> None:
        html = isinstance(body, str)
        data = (body if html else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if html else "application/json")
        self.send_header("Content-Length", str(len(data)))
        if version := self.headers.get("Stripe-Version"):
            self.send_header("Stripe-Version", version)
        self.send_header("Request-Id", f"req_{next(self._stripe.number):08d}")
        for name, value in extra.items():
            self.send_header(name, value)
        self.end_headers()
        self.write_body(data, extra)

    def write_body(self, data: bytes, extra: dict[str, str]) -> None:
        self.wfile.write(data)
