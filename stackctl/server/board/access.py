"""Who may look at the board, and who may change something from it."""

from __future__ import annotations

import hmac
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from stackctl.server.answers import Refused, read_body
from stackctl.server.board.sessions import COOKIE, Sessions

if TYPE_CHECKING:
    from starlette.requests import Request

    from stackctl.server.site import Site

LONGEST_BODY = 4096  # bytes
FORM_TOKEN = "x-stackctl-form"  # the header


class Access:
    """Without `serve.token` everybody who is let in may look, and nobody may change anything."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._sessions = Sessions(site.token) if site.token is not None else None

    def check_viewer(self, request: Request) -> float | None:
        """Raises Refused unless the request may look; when its session ends, if it has one."""
        if self._sessions is None or "authorization" in request.headers:
            self._site.check_access(request)
            return None
        end = self._sessions.find_end(request.cookies.get(COOKIE, ""), time.time())
        if end is None:
            raise Refused(401, "not-logged-in", "log in with the token to see the board")
        return end

    def to_document(self, request: Request) -> dict[str, Any]:
        """What the page may do, for its script."""
        if self._sessions is None:
            self._site.check_access(request)
            return {"login": False, "in": True, "form_token": None}
        cookie = request.cookies.get(COOKIE, "")
        logged_in = self._sessions.find_end(cookie, time.time()) is not None
        return {
            "login": True,
            "in": logged_in,
            "form_token": self._sessions.make_form_token(cookie) if logged_in else None,
        }

    async def log_in(self, request: Request) -> str:
        """The cookie for who knows the token. Raises Refused 401."""
        sessions = self._require_token()
        self._check_origin(request)
        token = (self._site.token or "").encode()
        given = (await _read_document(request)).get("token")
        if not isinstance(given, str) or not hmac.compare_digest(given.strip().encode(errors="replace"), token):
            raise Refused(401, "wrong-token", "that is not the token")
        return sessions.create(time.time())

    async def read_change(self, request: Request) -> dict[str, Any]:
        """The document of a change. Refused unless it comes from our page, by somebody who is logged in there."""
        sessions = self._require_token()
        self._check_origin(request)
        cookie = request.cookies.get(COOKIE, "")
        if sessions.find_end(cookie, time.time()) is None:
            raise Refused(401, "not-logged-in", "log in with the token to change anything")
        given = request.headers.get(FORM_TOKEN, "")
        if not hmac.compare_digest(given.encode(), sessions.make_form_token(cookie).encode()):
            raise Refused(403, "not-our-form", "the header X-Stackctl-Form is missing or wrong")
        return await _read_document(request)

    def make_cookie(self, value: str, *, age: int) -> str:
        secure = "; Secure" if (self._site.address.public_url or "").startswith("https:") else ""
        return f"{COOKIE}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}"

    def _require_token(self) -> Sessions:
        if self._sessions is None:
            raise Refused(403, "no-serve-token", "set serve.token in stackctl.yaml to use this")
        return self._sessions

    def _check_origin(self, request: Request) -> None:
        """Browsers say from where a POST comes; what comes from elsewhere is not ours, and neither is what is silent.

        A name that somebody else has led here has no cookie of ours.
        """
        origin, host = request.headers.get("origin", ""), request.headers.get("host", "")
        known = {f"http://{host}", f"https://{host}"}
        if self._site.address.public_url:
            public = urlsplit(self._site.address.public_url)
            known.add(f"{public.scheme}://{public.netloc}")
        if origin not in known:
            raise Refused(403, "other-origin", "this can only be asked for by the server's own page")


async def _read_document(request: Request) -> dict[str, Any]:
    body = await read_body(request, LONGEST_BODY)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Refused(400, "no-document", "the body is no JSON object")
    return document
