"""What keeps secrets out of everything stackctl writes.

Two nets: values known to be secret (`remember`, called where a setting is resolved) and the shapes that secrets have
(passwords in URLs and connection strings, API keys). Errors and tracebacks pass `scrub`, which uses both. Results pass
`mask_shapes`: what happens to be a password elsewhere must not tear holes into data.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote

MASK = "***"

# A shorter value is part of too many ordinary words; the shapes below still catch it in a URL.
_SHORTEST_REMEMBERED = 4
# A shorter value made of letters and digits is masked only where it stands alone: `hunter2`, not `hunter22`.
_LONGEST_WORD = 12
# A password like `database` or `5432` is masked only where a password stands: the shapes, and what libpq quotes of a
# connection string. Masked everywhere, it would leave messages that nobody can read, and that give it away.
_ORDINARY_WORD = re.compile(rf"(?:[A-Za-z]?[a-z]+|[0-9]+)(?<!.{{{_LONGEST_WORD}}})")
_QUOTED_BY_LIBPQ = r"""(?:(?<=after ")|(?<=option ")|(?<=value ")|(?<=token: ")|(?<=number: "))"""

_ESCAPED = {"'": r"\\*'", '"': r'\\*"', "\\": r"\\+"}

_secrets: set[str] = set()

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*:/{1,2})(?P<rest>.*)", re.DOTALL)
_PAIR = re.compile(
    r"\s*(?P<key>[A-Za-z_]\w*)\s*=\s*(?P<value>'(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)(?:[^\s\\]|\\.)*|)\s*", re.DOTALL
)
# The parameters of a connection that may be shown; another one may be a misspelt `password`.
_SHOWN = frozenset(
    {
        *("host", "hostaddr", "port", "dbname", "user", "service", "options", "application_name", "client_encoding"),
        *("sslmode", "sslrootcert", "sslcert", "sslkey", "channel_binding", "gssencmode", "krbsrvname", "require_auth"),
        *("connect_timeout", "tcp_user_timeout", "target_session_attrs", "load_balance_hosts"),
        *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
    }
)
_SECRET_NAME = r"\w*(?:password|passwd|pwd|secret|token|api[_-]?key)"

# From the colon on, and no password without end: a text of many letters, or of many schemes, takes no time.
_URL_PASSWORD = re.compile(r"(?<=[A-Za-z0-9+.-])(?P<head>:/{1,2}[^\s:/@'\"]*):[^\s'\"]{0,2000}@")
_PLAIN_URL_PASSWORD = re.compile(r"(?<=[A-Za-z0-9+.-])(?P<head>:/{1,2}[^\s:/@'\"]*):[^\s/@'\"]{1,2000}@")
_NAMED_SECRET = re.compile(rf"(?P<head>\b{_SECRET_NAME}\s*=\s*)(?:'(?:[^'\\]|\\.)*'?|[^\s&'\"]+)", re.IGNORECASE)
_QUOTED_SECRET = re.compile(
    rf"(?P<head>(?P<q>['\"]){_SECRET_NAME}(?P=q)\s*:\s*)(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")", re.IGNORECASE
)
_SQL_PASSWORD = re.compile(r"(?P<head>\b\w*password\s+)[eE]?'(?:[^'\\]|\\.|'')*'?", re.IGNORECASE)
_NEAR_LITERAL = re.compile(r'(?P<head> at or near ")[A-Za-z&]{0,2}[\'$][^"]*(?:"(?![\s;,:.)]|$)[^"]*)*')
_API_KEY = re.compile(r"(?<![A-Za-z0-9])(?P<head>(?:sk|rk|pk)_(?:live|test)_|whsec_)[A-Za-z0-9_+/=-]+")
_BOT_TOKEN = re.compile(r"(?<!\d)(?P<head>\d{8,10}):[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])")


def remember_secret(secret: str | None) -> None:
    """Mask this value in all later errors, however it is quoted, escaped or percent-encoded."""
    if not secret:
        return
    for form in (secret, unquote(secret), quote(secret, safe=""), quote_plus(secret)):
        for spelled in (form, json.dumps(form)[1:-1]):  # as a document or a traceback spells what is not printable
            if len(spelled) >= _SHORTEST_REMEMBERED:
                _secrets.add(spelled)


def remember_url(url: str) -> None:
    """Mask the password of a connection string, whether it is a URL or libpq's `key=value` form.

    Of a string that libpq would cut elsewhere than its author meant, every piece is remembered: an error may quote any.
    """
    if match := _URL.match(url):
        rest = match["rest"]
        homeless = has_password_without_host(url)
        whole = (rest if homeless else rest.rpartition("@")[0]).partition(":")[2]
        if homeless or is_ambiguous_url(url) or "://" not in url:
            for piece in (whole, *re.split(r"[@/:?#\s]", whole)):
                remember_secret(piece)
        else:
            user, _, password = rest.partition("@")[0].partition(":") if "@" in _authority(rest) else ("", "", "")
            database = rest.partition("@")[2].partition("/")[2].partition("?")[0]
            # A password equal to the user or database name says nothing that the name does not.
            if password not in (user, database):
                remember_secret(password)
        for name, value in parse_qsl(rest.partition("?")[2]):
            if _is_secret_name(name):
                remember_secret(value)
        return
    pairs, well_formed = _parse_conninfo(url)
    if well_formed:
        for name, value in pairs:
            if name not in _SHOWN:
                remember_secret(value.strip("'"))
                remember_secret(_unescape(value))
    elif url.startswith("embedded"):
        for found in _NAMED_SECRET.finditer(url):
            remember_secret(found[0].removeprefix(found["head"]).strip("'"))
    else:
        for piece in (url, *re.split(r"[\s@/:?#=']+", url)):
            if not _is_secret_name(piece):
                remember_secret(piece)


