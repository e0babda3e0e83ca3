"""The fake's HTTP: routes, keys, accounts, idempotency, lists, expansion, faults and the journal."""

from __future__ import annotations

import json
import operator
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from tests.stripe_fake.errors import Refused, missing
from tests.stripe_fake.faults import Fault, Faults, Kind
from tests.stripe_fake.state import Object, State
from tests.stripe_fake.validate import checked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "sk_test_fake"
PLATFORM = "acct_platform"
_FILTERS = ("payment_intent", "charge", "subscription", "customer", "invoice", "application", "type", "status")
_REFERENCES = {"latest_charge": "charge", "charge": "charge", "payment_intent": "payment_intent", "invoice": "invoice",
               "subscription": "subscription"}  # fmt: skip
# Kind of object: its path, and the SDK's names of the parameters to list and to retrieve it.
_KINDS = {
    "accounts": ("account", "Account"), "payment_intents": ("payment_intent", "PaymentIntent"),
    "charges": ("charge", "Charge"), "refunds": ("refund", "Refund"), "invoices": ("invoice", "Invoice"),
    "subscriptions": ("subscription", "Subscription"), "events": ("event", "Event"), "disputes": ("dispute", "Dispute"),
    "invoice_payments": ("invoice_payment", "InvoicePayment"),
    "payment_method_configurations": ("payment_method_configuration", "PaymentMethodConfiguration"),
}  # fmt: skip


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
class _Kept:
    """The answer to an idempotency key; None while the request is under way."""

    request: tuple[str, str, str]
    answer: tuple[int, Object] | None = None


@dataclass
class Fake:
    state: State = field(default_factory=State)
    faults: Faults = field(default_factory=Faults)
    journal: list[Call] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=lambda: {KEY: "good", "sk_live_fake": "good"})
    _kept: dict[tuple[str, str], _Kept] = field(default_factory=dict)

    def answer(
        self, method: str, path: str, params: dict[str, Any], headers: dict[str, str], after: Fault | None
    ) -> tuple[int, Object, dict[str, str]]:
        """Do what is asked, once for each idempotency key."""
        account, livemode = self._allowed(method, headers)
        key = headers.get("idempotency-key") if method == "POST" else None
        if key is None:
            status, found = self._done(method, path, params, account, livemode)
            return status, found, {}
        request = (method, path, json.dumps(params, sort_keys=True))
        with self.state.lock:
            kept = self._kept.get((account, key))
            if kept is None:
                kept = self._kept[account, key] = _Kept(request)
            elif kept.request != request:
                raise Refused(
                    400, "Keys for idempotent requests can only be used with the same parameters they were first used "
                    "with.", type_="idempotency_error",
                )  # fmt: skip
            elif kept.answer is None:
                raise Refused(409, "There is another in-progress request using this Idempotent Key",
                              code="idempotency_key_in_use")  # fmt: skip
            else:
                return kept.answer[0], kept.answer[1], {"Idempotent-Replayed": "true"}
        try:
            kept.answer = self._done(method, path, params, account, livemode)
        except Refused as refused:
            # What was refused before it began may be sent again under the same key.
            with self.state.lock:
                self._kept.pop((account, key))
            raise refused
        if after is not None and after.kind == "500-after":
            kept.answer = 500, {"error": {"type": "api_error", "message": "An unknown error occurred"}}
        return kept.answer[0], kept.answer[1], {}

    def _allowed(self, method: str, headers: dict[str, str]) -> tuple[str, bool]:
        given = headers.get("authorization", "").removeprefix("Bearer ")
        status = self.keys.get(given)
        if status is None or status == "revoked":
            what = "Expired API Key provided" if status else "Invalid API Key provided"
            raise Refused(401, f"{what}: {given[:8]}****", code="api_key_expired" if status else None)
        if status == "restricted" and method != "GET":
            raise Refused(403, "The provided key does not have the required permissions for this endpoint.")
        account = headers.get("stripe-account", "")
        if account and not self.state.has_account(account):
            raise Refused(403, f"The provided key does not have access to account '{account}'", code="account_invalid")
        return account, given.startswith("sk_live")

    def _done(self, method: str, path: str, raw: dict[str, Any], account: str, livemode: bool) -> tuple[int, Object]:
        with self.state.lock:
            found = self._routed(method, path, raw, account, livemode)
            expanded = self._expanded(found, raw.get("expand"), account, livemode)
            return 200, json.loads(json.dumps(expanded))

    def _routed(self, method: str, path: str, raw: dict[str, Any], account: str, livemode: bool) -> Object:
        state = self.state
        match method, path.split("/")[2:]:
            case "GET", ["account"]:
                return (
                    state.get("account", "", account, livemode) if account else state.all("account", "", livemode)[-1]
                )
            case "GET", ["accounts", id_]:
                return state.get("account", "", id_, livemode)
            case "GET", ["balance"]:
                return {"object": "balance", "livemode": livemode, "available": [], "pending": []}
            case "GET", [kind] if kind in _KINDS:
                name, params = _KINDS[kind]
                return self._listed(path, state.all(name, account, livemode), checked(f"{params}ListParams", raw))
            case "GET", [kind, id_] if kind in _KINDS and id_:
                name, params = _KINDS[kind]
                checked(f"{params}RetrieveParams", raw)
                return state.get(name, account, id_, livemode)
            case "POST", ["refunds"]:
                return state.refund(account, checked("RefundCreateParams", raw), livemode)
            case "POST", ["subscriptions", id_]:
                return state.update_subscription(account, id_, checked("SubscriptionUpdateParams", raw), livemode)
            case "POST", ["payment_method_configurations", id_]:
                params = checked("PaymentMethodConfigurationUpdateParams", raw)
                return state.update_methods(account, id_, params, livemode)
            case _:
                raise Refused(404, f"Unrecognized request URL ({method}: {path}).")

    def _listed(self, path: str, objects: list[Object], params: dict[str, Any]) -> Object:
        for name in _FILTERS:
            if params.get(name) not in (None, "all"):
                objects = [one for one in objects if one.get(name) == params[name]]
        for bound, value in (created if isinstance(created := params.get("created"), dict) else {}).items():
            compared = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}[bound]
            objects = [one for one in objects if compared(one["created"], value)]
        ids = [one["id"] for one in objects]
        start, end = params.get("starting_after"), params.get("ending_before")
        for cursor in (start, end):
            if cursor is not None and cursor not in ids:
                raise missing("object", cursor)
        limit = params.get("limit", 10)
        if not 1 <= limit <= 100:
            raise Refused(400, "Invalid integer: limit is from 1 to 100", param="limit")
        if end is not None:
            before = objects[: ids.index(end)]
            return {"object": "list", "url": path, "data": before[-limit:], "has_more": len(before) > limit}
        behind = objects[ids.index(start) + 1 :] if start is not None else objects
        return {"object": "list", "url": path, "data": behind[:limit], "has_more": len(behind) > limit}

    def _expanded(self, found: Object, expand: Any, account: str, livemode: bool) -> Object:
        result = json.loads(json.dumps(found))
        for path in expand.values() if isinstance(expand, dict) else expand or ():
            self._expand(result, path.split("."), account, livemode)
        return result

    def _expand(self, at: Any, names: list[str], account: str, livemode: bool) -> None:
        if isinstance(at, list):
            for one in at:
                self._expand(one, names, account, livemode)
            return
        name, *rest = names
        if not isinstance(at, dict) or name not in at:
            raise Refused(400, f"This property cannot be expanded ({name}).", param="expand")
        if isinstance(at[name], str) and name in _REFERENCES:
            at[name] = json.loads(json.dumps(self.state.get(_REFERENCES[name], account, at[name], livemode)))
        if rest:
            self._expand(at[name], rest, account, livemode)


