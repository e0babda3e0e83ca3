"""Who is logged in at the board: a cookie that proves knowledge of `serve.token`, and nothing kept on the server."""

from __future__ import annotations

import hashlib
import hmac
import secrets

LIFETIME = 12 * 3600  # seconds that a login is good for
COOKIE = "stackctl_board"


class Sessions:
    """Makes and reads cookies; another token ends all of them."""

    def __init__(self, token: str) -> None:
        self._key = hmac.digest(token.encode(), b"stackctl board", hashlib.sha256)

    def create(self, now: float) -> str:
        text = f"{int(now) + LIFETIME}.{secrets.token_hex(16)}"
        return f"{text}.{self._sign('session', text)}"

    def find_end(self, cookie: str, now: float) -> float | None:
        """When this session ends; None for one that has, and for a cookie that is not ours."""
        text, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign("session", text).encode()):
            return None
        end = int(text.partition(".")[0])
        return end if now < end else None

    def make_form_token(self, cookie: str) -> str:
        """What each change brings in a header, and another site can't know."""
        return self._sign("form", cookie)

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.digest(self._key, f"{purpose} {text}".encode(), hashlib.sha256).hex()