def redact_url(url: str) -> str:
    """The connection string with its password masked, fit to be shown; wholly masked where its form is unclear."""
    # A password may stand where none belongs: behind a comma or an `&` that separates nothing there.
    return _NAMED_SECRET.sub(rf"\g<head>{MASK}", _redact_parts(url))


def _redact_parts(url: str) -> str:
    if match := _URL.match(url):
        rest = match["rest"]
        if has_password_without_host(url):
            return f"{match['scheme']}{rest.partition(':')[0]}:{MASK}"
        at = rest.rfind("@") if is_ambiguous_url(url) else _authority(rest).find("@")
        userinfo, tail = (rest[:at], rest[at:]) if at >= 0 else ("", rest)
        user, colon, _ = userinfo.partition(":")
        address, mark, query = tail.partition("?")
        query = "&".join(
            f"{name}{equals}{value}" if name in _SHOWN or not equals else f"{name}={MASK}"
            for name, equals, value in (part.partition("=") for part in query.split("&"))
        )
        return f"{match['scheme']}{user}{f':{MASK}' if colon else ''}{address}{mark}{query}"
    pairs, well_formed = _parse_conninfo(url)
    if well_formed:
        return " ".join(f"{name}={value if name in _SHOWN else MASK}" for name, value in pairs)
    # What has no form that is known may be a secret in the wrong place.
    return url if url.startswith("embedded") else MASK


def is_ambiguous_url(url: str) -> bool:
    """Whether libpq may cut this URL elsewhere than its author meant: a `@` or `/` in the password, not encoded."""
    match = _URL.match(url)
    if match is None:
        return False
    authority = _authority(match["rest"])
    path = match["rest"][len(authority) :].partition("?")[0]
    return authority.count("@") > 1 or (authority != "" and "@" in path)


def has_password_without_host(url: str) -> bool:
    """Whether it reads `postgresql://USER:PASSWORD/DBNAME`, in which libpq takes the password for a port."""
    match = _URL.match(url)
    authority = _authority(match["rest"]) if match is not None and "://" in url else ""
    if "@" in authority or is_ambiguous_url(url):
        return False
    ports = [part.rpartition("]")[2].partition(":")[2] for part in authority.partition("?")[0].split(",")]
    return any(port and not (port.isdigit() and int(port) < 65536) for port in ports)


def scrub(text: str) -> str:
    """`text` without any secret this module knows of or can recognise."""
    # There may be thousands, and hardly one is in the text: the regular expressions are for those that can be.
    for secret in sorted((one for one in tuple(_secrets) if _longest_plain_part(one) in text), key=len, reverse=True):
        # A repr inside a repr escapes quotes and backslashes again and again.
        pattern = "".join(_ESCAPED.get(character) or re.escape(character) for character in secret)
        if _ORDINARY_WORD.fullmatch(secret):
            pattern = rf"{_QUOTED_BY_LIBPQ}{pattern}(?=\")"
        elif secret.isalnum() and len(secret) < _LONGEST_WORD:
            pattern = rf"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f]{{2}})|(?<=\\[nrt])){pattern}(?![A-Za-z0-9])"
        text = re.sub(pattern, MASK, text)
    text = _URL_PASSWORD.sub(rf"\g<head>:{MASK}@", text)
    text = _NAMED_SECRET.sub(rf"\g<head>{MASK}", text)
    text = _QUOTED_SECRET.sub(rf"\g<head>'{MASK}'", text)
    text = _SQL_PASSWORD.sub(rf"\g<head>'{MASK}'", text)
    text = _NEAR_LITERAL.sub(rf"\g<head>{MASK}", text)
    return _mask_keys(text)


@cache
def _longest_plain_part(secret: str) -> str:
    """The longest part of it that no escaping changes."""
    return max(re.split(r"['\"\\]", secret), key=len)


def scrub_values(value: Any) -> Any:
    """A JSON-able value whose strings are scrubbed; the names of keys stay as they are."""
    match value:
        case str():
            return scrub(value)
        case dict():
            return {name: scrub_values(inner) for name, inner in value.items()}
        case list() | tuple():
            return [scrub_values(inner) for inner in value]
        case _:
            return value


def mask_shapes(text: str) -> str:
    """`text` without passwords in URLs and without API keys; whatever else it holds is left alone."""
    if ":" not in text and "_" not in text:  # one of which each shape has
        return text
    return _mask_keys(_PLAIN_URL_PASSWORD.sub(rf"\g<head>:{MASK}@", text))


def _mask_keys(text: str) -> str:
    return _BOT_TOKEN.sub(rf"\g<head>:{MASK}", _API_KEY.sub(rf"\g<head>{MASK}", text))


def _authority(rest: str) -> str:
    # As libpq does it: up to the first slash, and no further (`?` and `#` may stand in a password).
    return rest.partition("/")[0]


def _is_secret_name(name: str) -> bool:
    return re.fullmatch(_SECRET_NAME, name, re.IGNORECASE) is not None


def _parse_conninfo(text: str) -> tuple[list[tuple[str, str]], bool]:
    """The pairs of libpq's `key=value` form, values as written, and whether they are the whole text."""
    pairs: list[tuple[str, str]] = []
    position = 0
    while position < len(text) and (match := _PAIR.match(text, position)):
        pairs.append((match["key"], match["value"]))
        position = match.end()
    return pairs, bool(pairs) and position == len(text)


def _unescape(value: str) -> str:
    inner = value[1:-1] if value.startswith("'") else value
    return re.sub(r"\\(.)", r"\1", inner, flags=re.DOTALL)
