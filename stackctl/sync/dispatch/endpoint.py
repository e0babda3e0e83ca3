"""One signed POST to the endpoint that syncs, and what its answer means for the entry."""

from __future__ import annotations

import http.client
import json
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stackctl import __version__
from stackctl.core.durations import parse_duration
from stackctl.core.errors import ConfigError, ServiceError, StackctlError
from stackctl.sync.dispatch.connections import Call, Connections
from stackctl.sync.dispatch.signature import STACKCTL, Keys, read_keys, sign

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from stackctl.config.settings import Settings
    from stackctl.sync.dispatch.connections import Answer
    from stackctl.sync.queue.claims import Claim

LONGEST_WAIT = timedelta(days=1)  # that an answer may ask for
SHORT_WAIT = timedelta(seconds=10)  # up to which one that is busy is waited for, and has not failed
NON_RETRYABLE = 489  # the delivery service's status for what is of no use to repeat
PLANNED = "Stackctl-Retry"  # header of an answer: what failed is recorded where the queue is, with its next attempt
_HINT = "`stackctl queue list` has the tenancies; `stackctl queue retry` tries them at once"
_PASSING = (408, 409, 425, 429)  # of the 4xx


@dataclass(frozen=True)
class Verdict:
    """What becomes of an entry.

    No `error`: it is done. With `busy` it is asked again after `wait`, and has not failed; `planned`: its failure is
    recorded by whoever answered. Else it has failed: for good (`dead`), or it is tried again, not before `wait`.

    `message`: it is done by being published, as this message. `repeated`: it had been published before, and what has
    changed since may not be in it.
    """

    error: StackctlError | None = None
    wait: timedelta = timedelta(0)
    busy: bool = False
    planned: bool = False
    dead: bool = False
    message: str | None = None
    repeated: bool = False


@dataclass(frozen=True)
class Sent:
    """What became of claims that were handed on together. `trouble`: those without a verdict have not failed; it is the
    receiver, and takes none for `wait`, if it said so."""

    verdicts: Mapping[UUID, Verdict]
    trouble: StackctlError | None = None
    wait: timedelta = timedelta(0)


class Endpoint:
    """Where a configuration says that tenancies are synced. Shared by threads, each post is of one."""

    kind = "endpoint"
    group = 1  # claims that are handed on together
    in_flight = 20  # at a time of one process, whatever entries allow
    keeps_flow = False  # whether it keeps to the entries' flow-control keys itself

    def __init__(self, url: str, keys: Keys, timeout: timedelta) -> None:
        self.url = url
        self.timeout = timeout.total_seconds()
        self._keys = keys
        parts = urlsplit(url)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._connections = Connections(url, self.timeout)

    @classmethod
    def from_settings(cls, settings: Settings) -> Endpoint:
        """ConfigError of `read_endpoint` or `read_keys`."""
        return cls(read_endpoint(settings), read_keys(settings), settings.get("sync.endpoint_timeout"))

    def send(self, claims: Sequence[Claim], call: Call) -> Sent:
        return Sent({claim.id: self.post(claim, call) for claim in claims})

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
            return judge(self._connections.send(call, "POST", self._target, headers, body), self.url)
        except (OSError, http.client.HTTPException) as error:
            if call.aborted or (call.connected and isinstance(error, TimeoutError)):
                return Verdict(
                    ServiceError(_name(self.url) + "did not answer in time", code="endpoint-timeout", hint=_HINT)
                )
            return Verdict(self._to_unreachable(error))

    def probe(self) -> int:
        """What it answers to a signed request for nothing. Raises ServiceError `endpoint-unreachable`."""
        body = b"{}"
        signature = sign(self._keys, url=self.url, body=body, jti="probe", now=time.time())
        headers = {STACKCTL.header: signature, "Content-Type": "application/json"}
        try:
            return self._connections.send(Call(), "POST", self._target, headers, body).status
        except (OSError, http.client.HTTPException) as error:
            raise self._to_unreachable(error) from error

    def _to_unreachable(self, error: Exception) -> ServiceError:
        what = str(error) or type(error).__name__
        return ServiceError(_name(self.url) + f"can't be reached: {what}", code="endpoint-unreachable", hint=_HINT)

    def close(self) -> None:
        self._connections.close()


def read_endpoint(settings: Settings) -> str:
    """The URL that is posted to; ConfigError `no-endpoint` or `invalid-value`."""
    setting = settings.setting("sync.endpoint")
    if not setting.value:
        raise ConfigError(
            f"sync.dispatch is {settings.get('sync.dispatch')}, and sync.endpoint is not set",
            code="no-endpoint",
            hint="name the URL of `stackctl serve`, e.g. https://sync.example.com/sync-engine",
        )
    check_endpoint(setting.value, setting.origin)
    return setting.value


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
