"""The URLs of the embedded PostgreSQL: `embedded`, `embedded:DIR`, `embedded:DIR?dbname=NAME&keep=10m`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from stackctl.core.durations import parse_duration
from stackctl.core.errors import ConfigError
from stackctl.core.redaction import redact_url

_NAME_BYTES = 63  # PostgreSQL cuts longer identifiers short
_SPELLINGS = "embedded, embedded:DIR or embedded:DIR?dbname=NAME&keep=10m"


@dataclass(frozen=True)
class EmbeddedUrl:
    """Where an embedded server keeps its files (absolute) and which of its databases is meant.

    `keep`: how many seconds it goes on running after its last use.
    """

    directory: Path
    dbname: str
    keep: float = 0


def parse_embedded_url(url: str, base: Path) -> EmbeddedUrl | None:
    """Read `embedded[:DIR][?dbname=NAME&keep=DURATION]`; None for what does not begin with the word `embedded`.

    A relative DIR is against `base`; without DIR it is the user's data directory. Raises ConfigError when malformed.
    """
    match = re.fullmatch(r"embedded(?::(?P<directory>[^?]*))?(?:\?(?P<query>.*))?", url, re.DOTALL)
    if match is None:
        return None
    written, query = match["directory"], match["query"]
    if written is None:
        directory = _default_directory()
    elif not written or written.startswith("//") or "\0" in written:
        raise _malformed(f"the embedded database URL {redact_url(url)!r} names no directory")
    else:
        directory = base.absolute() / Path(written).expanduser()
    dbname, keep = "postgres", 0.0
    if query is not None:
        pairs = parse_qsl(query, keep_blank_values=True)
        given = dict(pairs)
        if not given or len(given) < len(pairs) or not given.keys() <= {"dbname", "keep"}:
            raise _malformed(f"the embedded database URL {redact_url(url)!r} takes the parameters dbname and keep")
        dbname = given.get("dbname", dbname)
        try:
            keep = parse_duration(given["keep"]).total_seconds() if "keep" in given else 0.0
        except ValueError as error:
            raise _malformed(f"keep in {redact_url(url)!r}: {error}") from None
        if not 0 < len(dbname.encode()) <= _NAME_BYTES or "\0" in dbname:
            raise _malformed(f"the database name in {redact_url(url)!r} must have 1 to {_NAME_BYTES} bytes")
    return EmbeddedUrl(directory, dbname, keep)


def _malformed(message: str) -> ConfigError:
    return ConfigError(message, code="embedded-url", hint=f"write {_SPELLINGS}")


def _default_directory() -> Path:
    data_home = Path(os.environ.get("XDG_DATA_HOME", ""))
    if not data_home.is_absolute():
        data_home = Path.home() / ".local" / "share"
    return data_home / "stackctl" / "postgres"
