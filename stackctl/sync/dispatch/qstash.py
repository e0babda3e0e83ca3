"""Claimed entries are published to QStash, a delivery service that posts them to the endpoint, and repeats that.

Over the service's HTTP API (v2) and not by its official client, which never tries again after 429 or 5xx, knows no time
limit that another thread can end, and loads 350 modules.

Published is not synced: what became of a message is known by whoever answers it (`claims.end_published`), and of those
that the service gave up by its own list of dead letters, where ours have the label LABEL.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode, urlsplit
from uuid import UUID

from stackctl import __version__
from stackctl.core.errors import ConfigError, ServiceError
from stackctl.sync.dispatch.connections import Call, Connections
from stackctl.sync.dispatch.endpoint import Sent, Verdict, parse_retry_after, read_endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stackctl.config.settings import Settings
    from stackctl.core.errors import StackctlError
    from stackctl.sync.dispatch.connections import Answer
    from stackctl.sync.queue.claims import Claim

LABEL = "stackctl-sync"
RETRIES = 5  # after the first attempt: five quick minutes, and not the service's default, which differs by its plan
RETRY_DELAY = "min(600000, pow(2, retried) * 5000)"  # milliseconds: 5 s, 10 s, 20 s … 10 min
TIMEOUT = 30.0  # seconds for one call
GROUP = 100  # messages of a batch
LONGEST_LIST = 10_000  # dead letters that are read

_HINT_TOKEN = "check sync.qstash.token (or QSTASH_TOKEN) and sync.qstash.url"
_HINT_LATER = "nothing is lost: the entries stay queued, and are published when it takes them"


@dataclass(frozen=True)
class DeadMessage:
    """One that the service has given up. `tenancy` None: its body is not ours."""

    id: str
    message: str
    tenancy: UUID | None
    created_at: datetime | None
    status: int | None
    answer: str


class _Trouble(Exception):
    """The service takes nothing for now; `wait`: as long as it says."""

    def __init__(self, error: StackctlError, wait: timedelta = timedelta(0)) -> None:
        super().__init__(error.message)
        self.error = error
        self.wait = wait


class DeliveryService:
    """The service that a configuration names. Shared by threads, each call is of one."""

    kind = "qstash"
    group = GROUP
    in_flight = 10 * GROUP
    keeps_flow = True

    def __init__(self, url: str, token: str, endpoint: str, endpoint_timeout: timedelta) -> None:
        self.timeout = TIMEOUT
        self._base = urlsplit(url).path.rstrip("/")
        self._url = url
        self._token = token
        self._endpoint = endpoint
        self._delivery = {
            "Content-Type": "application/json",
            "Upstash-Method": "POST",
            "Upstash-Retries": str(RETRIES),
            "Upstash-Retry-Delay": RETRY_DELAY,
            "Upstash-Timeout": f"{max(1, round(endpoint_timeout.total_seconds()))}s",
            "Upstash-Label": LABEL,
        }
        self._connections = Connections(url, TIMEOUT)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """ConfigError `no-qstash-token`, or what `read_endpoint` raises."""
        token = settings.get("sync.qstash.token")
        if not token:
            raise ConfigError(
                "sync.dispatch is qstash, and sync.qstash.token is not set",
                code="no-qstash-token",
                hint="set it in stackctl.yaml, or QSTASH_TOKEN",
            )
        if not token.isascii() or not token.isprintable() or " " in token:
            raise ConfigError(
                f"{settings.setting('sync.qstash.token').origin}: not a token of QStash",
                code="invalid-value",
                hint="it is one word of letters and digits, as the service's console shows it",
            )
        url, timeout = settings.get("sync.qstash.url"), settings.get("sync.endpoint_timeout")
        return cls(url, token, read_endpoint(settings), timeout)

    def close(self) -> None:
        self._connections.close()

    def send(self, claims: Sequence[Claim], call: Call) -> Sent:
        """Publish them as one batch; one by one what the batch leaves open, so that a bad one holds up no other.

        A second publication of an entry, after an answer that was lost, is dropped by the service: it knows the entry's
        id. The first may have been delivered before what changed last, so its verdict is `repeated`.
        """
        verdicts: dict[UUID, Verdict] = {}
        try:
            if len(claims) > 1:
                verdicts = self._publish_batch(claims, call)
            for claim in claims:
                if claim.id not in verdicts:
                    verdicts[claim.id] = self._publish(claim, call)
        except _Trouble as trouble:
            return Sent(verdicts, trouble.error, trouble.wait)
        return Sent(verdicts)

    def read_signing_keys(self) -> tuple[str, str]:
        """What it signs with now, and after their next rotation. Raises ServiceError."""
        document = self._call("GET", "/v2/keys")
        try:
            return document["current"], document["next"]
        except (KeyError, TypeError):
            raise self._not_an_answer() from None

    def list_dead(self) -> list[DeadMessage]:
        """What the service has given up of ours, up to LONGEST_LIST. Raises ServiceError."""
        found: list[DeadMessage] = []
        cursor: str | None = None
        for _ in range(LONGEST_LIST // GROUP):
            asked = {"label": LABEL, "count": str(GROUP)} | ({"cursor": cursor} if cursor else {})
            document = self._call("GET", f"/v2/dlq?{urlencode(asked)}")
            page = document.get("messages") if isinstance(document, dict) else None
            if not isinstance(page, list):
                raise self._not_an_answer()
            found += [_to_dead_message(one) for one in page if isinstance(one, dict) and one.get("dlqId")]
            before, cursor = cursor, document.get("cursor")
            if not cursor or not page or cursor == before:
                break
        return found

    def forget_dead(self, messages: Sequence[DeadMessage]) -> None:
        """Take them off the service's list; those that are gone already are no error. Raises ServiceError."""
        for start in range(0, len(messages), GROUP):
            ids = [one.id for one in messages[start : start + GROUP]]
            self._call("DELETE", "/v2/dlq", {"dlqIds": ids}, absent_is_fine=True)

    # -- publishing

    def _headers(self, claim: Claim) -> dict[str, str]:
        flow = {"Upstash-Flow-Control-Key": claim.key, "Upstash-Flow-Control-Value": f"parallelism={claim.parallelism}"}
        return self._delivery | {
            "Upstash-Deduplication-Id": str(claim.id),
            "Upstash-Forward-Stackctl-Entry-Id": str(claim.id),
        } | (flow if _is_header_text(claim.key) else {})  # fmt: skip

    def _publish_batch(self, claims: Sequence[Claim], call: Call) -> dict[UUID, Verdict]:
        messages = [
            dict(destination=self._endpoint, headers=self._headers(claim), body=_body(claim))  # noqa: C408 - its API's word
            for claim in claims
        ]
        answer = self._exchange(call, "POST", "/v2/batch", {"Content-Type": "application/json"}, _to_json(messages))
        if answer.status in (400, 413, 422):
            return {}
        self._check(answer)
        told = self._read(answer)
        if not isinstance(told, list) or len(told) != len(claims):
            return {}
        verdicts = ((claim.id, _to_verdict(one)) for claim, one in zip(claims, told, strict=True))
        return {id_: verdict for id_, verdict in verdicts if verdict is not None}

    def _publish(self, claim: Claim, call: Call) -> Verdict:
        # The destination stands in the path as it is: the service wants it unescaped.
        answer = self._exchange(
            call, "POST", f"/v2/publish/{self._endpoint}", self._headers(claim), _body(claim).encode()
        )
        if answer.status in (400, 413, 422):
            what = f"the delivery service {self._url} refuses it{_quote_reason(answer)}"
            return Verdict(
                ServiceError(what, code="publish-refused", hint="`stackctl queue retry` tries it again"), dead=True
            )
        self._check(answer)
        verdict = _to_verdict(self._read(answer))
        if verdict is None:
            raise _Trouble(self._not_an_answer())
        return verdict

    # -- calls

    def _call(self, method: str, path: str, document: object = None, *, absent_is_fine: bool = False) -> Any:
        body = None if document is None else _to_json(document)
        try:
            answer = self._exchange(Call(), method, path, {"Content-Type": "application/json"} if body else {}, body)
            if absent_is_fine and answer.status == 404:
                return None
            self._check(answer)
        except _Trouble as trouble:
            raise trouble.error from None
        return self._read(answer)

    def _exchange(
        self, call: Call, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Answer:
        sent = {"Authorization": f"Bearer {self._token}", "User-Agent": f"stackctl/{__version__}"} | dict(headers)
        try:
            return self._connections.send(call, method, self._base + path, sent, body)
        except (OSError, http.client.HTTPException) as error:
            what = "did not answer in time" if call.aborted else f"can't be reached: {error or type(error).__name__}"
            raise _Trouble(
                ServiceError(f"the delivery service {self._url} {what}", code="qstash-unreachable", hint=_HINT_LATER)
            ) from None

    def _check(self, answer: Answer) -> None:
        """Raises _Trouble for what is not about one message."""
        if 200 <= answer.status < 300:
            return
        said = f"the delivery service {self._url} answers {answer.status}{_quote_reason(answer)}"
        if answer.status in (401, 403):
            raise _Trouble(ServiceError(said, code="qstash-refused", hint=_HINT_TOKEN))
        if answer.status == 429:
            raise _Trouble(ServiceError(said, code="qstash-rate-limited", hint=_HINT_LATER), _read_reset(answer))
        hint = _HINT_LATER if answer.status >= 500 else "check sync.qstash.url and sync.endpoint"
        raise _Trouble(ServiceError(said, code="qstash-failed", hint=hint))

    def _read(self, answer: Answer) -> Any:
        try:
            return json.loads(answer.body) if answer.body else None
        except (ValueError, RecursionError):
            return None

    def _not_an_answer(self) -> ServiceError:
        return ServiceError(
            f"what {self._url} answers is not of QStash's API", code="qstash-failed", hint="check sync.qstash.url"
        )


def _to_verdict(told: object) -> Verdict | None:
    """What the service says of one message; None: that it did not take it."""
    one = told[0] if isinstance(told, list) and told else told  # a list, if the destination is a group
    if not isinstance(one, dict) or not isinstance(one.get("messageId"), str):
        return None
    return Verdict(message=one["messageId"], repeated=one.get("deduplicated") is True)


def _read_reset(answer: Answer) -> timedelta:
    """How long the service takes nothing: until the next day, or the next second. Unix times, or seconds from now."""
    now = datetime.now(UTC)
    for name in ("ratelimit-reset", "burst-ratelimit-reset", "x-ratelimit-reset"):
        value = answer.headers.get(name)
        if value is None or not value.strip().isdigit():
            continue
        seconds = float(value)
        if seconds > 1e11:  # milliseconds
            seconds /= 1000
        return timedelta(seconds=min(max(seconds - now.timestamp() if seconds > 1e9 else seconds, 0.1), 86400))
    return parse_retry_after(answer.headers.get("retry-after"), now) or timedelta(0)


def _to_dead_message(told: Mapping[str, Any]) -> DeadMessage:
    try:
        tenancy = UUID(json.loads(told["body"])["tenancyId"])
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        tenancy = None
    status = told.get("responseStatus")
    return DeadMessage(
        id=str(told["dlqId"]),
        message=str(told.get("messageId") or ""),
        tenancy=tenancy,
        created_at=_to_time(told.get("createdAt")),
        status=status if isinstance(status, int) else None,
        answer=str(told.get("responseBody") or "")[:300],
    )


def _to_time(milliseconds: object) -> datetime | None:
    try:
        return (
            datetime.fromtimestamp(float(milliseconds) / 1000, UTC) if isinstance(milliseconds, int | float) else None
        )
    except (OverflowError, ValueError, OSError):
        return None


def _quote_reason(answer: Answer) -> str:
    try:
        said = json.loads(answer.body)["error"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return ""
    return f": {said[:300]}" if isinstance(said, str) else ""


def _is_header_text(value: str) -> bool:
    return bool(value) and quote(value, safe="!#$%&'()*+,-./:;<=>?@[]^_`{|}~") == value


def _body(claim: Claim) -> str:
    return json.dumps({"tenancyId": str(claim.tenancy)}, separators=(",", ":"))


def _to_json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
