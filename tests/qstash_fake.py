"""A stand-in for QStash, the delivery service, as its documentation has it: publish, batch, deduplication, retries,
dead letters, keys and their rotation, limits; and faults.

Messages are delivered by a thread, in quick retries, signed by PyJWT and not by our own code; `hold` keeps them back.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import itertools
import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import jwt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOKEN = "a-token-of-qstash-for-tests"
RETRY_PAUSE = 0.02  # seconds between two attempts
FORWARD = "upstash-forward-"


@dataclass
class Message:
    id: str
    destination: str
    headers: dict[str, str]
    body: str
    retried: int = 0

    @property
    def retries(self) -> int:
        return int(self.headers.get("upstash-retries", "3"))


@dataclass
class Fake:
    """`fault`s are of the next calls that publish: a status, or "lost" (it is done, and the answer never comes)."""

    port: int = 0
    keys: dict[str, str] = field(default_factory=lambda: {"current": "sig_" + "c" * 28, "next": "sig_" + "n" * 28})
    accepted: list[Message] = field(default_factory=list[Message])
    waiting: list[Message] = field(default_factory=list[Message])
    dead: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    calls: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    faults: list[tuple[int | str, dict[str, str]]] = field(default_factory=list[tuple[int | str, dict[str, str]]])
    hold: bool = False
    doubles: bool = False  # each delivery comes twice, at the same time
    _deduplicated: dict[str, str] = field(default_factory=dict[str, str])
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _wake: threading.Condition = field(default_factory=threading.Condition)
    _stopped: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def rotate(self) -> None:
        self.keys = {"current": self.keys["next"], "next": f"sig_{next(self._numbers):028}"}

    def release(self) -> None:
        with self._wake:
            self.hold = False
            self._wake.notify_all()

    def wait_until_idle(self, seconds: float = 30.0) -> None:
        with self._wake:
            assert self._wake.wait_for(lambda: not self.waiting, seconds), "messages are still under way"

    # -- what the API does

    def publish(self, destination: str, headers: Mapping[str, str], body: str) -> tuple[int, dict[str, Any]]:
        given = {name.lower(): value for name, value in headers.items()}
        if urlsplit(destination).scheme not in ("http", "https") or not urlsplit(destination).hostname:
            return 400, {"error": f"invalid destination url: {destination}"}
        flow = given.get("upstash-flow-control-value")
        if flow is not None and "=" not in flow:
            return 400, {"error": "invalid flow control value"}
        dedup = given.get("upstash-deduplication-id")
        with self._wake:
            if dedup is not None and dedup in self._deduplicated:
                return 202, {"messageId": self._deduplicated[dedup], "deduplicated": True}
            message = Message(f"msg_{next(self._numbers):08}", destination, given, body)
            if dedup is not None:
                self._deduplicated[dedup] = message.id
            self.accepted.append(message)
            self.waiting.append(message)
            self._wake.notify_all()
        return 201, {"messageId": message.id}

    def deliver_all(self) -> None:
        """Until the stop, what is waiting."""
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._stopped or (self.waiting and not self.hold))
                if self._stopped:
                    return
                message = self.waiting[0]
            copies = [threading.Thread(target=self._attempt, args=(message,)) for _ in range(self.doubles)]
            for one in copies:
                one.start()
            status, text, headers = self._attempt(message)
            for one in copies:
                one.join()
            with self._wake:
                self.waiting.remove(message)
                final = status == 489 and headers.get("upstash-nonretryable-error") == "true"
                if not 200 <= status < 300:
                    if final or message.retried >= message.retries:
                        self._bury(message, status, text)
                    else:
                        message.retried += 1
                        self.waiting.append(message)
                self._wake.notify_all()
            if not 200 <= status < 300:
                time.sleep(RETRY_PAUSE)

    def _attempt(self, message: Message) -> tuple[int, str, dict[str, str]]:
        place = urlsplit(message.destination)
        assert place.hostname is not None
        now = int(time.time())
        claims = {
            "iss": "Upstash", "sub": message.destination, "exp": now + 300, "nbf": now, "iat": now,
            "jti": f"jwt_{next(self._numbers)}",
            "body": base64.urlsafe_b64encode(hashlib.sha256(message.body.encode()).digest()).decode(),
        }  # fmt: skip
        headers = {name.removeprefix(FORWARD): value for name, value in message.headers.items()
                   if name.startswith(FORWARD)}  # fmt: skip
        headers |= {
            "User-Agent": "Upstash-QStash",
            "Content-Type": message.headers.get("content-type", "text/plain"),
            "Upstash-Signature": jwt.encode(claims, self.keys["current"], algorithm="HS256"),
            "Upstash-Message-Id": message.id,
            "Upstash-Retried": str(message.retried),
        }
        kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
        connection = kind(place.hostname, place.port, timeout=30)
        try:
            connection.request(message.headers.get("upstash-method", "POST"),
                               (place.path or "/") + (f"?{place.query}" if place.query else ""),
                               message.body.encode(), headers)  # fmt: skip
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
            return response.status, text, {name.lower(): value for name, value in response.getheaders()}
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error), {}
        finally:
            connection.close()

    def _bury(self, message: Message, status: int, text: str) -> None:
        id_ = f"{next(self._numbers)}-0"
        self.dead[id_] = {
            "dlqId": id_, "messageId": message.id, "url": message.destination, "body": message.body,
            "responseStatus": status, "responseBody": text, "createdAt": int(time.time() * 1000),
            "method": "POST", "notBefore": 0, "maxRetries": message.retries,
            "label": message.headers.get("upstash-label"),
        }  # fmt: skip

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Any]:
        place = urlsplit(path)
        asked = {name: values[-1] for name, values in parse_qs(place.query).items()}
        match method, place.path:
            case "POST", "/v2/batch":
                messages = json.loads(body)
                made = [self.publish(one["destination"], one["headers"], one["body"]) for one in messages]
                # One that is bad fails the whole call; those before it were taken.
                bad = next((one for one in made if one[0] == 400), None)
                return bad or (200, [told for _, told in made])
            case "POST", published if published.startswith("/v2/publish/"):
                return self.publish(path.removeprefix("/v2/publish/"), headers, body.decode())
            case "GET", "/v2/dlq":
                found = [one for one in self.dead.values() if asked.get("label") in (None, one["label"])]
                start, count = int(asked.get("cursor", "0")), int(asked.get("count", "100"))
                page = found[start : start + count]
                return 200, {"messages": page} | ({"cursor": str(start + count)} if len(found) > start + count else {})
            case "DELETE", "/v2/dlq":
                gone = [self.dead.pop(id_, None) for id_ in json.loads(body)["dlqIds"]]
                return 200, {"deleted": sum(one is not None for one in gone)}
            case "GET", "/v2/keys":
                return 200, self.keys
            case "POST", "/v2/keys/rotate":
                self.rotate()
                return 200, self.keys
            case _:
                return 404, {"error": f"no such path {method} {place.path}"}

    def stop(self) -> None:
        with self._wake:
            self._stopped = True
            self._wake.notify_all()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: Fake

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = dict(self.headers.items())
        self.fake.calls.append((self.command, self.path))
        extra: dict[str, str] = {}
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            status, told = 401, {"error": "invalid token"}
        elif self.fake.faults and self.command == "POST":
            fault, extra = self.fake.faults.pop(0)
            if isinstance(fault, str):
                self.fake.answer(self.command, self.path, headers, body)
                self.close_connection = True
                return
            status, told = fault, {"error": "as the test wants it"}
        else:
            status, told = self.fake.answer(self.command, self.path, headers, body)
        data = json.dumps(told).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(data))} | extra).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _serve

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def running() -> Iterator[Fake]:
    fake = Fake()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": fake}))
    server.daemon_threads = True
    fake.port = server.server_address[1]
    threads = [threading.Thread(target=one, daemon=True) for one in (server.serve_forever, fake.deliver_all)]
    for thread in threads:
        thread.start()
    try:
        yield fake
    finally:
        fake.stop()
        server.shutdown()
        server.server_close()
        for thread in threads:
            thread.join()
