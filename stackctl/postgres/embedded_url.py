"""The URLs of the embedded PostgreSQL: `embedded`, `embedded:DIR`, `embedded:DIR?dbname=NAME`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from stackctl.core.errors import ConfigError
from stackctl.core.redaction import redact_url

_NAME_BYTES = 63  # PostgreSQL cuts longer identifiers short
_SPELLINGS = "embedded, embedded:DIR or embedded:DIR?dbname=NAME"


@dataclass(frozen=True)
class EmbeddedUrl:
    """Where an embedded server keeps its files (absolute) and which of its databases is meant."""

    directory: Path
    dbname: str


def parse_embedded_url(url: str, base: Path) -> EmbeddedUrl | None:
    """Read `embedded[:DIR][?dbname=NAME]`; None for anything that does not begin with the word `embedded`.

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
    dbname = "postgres"
    if query is not None:
        pairs = parse_qsl(query, keep_blank_values=True)
        if [key for key, _ in pairs] != ["dbname"]:
            raise _malformed(f"the embedded database URL {redact_url(url)!r} takes one parameter, dbname")
        dbname = pairs[0][1]
        if not 0 < len(dbname.encode()) <= _NAME_BYTES or "\0" in dbname:
            raise _malformed(f"the database name in {redact_url(url)!r} must have 1 to {_NAME_BYTES} bytes")
    return EmbeddedUrl(directory, dbname)


def _malformed(message: str) -> ConfigError:
    return ConfigError(message, code="embedded-url", hint=f"write {_SPELLINGS}")


def _default_directory() -> Path:
    data_home = Path(os.environ.get("XDG_DATA_HOME", ""))
    if not data_home.is_absolute():
        data_home = Path.home() / ".local" / "share"
    return data_home / "stackctl" / "postgres"
