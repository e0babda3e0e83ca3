"""What every route answers with, and how a body is read: no more of it than allowed, and not for ever."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response

from stackctl.core.documents import to_masked_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

BODY_TIMEOUT = 10.0  # seconds in which a body must have come


class Refused(Exception):
    """Answered with this status and error document instead."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})

    def to_response(self) -> Response:
        return answer({"error": {"code": self.code, "message": self.message}}, self.status, self.headers)


def busy(code: str, message: str, *, seconds: int) -> Refused:
    """503: come again in so many seconds."""
    return Refused(503, code, message, {"Retry-After": str(seconds)})


def answer(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """One JSON document; nothing keeps it."""
    return Response(
        to_masked_json(document) + "\n",
        status,
        {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})},
        "application/json",
    )


async def read_body(request: Request, limit: int) -> bytes:
    """The body as it came. Raises Refused: 413 for one over `limit` bytes, if it says so before reading; 408."""
    too_large = Refused(413, "body-too-large", f"the body is larger than {limit} bytes")
    said = request.headers.get("content-length", "0")
    if int(said) > limit:  # h11 lets nothing but digits through
        raise too_large
    read = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for part in request.stream():
                read += part
                if len(read) > limit:
                    raise too_large
    except TimeoutError:
        raise Refused(408, "body-too-slow", "the body did not come in time", {"Connection": "close"}) from None
    except ClientDisconnect:
        raise Refused(400, "body-incomplete", "the body ended early") from None
    return bytes(read)
