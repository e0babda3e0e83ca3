"""POST /sync-engine: a sender that proves itself has one tenancy brought up to date.

The signature is checked before anything else is said: strangers learn nothing. What is asked for is recorded in the
operated database at once, so that however the request ends, nothing of it is lost.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from stackctl.core.errors import StackctlError
from stackctl.core.sentences import format_count
from stackctl.server.answers import Refused, answer, busy, read_body
from stackctl.sync.dispatch.endpoint import NON_RETRYABLE, PLANNED
from stackctl.sync.dispatch.signature import SignatureRefused, find_scheme, verify
from stackctl.sync.queue import claims

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from stackctl.server.site import Site
    from stackctl.sync.engine.requests import SyncRequest

LONGEST_BODY = 64 * 1024  # bytes
LONGEST_ID = 200  # characters of a message's id
BUSY_WAIT = 10.0  # seconds in which work on a tenancy must have begun
_OF_NO_USE = {"Upstash-NonRetryable-Error": "true"}  # the delivery service's word for: do not repeat it


async def sync_engine(request: Request, site: Site) -> Response:
    tenancy = await _read_tenancy(request, site)
    if site.trouble or site.stop.requested:
        raise busy("not-ready", "the operated database can't be had, or the server is stopping", seconds=5)
    began = time.monotonic()
    sync = site.requests.submit(tenancy)
    if sync is None:
        raise busy("busy", "too many requests are in hand", seconds=1)
    try:
        await _wait(sync, site.max_request.total_seconds())
    finally:
        site.requests.drop(sync)
    answered = _to_answer(sync)
    message = request.headers.get("upstash-message-id")
    if message and answered.status_code == 200:
        await asyncio.to_thread(_end_published, site, message, tenancy, timedelta(seconds=time.monotonic() - began))
    return answered


def _end_published(site: Site, message: str, tenancy: UUID, lasted: timedelta) -> None:
    # It only tells of what was done: without it, the message counts as under way for a day.
    with suppress(StackctlError), site.pipeline.open_session() as conn:
        claims.end_published(conn, message[:LONGEST_ID], tenancy, lasted)


async def _read_tenancy(request: Request, site: Site) -> UUID:
    try:
        scheme, token = find_scheme(request.headers.raw)
        body = await read_body(request, LONGEST_BODY)
        verify(token, site.keys, scheme=scheme, url=site.address.sync_url, body=body, now=time.time())
    except SignatureRefused as refused:
        site.say("refused", f"POST /sync-engine: {refused}", {"path": "/sync-engine", "reason": str(refused)})
        raise Refused(401, "unauthorized", "the signature is missing or wrong") from None
    try:
        named = json.loads(body)["tenancyId"]
        if not isinstance(named, str):
            raise TypeError
        return UUID(named)
    except (ValueError, RecursionError, KeyError, TypeError):
        raise Refused(400, "no-tenancy", "the body is no JSON object with a uuid as tenancyId", _OF_NO_USE) from None


async def _wait(sync: SyncRequest, seconds: float) -> None:
    """Until it is through, or for so long; not even that while nothing is done for it."""
    done = asyncio.wrap_future(sync.done)
    await asyncio.wait([done], timeout=min(seconds, BUSY_WAIT))
    if sync.started and seconds > BUSY_WAIT:
        await asyncio.wait([done], timeout=seconds - BUSY_WAIT)


def _to_answer(sync: SyncRequest) -> Response:
    failing = sorted(name for name, outcome in sync.outcomes.items() if outcome in ("failing", "misconfigured"))
    waiting = sorted(sync.waiting)
    document: dict[str, Any] = {
        "ok": not failing,
        "tenancy": sync.tenancy,
        "databases": sync.outcomes,
        "queued": waiting,
    }
    if failing:
        asked = format_count(len(sync.outcomes) + len(waiting), "database", "databases")
        message = f"{len(failing)} of {asked} failed: {', '.join(failing)}"
        broken = not waiting and all(sync.outcomes[name] == "misconfigured" for name in failing)
        status, code = (NON_RETRYABLE, "databases-misconfigured") if broken else (500, "databases-failed")
        headers = {PLANNED: "planned"} | (_OF_NO_USE if broken else {})
        return answer({"error": {"code": code, "message": message, "details": document}}, status, headers)
    if sync.broken_off or (waiting and not (sync.started or sync.queued)):
        raise busy("busy", "no worker is free, or the tenancy is in other hands", seconds=5)
    if sync.accepted and not sync.outcomes and not waiting:
        document["warning"] = "this tenancy has no external database here"
    return answer(document)
