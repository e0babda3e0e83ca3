"""The signature of a request to an endpoint that syncs: a JWT (HS256) over the URL, the time and the body.

One form for two senders: our own poller (`Stackctl-Signature`) and the delivery service (`Upstash-Signature`). Written
with hmac and base64 alone: the checks have an order, are made on the bytes as received, and say which one failed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackctl.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stackctl.config.settings import Settings

LIFETIME = 300  # seconds that a signature is good for
LEEWAY = 5  # seconds that two clocks may differ
SHORTEST_KEY = 16  # characters; 32 and more are advised
LONGEST_TOKEN = 8192  # characters
_HEADER = {"alg": "HS256", "typ": "JWT"}
_PART = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Scheme:
    """A sender's name for itself, and the header in which its signature arrives."""

    issuer: str
    header: str


STACKCTL = Scheme("stackctl", "Stackctl-Signature")
UPSTASH = Scheme("Upstash", "Upstash-Signature")
SCHEMES = (STACKCTL, UPSTASH)


@dataclass(frozen=True)
class Keys:
    """What is signed with (the current key) and what a receiver accepts: while keys are changed, the next one too."""

    current: str
    next: str | None = None

    def __repr__(self) -> str:
        return "Keys(***)"

    @property
    def accepted(self) -> tuple[str, ...]:
        return (self.current,) if self.next is None else (self.current, self.next)


class SignatureRefused(Exception):
    """The message says which check failed: for the log, not for the sender."""


def read_keys(settings: Settings) -> Keys:
    """The configured keys; ConfigError `no-signing-key` without a current one, `weak-signing-key` for a short one."""
    found: dict[str, str | None] = {}
    for name in ("current", "next"):
        setting = settings.setting(f"sync.signing_keys.{name}")
        found[name] = setting.value or None
        if setting.value and len(setting.value) < SHORTEST_KEY:
            raise ConfigError(
                f"{setting.origin}: a signing key of {len(setting.value)} characters can be guessed",
                code="weak-signing-key",
                hint="use 32 random bytes or more: `openssl rand -hex 32`",
            )
    current = found["current"]
    if current is None:
        raise ConfigError(
            "sync.signing_keys.current is not set: nothing could be signed or verified",
            code="no-signing-key",
            hint="set it in stackctl.yaml, or QSTASH_CURRENT_SIGNING_KEY; `openssl rand -hex 32` makes one",
        )
    return Keys(current, found["next"])


def sign(keys: Keys, *, url: str, body: bytes, jti: str, now: float, scheme: Scheme = STACKCTL) -> str:
    """The token that says that this body was sent to this URL at this time (seconds since 1970)."""
    issued = int(now)
    claims = {
        "iss": scheme.issuer,
        "sub": url,
        "exp": issued + LIFETIME,
        "nbf": issued,
        "iat": issued,
        "jti": jti,
        "body": base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode(),
    }
    signed = f"{_encode_json(_HEADER)}.{_encode_json(claims)}"
    return f"{signed}.{_encode(_digest(keys.current, signed))}"


def find_scheme(headers: Sequence[tuple[bytes, bytes]]) -> tuple[Scheme, str]:
    """Whose signature came, and the token; `headers` as they came. Raises SignatureRefused unless there is one."""
    found = [
        (scheme, value)
        for name, value in headers
        for scheme in SCHEMES
        if name.lower() == scheme.header.lower().encode()
    ]
    if len(found) != 1:
        raise SignatureRefused("no signature" if not found else f"{len(found)} signatures")
    scheme, token = found[0]
    return scheme, token.decode("latin-1")


def verify(token: str, keys: Keys, *, scheme: Scheme, url: str, body: bytes, now: float) -> Mapping[str, Any]:
    """The claims of a token that is good for this body, sent to this URL, now. Raises SignatureRefused.

    `url` is what the sender calls us, as configured: behind a proxy the request itself knows another one.
    """
    parts = token.split(".") if len(token) <= LONGEST_TOKEN else []
    if len(parts) != 3 or not all(_PART.fullmatch(part) for part in parts):
        raise SignatureRefused("malformed token")
    header, payload, signature = parts
    fields = _decode_json(header)
    if fields.get("alg") != _HEADER["alg"] or "crit" in fields:
        raise SignatureRefused("algorithm other than HS256")
    given = _decode(signature)
    # Both keys are tried whatever the first came to, so that the time taken tells nothing.
    good = [hmac.compare_digest(_digest(key, f"{header}.{payload}"), given) for key in keys.accepted]
    if not any(good):
        raise SignatureRefused("signed with neither key")
    claims = _decode_json(payload)
    if claims.get("iss") != scheme.issuer:
        raise SignatureRefused("issuer other than of this header")
    if not _is_time(claims.get("nbf")) or not claims["nbf"] <= now + LEEWAY:
        raise SignatureRefused("not valid yet")
    if not _is_time(claims.get("exp")) or not now - LEEWAY < claims["exp"]:
        raise SignatureRefused("expired")
    if claims.get("sub") != url:
        raise SignatureRefused("made for another URL")
    said = claims.get("body")
    if not isinstance(said, str) or not said.isascii():
        raise SignatureRefused("no hash of a body")
    if not hmac.compare_digest(said.rstrip("="), _encode(hashlib.sha256(body).digest())):
        raise SignatureRefused("made for another body")
    return claims


def _digest(key: str, signed: str) -> bytes:
    return hmac.new(key.encode(), signed.encode("ascii"), hashlib.sha256).digest()


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _encode_json(value: object) -> str:
    return _encode(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


def _decode(part: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        raise SignatureRefused("malformed token") from None


def _decode_json(part: str) -> dict[str, Any]:
    try:
        value = json.loads(_decode(part))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise SignatureRefused("malformed token")
    return value
