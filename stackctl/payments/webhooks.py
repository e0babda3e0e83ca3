"""Stripe's events as they come: the proof that Stripe sent them, and where they are kept."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackctl.postgres.connect import Connection

TOLERANCE = 300  # seconds between Stripe's clock and ours
LONGEST_FIELD = 255  # characters of an id, and of whatever else names something; Stripe's own limit

_SQL = load_statements(__file__)


class SignatureMismatch(Exception):
    """The message says which check failed: for the log, not for the sender."""


@dataclass(frozen=True)
class StripeEvent:
    """An event, and the text that came."""

    id: str
    type: str
    account: str | None
    livemode: bool
    api_version: str | None
    created_at: datetime
    payload: str


def verify_signature(body: bytes, header: str, secrets: Sequence[str], *, now: float) -> int:
    """Which of the secrets it was signed with, by its place; raises SignatureMismatch.

    Any `v1` may match: while a secret is being changed, Stripe signs with both.
    """
    pairs = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    given = [value.encode("latin-1", "replace") for name, _, value in pairs if name == "v1"]
    if len(times) != 1 or not re.fullmatch(r"[0-9]{1,12}", times[0]) or not given:
        raise SignatureMismatch("malformed header")
    signed = times[0].encode() + b"." + body
    digests = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode() for secret in secrets]
    good = [any(hmac.compare_digest(digest, one) for one in given) for digest in digests]
    if not any(good):
        raise SignatureMismatch("signed with none of the secrets")
    if abs(now - int(times[0])) > TOLERANCE:
        raise SignatureMismatch(f"signed more than {TOLERANCE} s ago, or in the future")
    return good.index(True)


def parse_event(body: bytes) -> StripeEvent:
    """ValueError, with what is wrong, for what is no event."""
    try:
        text = body.decode()
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("the body is not JSON") from None
    if not isinstance(found, dict) or found.get("object") != "event":
        raise ValueError("the body is not an event of Stripe's")
    account, version = found.get("account"), found.get("api_version")
    fields = (
        found.get("id"),
        found.get("type"),
        "" if account is None else account,
        "" if version is None else version,
    )
    created, livemode = found.get("created"), found.get("livemode")
    if not all(isinstance(one, str) and _is_storable(one) for one in fields) or not (fields[0] and fields[1]):
        raise ValueError(
            f"the event has no id or type, or one of more than {LONGEST_FIELD} characters or of what is no text"
        )
    if type(created) is not int or not isinstance(livemode, bool) or not 0 <= created < 2**33:
        raise ValueError("the event has no time or mode")
    return StripeEvent(
        str(fields[0]), str(fields[1]), account, livemode, version, datetime.fromtimestamp(created, UTC), text
    )


def _is_storable(text: str) -> bool:
    """Whether PostgreSQL takes it, and an index of its; JSON may spell NUL and half a character."""
    return len(text) <= LONGEST_FIELD and not any(one == "\0" or "\ud800" <= one <= "\udfff" for one in text)


def store_event(conn: Connection, event: StripeEvent) -> bool:
    """Keep it; False if it was there already, as Stripe sends one again that it had no answer for."""
    return conn.execute(_SQL["store_event"], vars(event)).rowcount == 1
