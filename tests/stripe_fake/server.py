"""The stand-in as the tests use it: with faults, and a journal of what it was asked."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from stackctl.payments.stand_in.answers import PLATFORM, Request, StandIn
from stackctl.payments.stand_in.errors import Refused
from stackctl.payments.stand_in.http import Handler, Server
from tests.stripe_fake.faults import Fault, Faults, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stackctl.payments.stand_in.state import State

__all__ = ["KEY", "PLATFORM", "Call", "Fake", "Running", "running", "served"]
KEY = "sk_test_fake"
# Where a redirect leads, and what is said there to whoever follows.
ELSEWHERE = "/_elsewhere"
LIE = {"object": "refund", "id": "re_elsewhere", "amount": 1, "currency": "usd", "created": 1, "status": "succeeded"}
SLOWLY = "X-Seconds-Between-Bytes"


class SlowHandler(Handler):
    """Writes its answer byte by byte where it is told to."""

    def write_body(self, data: bytes, extra: dict[str, str]) -> None:
        if SLOWLY not in extra:
            super().write_body(data, extra)
            return
        for byte in data:
            self.wfile.write(bytes([byte]))
            time.sleep(float(extra[SLOWLY]))


@dataclass(frozen=True)
class Call:
    """One request as it came, and what was answered; status 0 when the connection was dropped."""

    method: str
    path: str
    account: str
    key: str | None
    params: dict[str, Any]
    status: int


@dataclass
class Fake(StandIn):
    keys: dict[str, str] = field(default_factory=lambda: {KEY: "good", "sk_live_fake": "good"})
    faults: Faults = field(default_factory=Faults)
    journal: list[Call] = field(default_factory=list)
    own_version: str | None = None  # of the API, in which an account is answered that asks for none

    def serve(self, request: Request) -> tuple[int, Any, dict[str, str]]:
        """Answer, or fail as it was told to."""
        if request.path == ELSEWHERE:
            return 200, LIE, {}
        if request.path.startswith("/_fake/"):
            return 200, _administered(self, request.path, request.body), {}
        fault = self.faults.due(request.method, request.path)
        if fault and fault.kind == "delay":
            time.sleep(fault.seconds)
        status, answer, extra = self._struck(request, fault.kind if fault else None)
        account, key = request.headers.get("stripe-account", ""), request.headers.get("idempotency-key")
        self.journal.append(Call(request.method, request.path, account, key, request.params, status))
        if self.own_version and "stripe-version" not in request.headers:
            extra = extra | {"Stripe-Version": self.own_version}
        if fault and fault.kind == "slow-bytes":
            extra = extra | {SLOWLY: str(fault.seconds)}
        return status, answer, extra

    def _struck(self, request: Request, kind: Kind | None) -> tuple[int, Any, dict[str, str]]:
        match kind:
            case "drop-before":
                return 0, {}, {}
            case "302":
                return 302, {}, {"Location": ELSEWHERE}
            case "401":
                return 401, Refused(401, "Invalid API Key provided: sk_test_****").body, {}
            case "403":
                return 403, Refused(403, "The provided key does not have the required permissions.").body, {}
            case "429":
                return 429, Refused(429, "Too many requests", code="rate_limit").body, {}
            case "409":
                return 409, Refused(409, "This object is locked", code="lock_timeout").body, {}
            case "500-before":
                return 500, Refused(500, "An unknown error occurred", type_="api_error").body, {}
            case "html-502":
                return 502, "<html><h1>502 Bad Gateway</h1></html>", {}
            case _:
                pass
        failed = {"error": {"type": "api_error", "message": "An unknown error occurred"}}
        try:
            status, answer, extra = self.answer(request, (500, failed) if kind == "500-after" else None)
        except Refused as refused:
            status, answer, extra = refused.status, refused.body, {}
        if kind == "drop-after":
            return 0, {}, {}
        return (200, {}, extra) if kind == "empty-200" else (status, answer, extra)


def _administered(fake: Fake, path: str, body: str) -> Any:
    """For tests in another process."""
    given = json.loads(body) if body else {}
    match path.removeprefix("/_fake/"):
        case "journal":
            return [asdict(call) for call in fake.journal]
        case "faults":
            fake.faults.add(Fault(**given))
            return {}
        case "objects":
            return fake.state.add(given.pop("kind"), given.pop("account", ""), **given)
        case "payments":
            return fake.state.payment(given.pop("account", ""), **given)
        case other:
            return {"unknown": other}


@dataclass(frozen=True)
class Running:
    """A fake that is served at `url`."""

    url: str
    fake: Fake

    @property
    def state(self) -> State:
        return self.fake.state

    def fault(self, kind: Kind, nth: int = 1, **where: Any) -> None:
        self.fake.faults.add(Fault(kind, nth, **where))

    def calls(self, method: str = "", path: str = "") -> list[Call]:
        return [one for one in self.fake.journal if one.method.startswith(method) and one.path.startswith(path)]


def served(port: int = 0) -> tuple[Server, Running, Callable[[], None]]:
    """A server on loopback that is not yet running, its fake, and what runs it."""
    fake = Fake()
    fake.state.add("account", id=PLATFORM)
    server = Server(fake.serve, port)
    server.RequestHandlerClass = SlowHandler
    return server, Running(server.url, fake), lambda: server.serve_forever(0.02)


@contextmanager
def running() -> Iterator[Running]:
    server, found, serve = served()
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
