"""What the routes of one server work with."""

from __future__ import annotations

import hmac
import ipaddress
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from stackctl.core.errors import ConfigError
from stackctl.core.redaction import scrub
from stackctl.server.answers import Refused
from stackctl.sync.dispatch.signature import Keys, read_keys

if TYPE_CHECKING:
    from datetime import timedelta

    from starlette.requests import Request

    from stackctl.config.settings import Settings
    from stackctl.server.history import History
    from stackctl.server.metrics import Metrics
    from stackctl.server.overview import Overview
    from stackctl.sync.engine.requests import SyncRequests
    from stackctl.sync.pipeline import Pipeline
    from stackctl.sync.stop import Stop

SYNC_PATH = "/sync-engine"


class Say(Protocol):
    """One event for the log: its stage, its line for people, and the same as a document."""

    def __call__(self, stage: str, line: str, document: dict[str, Any] | None = None) -> None: ...


@dataclass(frozen=True)
class Address:
    """Where a server is bound, and what its clients call it."""

    host: str
    port: int
    public_url: str | None

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def sync_url(self) -> str:
        """What senders must have signed: `sync.endpoint` is to be the same, letter by letter."""
        return (self.public_url or self.url).rstrip("/") + SYNC_PATH


@dataclass
class Site:
    """`trouble`: the operated database has been lost, and is not back yet."""

    settings: Settings
    pipeline: Pipeline
    address: Address
    keys: Keys
    token: str | None
    max_request: timedelta
    requests: SyncRequests
    overview: Overview
    metrics: Metrics
    history: History
    stop: Stop
    say: Say
    trouble: bool = False

    def say_bug(self, path: str, error: Exception) -> None:
        """What a person needs to find it; the console knows no secret of it that it would print."""
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        line = scrub(f"bug in {path}: {type(error).__name__}: {error} ({where})")
        self.say("bug", line, {"path": path, "message": line})

    def check_token(self, request: Request) -> None:
        """Refused 401 unless the request brings `serve.token`; 403 where none is configured."""
        if self.token is None:
            raise Refused(403, "no-serve-token", "set serve.token in stackctl.yaml to use this")
        given = request.headers.get("authorization", "")
        scheme, _, token = given.partition(" ")
        good = hmac.compare_digest(token.strip().encode(), self.token.encode())
        if scheme.lower() != "bearer" or not good:
            raise Refused(401, "unauthorized", "the header Authorization: Bearer TOKEN is missing or wrong",
                          {"WWW-Authenticate": "Bearer"})  # fmt: skip

    def check_access(self, request: Request) -> None:
        """Who may look: with the token, or without one configured, from this machine under its own name.

        A page of somebody else's that a browser here has open could have its name lead to this machine. Its name gives
        it away.
        """
        if self.token is not None:
            self.check_token(request)
            return
        host = request.headers.get("host", "")
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            name = None
        if name not in ("localhost", "127.0.0.1", "::1", self.address.host):
            raise Refused(421, "other-host", "this server is known by other names; set serve.token to use this one")


def read_access(settings: Settings, address: Address) -> tuple[Keys, str | None]:
    """The signing keys and the token. ConfigError without keys, and off loopback without a token."""
    keys = read_keys(settings)
    token: str | None = settings.get("serve.token") or None
    if token is None and not address.is_loopback:
        raise ConfigError(
            f"serve.host is {address.host}, which others can reach, and serve.token is not set",
            code="no-serve-token",
            hint="set serve.token (`openssl rand -hex 32`), or keep serve.host: 127.0.0.1",
        )
    return keys, token
