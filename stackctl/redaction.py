"""What keeps secrets out of everything stackctl writes.

Two nets: values known to be secret (`remember`, called where a setting is resolved) and the shapes that secrets have
(passwords in URLs and connection strings, API keys). Every line for a person, every error document and every
traceback passes `scrub` before it leaves the process.
"""

from __future__ import annotations

import re
from urllib.parse import quote, quote_plus, unquote, urlsplit

MASK = "***"

# A shorter value is part of too many ordinary words; the shapes below still catch it in a URL.
_SHORTEST_REMEMBERED = 4

_secrets: set[str] = set()

_URL_PASSWORD = re.compile(r"(?P<head>[A-Za-z][A-Za-z0-9+.-]*:/{1,2}[^\s:/@'\"]*):(?P<secret>[^\s'\"]*)@(?=[^\s@]*)")
_KEYWORD_PASSWORD = re.compile(
    r"(?P<head>\b(?:password|passwd|pwd|sslpassword|passfile|secret|token|api[_-]?key)\s*=\s*)"
    r"(?P<secret>'(?:[^'\\]|\\.)*'|[^\s&'\"]+)",
    re.IGNORECASE,
)
_API_KEY = re.compile(r"\b(?P<head>(?:sk|rk|pk)_(?:live|test)_|whsec_)[A-Za-z0-9]+")
_BOT_TOKEN = re.compile(r"\b(?P<head>\d{6,}):[A-Za-z0-9_-]{30,}")


def remember(secret: str | None) -> None:
    """Mask this value, and its percent-encoded and decoded forms, in all later output."""
    if not secret:
        return
    for form in (secret, unquote(secret), quote(secret, safe=""), quote_plus(secret)):
        if len(form) >= _SHORTEST_REMEMBERED:
            _secrets.add(form)


def remember_url(url: str) -> None:
    """Mask the password of a connection string, whether it is a URL or libpq's `key=value` form.

    A string that is not well-formed is remembered whole: what cannot be parsed cannot be shown in part.
    """
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        remember(url)
        return
    if parts.scheme and "://" in url:
        # A password equal to the user or database name says nothing that the name does not.
        if password not in (parts.username, parts.path.lstrip("/")):
            remember(password)
    elif "@" in url:
        remember(url)
    for match in _KEYWORD_PASSWORD.finditer(url):
        remember(match["secret"].strip("'"))


def redact_url(url: str) -> str:
    """The connection string with its password masked, fit to be shown."""
    return _shapes(url)


def scrub(text: str) -> str:
    """`text` without any secret this module knows of or can recognise."""
    for secret in sorted(_secrets, key=len, reverse=True):
        if secret in text:
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", MASK, text)
    return _shapes(text)


def _shapes(text: str) -> str:
    text = _URL_PASSWORD.sub(rf"\g<head>:{MASK}@", text)
    text = _KEYWORD_PASSWORD.sub(rf"\g<head>{MASK}", text)
    text = _API_KEY.sub(rf"\g<head>{MASK}", text)
    return _BOT_TOKEN.sub(rf"\g<head>:{MASK}", text)
