"""POST /webhooks/stripe: events that Stripe signed are stored, to be worked on later."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from stackctl.payments.webhooks import SignatureMismatch, StripeEvent, parse_event, store_event, verify_signature
from stackctl.server.answers import Refused, answer, read_body

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from stackctl.server.site import Site

LONGEST_BODY = 1024 * 1024  # bytes


async def stripe_webhook(request: Request, site: Site) -> Response:
    secrets: tuple[str, ...] = site.settings.get("payments.webhook_secrets") or ()
    if not secrets:
        raise Refused(503, "no-webhook-secret", "payments.webhook_secrets is not configured")
    headers = request.headers.getlist("stripe-signature")
    if len(headers) != 1:
        raise Refused(400, "invalid-signature", "one header Stripe-Signature is needed")
    body = await read_body(request, LONGEST_BODY)
    try:
        verify_signature(body, headers[0], secrets, now=time.time())
    except SignatureMismatch as mismatch:
        path = "/webhooks/stripe"
        site.say("refused", f"POST {path}: {mismatch}", {"path": path, "reason": str(mismatch)})
        raise Refused(400, "invalid-signature", "the signature is wrong or too old") from None
    try:
        event = parse_event(body)
    except ValueError as problem:
        raise Refused(400, "no-event", str(problem)) from None
    new = await asyncio.to_thread(_store, site, event)
    return answer({"received": True, "new": new})


def _store(site: Site, event: StripeEvent) -> bool:
    with site.pipeline.open_session() as conn:
        return store_event(conn, event)
