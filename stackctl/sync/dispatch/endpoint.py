"""One signed POST to the endpoint that syncs, and what its answer means for the entry."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stackctl import __version__
from stackctl.core.durations import parse_duration
from stackctl.core.errors import ConfigError, ServiceError, StackctlError
from stackctl.sync.dispatch.signature import STACKCTL, Keys, read_keys, sign

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stackctl.config.settings import Settings
    from stackctl.sync.queue.claims import Claim

CONNECT_TIMEOUT = 5.0  # seconds
LONGEST_ANSWER = 64 * 1024  # bytes that are read of it
LONGEST_WAIT = timedelta(days=1)  # that an answer may ask for
SHORT_WAIT = timedelta(seconds=10)  # up to which one that is busy is waited for, and has not failed
NON_RETRYABLE = 489  # the delivery service's status for what is of no use to repeat
PLANNED = "Stackctl-Retry"  # header of an answer: what failed is recorded where the queue is, with its next attempt
_HINT = "`stackctl queue list` has the tenancies; `stackctl queue retry` tries them at once"
_PASSING = (408, 409, 425, 429)  # of the 4xx


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Verdict:
    """What becomes of an entry.

    No `error`: it is done. With `busy` it is asked again after `wait`, and has not failed; `planned`: its failure is
    recorded by whoever answered. Else it has failed: for good (`dead`), or it is tried again, not before `wait`.
    """

    error: StackctlError | None = None
    wait: timedelta = timedelta(0)
    busy: bool = False
    planned: bool = False
    dead: bool = False


class Endpoint:
    """Where a configuration says that tenancies are synced. Shared by threads, each post is of one."""

    def __init__(self, url: str, keys: Keys, timeout: timedelta) -> None:
        self.url = url
        self.timeout = timeout.total_seconds()
        self._keys = keys
        parts = urlsplit(url)
        self._host, self._port, self._secure = parts.hostname or "", parts.port, parts.scheme == "https"
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._context = ssl.create_default_context() if self._secure else None
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    @classmethod
    def from_settings(cls, settings: Settings) -> Endpoint:
        """ConfigError `no-endpoint`, `invalid-value`, or what `read_keys` raises."""
        setting = settings.setting("sync.endpoint")
        if not setting.value:
            raise ConfigError(
                "sync.dispatch is http, and sync.endpoint is not set",
                code="no-endpoint",
                hint="name the URL of `stackctl serve`, e.g. https://sync.example.com/sync-engine",
            )
        check_endpoint(setting.value, setting.origin)
        return cls(setting.value, read_keys(settings), settings.get("sync.endpoint_timeout"))

    def post(self, claim: Claim, call: Call) -> Verdict:
        """Ask for one tenancy; whatever goes wrong is the verdict's error."""
        body = json.dumps({"tenancyId": str(claim.tenancy)}, separators=(",", ":")).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"stackctl/{__version__}",
            "Stackctl-Entry-Id": str(claim.id),
            "Stackctl-Attempt": str(claim.attempt),
            STACKCTL.header: sign(
                self._keys, url=self.url, body=body, jti=f"{claim.id}-{claim.attempt}", now=time.time()
            ),
        }
        try:
            return judge(self._send(body, headers, call), self.url)
        except (OSError, http.client.HTTPException) as error:
            if call.aborted or (call.connected and isinstance(error, TimeoutError)):
                return Verdict(
                    ServiceError(_name(self.url) + "did not answer in time", code="endpoint-timeout", hint=_HINT)
                )
            return Verdict(self._to_unreachable(error))

    def probe(self) -> int:
        """What it answers to a signed request for nothing. Raises ServiceError `endpoint-unreachable`."""
        body = b"{}"
        headers = {STACKCTL.header: sign(self._keys, url=self.url, body=body, jti="probe", now=time.time())}
        try:
            return self._send(body, headers | {"Content-Type": "application/json"}, Call()).status
        except (OSError, http.client.HTTPException) as error:
            raise self._to_unreachable(error) from error

    def _to_unreachable(self, error: Exception) -> ServiceError:
        what = str(error) or type(error).__name__
        return ServiceError(_name(self.url) + f"can't be reached: {what}", code="endpoint-unreachable", hint=_HINT)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _send(self, body: bytes, headers: dict[str, str], call: Call) -> Answer:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None:
            try:
                return self._exchange(connection, body, headers, call)
            except (ConnectionError, http.client.BadStatusLine):
                # One that lay idle may have been closed since. To ask twice changes nothing: a sync repeats safely.
                if call.aborted:
                    raise
        return self._exchange(self._connect(), body, headers, call)

    def _connect(self) -> http.client.HTTPConnection:
        if self._context is not None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=CONNECT_TIMEOUT, context=self._context)
        return http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_TIMEOUT)

    def _exchange(
        self, connection: http.client.HTTPConnection, body: bytes, headers: dict[str, str], call: Call
    ) -> Answer:
        keep = False
        try:
            if connection.sock is None:
                connection.connect()
            sock: socket.socket = connection.sock  # pyright: ignore[reportAssignmentType]
            sock.settimeout(self.timeout)
            call.begin(sock)
            connection.request("POST", self._target, body, headers)
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