def nested(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """`items[0][quantity]=2` as `{"items": {"0": {"quantity": "2"}}}`; `expand[]=x` counts on."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        first, *more = re.findall(r"[^\[\]]+|(?<=\[)(?=\])", name)
        at = found
        keys = [first, *more]
        for place, key in enumerate(keys):
            key = key or str(len(at))
            if place == len(keys) - 1:
                at[key] = value
            else:
                at = at.setdefault(key, {})
    return found


def _handler(fake: Fake) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

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
            if url.path.startswith("/_fake/"):
                self._send(200, _administered(fake, url.path, body), {})
                return
            params = nested(parse_qsl(body if method == "POST" else url.query, keep_blank_values=True))
            headers = {name.lower(): value for name, value in self.headers.items()}
            fault = fake.faults.due(method, url.path)
            kind = fault.kind if fault else None
            if fault and kind == "delay":
                time.sleep(fault.seconds)
            extra: dict[str, str] = {}
            match kind:
                case "drop-before":
                    status, answer = 0, {}
                case "429":
                    status, answer = 429, Refused(429, "Too many requests", code="rate_limit").body
                case "409":
                    status, answer = 409, Refused(409, "This object is locked", code="lock_timeout").body
                case "500-before":
                    status, answer = 500, Refused(500, "An unknown error occurred", type_="api_error").body
                case "html-502":
                    status, answer = 502, {}
                case _:
                    try:
                        status, answer, extra = fake.answer(method, url.path, params, headers, fault)
                    except Refused as refused:
                        status, answer = refused.status, refused.body
                    if kind == "drop-after":
                        status = 0
                    elif kind == "empty-200":
                        status, answer = 200, {}
            account, key = headers.get("stripe-account", ""), headers.get("idempotency-key")
            fake.journal.append(Call(method, url.path, account, key, params, status))
            if status == 0:
                self.close_connection = True
                return
            self._send(status, "<html><h1>502 Bad Gateway</h1></html>" if kind == "html-502" else answer, extra)

        def _send(self, status: int, body: Any, extra: dict[str, str]) -> None:
            html = isinstance(body, str)
            data = (body if html else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if html else "application/json")
            self.send_header("Content-Length", str(len(data)))
            if version := self.headers.get("Stripe-Version"):
                self.send_header("Stripe-Version", version)
            self.send_header("Request-Id", f"req_{len(fake.journal):08d}")
            for name, value in extra.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    return Handler


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


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that did not wait for its answer is what the tests are about."""


def served(port: int = 0) -> tuple[_Server, Running, Callable[[], None]]:
    """A server on loopback that is not yet running, its fake, and what runs it."""
    fake = Fake()
    fake.state.add("account", id=PLATFORM)
    server = _Server(("127.0.0.1", port), _handler(fake))
    return server, Running(f"http://127.0.0.1:{server.server_port}", fake), lambda: server.serve_forever(0.02)


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
