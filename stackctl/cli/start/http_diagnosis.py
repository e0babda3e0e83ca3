"""What `stackctl doctor` says of signed requests: the endpoint that is posted to, the keys, and the server's token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.cli.start.diagnosis import Check
from stackctl.core.errors import StackctlError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.config.settings import Settings

ADVISED_KEY = 32  # characters of a signing key
SHORTEST_TOKEN = 16  # characters


def check_http(settings: Settings) -> Iterator[Check]:
    """Nothing where nothing of it is configured."""
    try:
        dispatch = settings.get("sync.dispatch")
        serves = any(
            settings.setting(key).source != "default" for key in ("serve.host", "serve.token", "serve.public_url")
        )
        if dispatch == "http" or serves:
            yield _check_keys(settings)
        if dispatch == "http":
            yield _check_endpoint(settings)
        if dispatch == "qstash":
            yield _check_delivery_service(settings)
        if serves:
            yield _check_token(settings)
    except StackctlError as error:
        yield Check("http", "error", error.message, error.hint)


def _check_keys(settings: Settings) -> Check:
    from stackctl.sync.dispatch.signature import read_keys

    keys = read_keys(settings)
    if any(len(key) < ADVISED_KEY for key in keys.accepted):
        return Check("signing keys", "warning", f"one has fewer than {ADVISED_KEY} characters",
                     "use `openssl rand -hex 32`")  # fmt: skip
    return Check("signing keys", "ok", "current and next" if keys.next else "current")


def _check_endpoint(settings: Settings) -> Check:
    """By a signed request for nothing, which is refused for that alone."""
    from stackctl.sync.dispatch.endpoint import Endpoint

    endpoint = Endpoint.from_settings(settings)
    try:
        status = endpoint.probe()
    except StackctlError as error:
        return Check("endpoint", "error", error.message, "start it, or correct sync.endpoint")
    finally:
        endpoint.close()
    if status == 400:
        return Check("endpoint", "ok", "takes what is signed here")
    if status in (401, 403):
        return Check("endpoint", "error", f"refuses what is signed here ({status})",
                     "both sides need the same key, and sync.endpoint must be the other's `sync_url`")  # fmt: skip
    return Check("endpoint", "warning", f"answers {status} to a request for nothing; a `stackctl serve` answers 400",
                 "is sync.endpoint right? It ends in /sync-engine")  # fmt: skip


def _check_delivery_service(settings: Settings) -> Check:
    """By asking for its signing keys, which whoever serves must have."""
    from stackctl.sync.dispatch.qstash import DeliveryService

    service = DeliveryService.from_settings(settings)
    try:
        keys = service.read_signing_keys()
    except StackctlError as error:
        return Check("delivery service", "error", error.message, error.hint)
    finally:
        service.close()
    ours = {settings.get(f"sync.signing_keys.{name}") for name in ("current", "next")} - {None, ""}
    if ours and not ours & set(keys):
        return Check("delivery service", "error", "sync.signing_keys are not the keys that it signs with",
                     "copy both from its console; a `stackctl serve` with these refuses all that it posts")  # fmt: skip
    return Check("delivery service", "ok", "takes the token" + (", and signs with the configured keys" if ours else ""))


def _check_token(settings: Settings) -> Check:
    from stackctl.server.site import Address, read_access

    address = Address(settings.get("serve.host"), settings.get("serve.port"), settings.get("serve.public_url"))
    _, token = read_access(settings, address)
    if token is not None and len(token) < SHORTEST_TOKEN:
        return Check("serve", "warning", "serve.token is short enough to be guessed", "use `openssl rand -hex 32`")
    return Check("serve", "ok", f"{address.url}, " + ("with a token" if token else "for this machine alone"))