def check_endpoint(url: str, origin: str) -> None:
    """ConfigError `invalid-value` for what is no http or https URL of a host, or has a user in it."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and not parts.fragment and url.isascii()
        _ = parts.port
    except ValueError:
        good, parts = False, None
    if not good or parts is None or parts.username is not None or re.search(r"[\s\x00-\x1f]", url):
        raise ConfigError(
            f"{origin}: not the URL of an endpoint",
            code="invalid-value",
            hint="write it as https://sync.example.com/sync-engine, without a user or a fragment",
        )


def judge(answer: Answer, url: str) -> Verdict:
    """What an answer means: 2xx is done, 489 and a definite 4xx are dead, everything else is tried again."""
    status = answer.status
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if 200 <= status < 300:
        if kind == "text/html":
            return Verdict(
                ServiceError(
                    _name(url) + "answers with a web page: it is not the sync engine",
                    code="endpoint-not-ours",
                    hint=_HINT,
                )
            )
        return Verdict()
    wait = parse_retry_after(answer.headers.get("retry-after"), datetime.now(UTC))
    error = ServiceError(
        _name(url) + f"answers {status}{_quote_reason(answer, kind)}", code="endpoint-refused", hint=_HINT
    )
    if 300 <= status < 400:
        error = ServiceError(
            _name(url) + f"answers {status}; redirects are not followed", code="endpoint-redirects", hint=_HINT
        )
    if status >= 400 and answer.headers.get(PLANNED.lower()) == "planned":
        return Verdict(error, planned=True)
    if status == NON_RETRYABLE or (400 <= status < 500 and status not in _PASSING):
        return Verdict(error, dead=True)
    busy = status in (429, 503) and wait is not None and wait <= SHORT_WAIT
    return Verdict(error, wait=wait or timedelta(0), busy=busy)


def parse_retry_after(value: str | None, now: datetime) -> timedelta | None:
    """`120`, `6m5s` or an HTTP date, up to LONGEST_WAIT; None for what is none of them."""
    if value is None:
        return None
    text = value.strip()
    try:
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
            found = timedelta(seconds=float(text))
        elif re.fullmatch(r"([0-9.]+[a-z]+)+", text):
            found = parse_duration(text)
        else:
            at = parsedate_to_datetime(text)
            found = (at if at.tzinfo else at.replace(tzinfo=UTC)) - now
    except (ValueError, OverflowError):
        return None
    return min(max(found, timedelta(0)), LONGEST_WAIT)


def _quote_reason(answer: Answer, kind: str) -> str:
    """What the endpoint says of it, if that is one of our own error documents."""
    if kind != "application/json":
        return ""
    try:
        message = json.loads(answer.body)["error"]["message"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return ""
    return f": {message[:300]}" if isinstance(message, str) else ""


def _name(url: str) -> str:
    """The subject of what is said of it, without what its query may hold."""
    parts = urlsplit(url)
    return f"the endpoint {parts.scheme}://{parts.netloc}{parts.path} "
