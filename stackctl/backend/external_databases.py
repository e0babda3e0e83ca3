"""External databases as the backend's own configuration names them (`external_databases_from: backend`).

Whoever may edit a tenancy's configuration writes what is read here: nothing in it is trusted. Variables are not filled
in, no connection takes anything from this process's environment or leads to this machine unless the operator allows
it, and what is wrong with an entry is an error of that database alone.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from stackctl.backend.tenancies import merge_config
from stackctl.config.keys import check_url
from stackctl.config.settings import ExternalDatabase
from stackctl.core.errors import ConfigError, StateError
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from stackctl.config.settings import Author
    from stackctl.core.errors import StackctlError
    from stackctl.postgres.connect import Connection

REREAD_AFTER = 5.0  # seconds for which what was read is taken to hold

SECTION = ("dbSync", "externalDatabases")
_DEPTH = len(SECTION) + 2  # a database's id, and its properties

# A connection string may say where and how. What names a file or a service of the machine that stackctl runs on is
# refused: it would lend the operator's credentials to a tenancy.
_PARAMETERS = frozenset(
    {
        *("host", "hostaddr", "port", "dbname", "user", "password", "options", "application_name", "client_encoding"),
        *("sslmode", "sslnegotiation", "sslsni", "sslcompression"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version"),
        *("channel_binding", "require_auth", "gssencmode", "target_session_attrs", "load_balance_hosts"),
        *("connect_timeout", "tcp_user_timeout"),
        *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
    }
)
_WORD = re.compile(r"[A-Za-z0-9_-]{1,40}")

_SQL = load_statements(__file__)

Place = tuple[str, ...]


@dataclass(frozen=True)
class DatabaseChanges:
    """What another reading found: databases that are new or different, and such as are no longer configured."""

    altered: tuple[ExternalDatabase, ...] = ()
    gone: tuple[ExternalDatabase, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.altered or self.gone)


class BackendDatabases:
    """The external databases of all tenancies, as last read. Reading again costs one query while nothing changes."""

    def __init__(self, author: Author = "tenancy") -> None:
        self._author: Author = author
        self.databases: dict[UUID, list[ExternalDatabase]] = {}
        self._texts: dict[UUID, str] = {}
        self._parsed: dict[UUID, list[ExternalDatabase]] = {}
        self._fingerprint: tuple[Any, ...] | None = None
        self._read_at: float | None = None

    @property
    def was_read(self) -> bool:
        return self._read_at is not None

    def refresh(self, conn: Connection) -> DatabaseChanges:
        """Read again what is older than REREAD_AFTER. The first reading changes nothing.

        Raises StateError `not-migrated`.
        """
        now = time.monotonic()
        if self._read_at is not None and now - self._read_at < REREAD_AFTER:
            return DatabaseChanges()
        try:
            fingerprint = conn.execute(_SQL["read_fingerprint"]).fetchone()
            if fingerprint == self._fingerprint:
                self._read_at = now
                return DatabaseChanges()
            texts: dict[UUID, str] = dict(conn.execute(_SQL["list_configured"]).fetchall())
        except psycopg.errors.UndefinedTable as error:
            raise StateError(
                'the operated database has no "EnvironmentConfigOverride" to read external databases from',
                code="not-migrated",
                hint="run `stackctl migrate up --bundled`, or set external_databases_from: config",
            ) from error
        first, self._read_at, self._fingerprint = self._read_at is None, now, fingerprint
        if texts == self._texts:
            return DatabaseChanges()
        self._parsed = {
            tenancy: self._parsed[tenancy]
            if self._texts.get(tenancy) == text
            else [replace(one, author=self._author) for one in parse_databases(tenancy, text)]
            for tenancy, text in texts.items()
        }
        self._texts = texts
        before, self.databases = self.databases, _refuse_shared(self._parsed)
        return DatabaseChanges() if first else find_changes(before, self.databases)


def find_changes(
    before: Mapping[UUID, Sequence[ExternalDatabase]], after: Mapping[UUID, Sequence[ExternalDatabase]]
) -> DatabaseChanges:
    """What came, went or is no longer as it was between two readings."""

    def known(databases: Mapping[UUID, Sequence[ExternalDatabase]]) -> dict[tuple[UUID, str], ExternalDatabase]:
        return {(one.tenancy, one.id): one for found in databases.values() for one in found}

    old, new = known(before), known(after)
    return DatabaseChanges(
        altered=tuple(
            one
            for key, one in new.items()
            if (was := old.get(key)) is None or was != one or (was.problem is None) != (one.problem is None)
        ),
        gone=tuple(one for key, one in old.items() if key not in new),
    )


def _refuse_shared(databases: Mapping[UUID, list[ExternalDatabase]]) -> dict[UUID, list[ExternalDatabase]]:
    """Tenancies that name one place would mix their rows and cursors: each such database gets that as its error.

    Two spellings of one place are told apart here and meet at the owner marker inside the database.
    """
    places = {
        (one.tenancy, one.id): to_place(one.url)
        for found in databases.values()
        for one in found
        if one.url is not None and one.problem is None
    }
    owners: dict[Place, set[UUID]] = defaultdict(set)
    for (tenancy, _), where in places.items():
        owners[where].add(tenancy)
    shared = {where: tenancies for where, tenancies in owners.items() if len(tenancies) > 1}
    if not shared:
        return dict(databases)

    def checked(one: ExternalDatabase) -> ExternalDatabase:
        others = shared.get(places.get((one.tenancy, one.id), ()), frozenset()) - {one.tenancy}
        if not others:
            return one
        names = sorted(map(str, others))
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return replace(one, problem=StateError(
            f"tenancies {one.tenancy} and {names[0]}{more} are configured onto one external database "
            f"({one.connection})",
            code="shared-database",
            hint="give each tenancy a database of its own",
        ))  # fmt: skip

    return {tenancy: [checked(one) for one in found] for tenancy, found in databases.items()}


def to_place(url: str) -> Place:
    """Where a connection string leads, as far as it can be told from the text."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:
        return (url,)
    return tuple(str(parts.get(name) or "") for name in ("host", "hostaddr", "port", "dbname", "service"))


# -- one tenancy's configuration


def parse_databases(tenancy: UUID, text: str) -> list[ExternalDatabase]:
    """The external databases in the JSON text of a configuration; one that is wrong carries its `problem`."""
    try:
        section: Any = merge_config(json.loads(text), depth=_DEPTH)
    except RecursionError:
        return [_unusable(tenancy, SECTION[-1], "is nested too deeply")]
    for name in SECTION:
        if section is None:
            return []
        if not isinstance(section, dict):
            return [_unusable(tenancy, SECTION[-1], "is not an object")]
        section = section.get(name)
    if section is None:
        return []
    if not isinstance(section, dict):
        return [_unusable(tenancy, SECTION[-1], "is not an object")]
    return [_parse_database(tenancy, id_, entry) for id_, entry in section.items() if entry is not None]


def _parse_database(tenancy: UUID, id_: str, entry: Any) -> ExternalDatabase:
    if not isinstance(entry, dict):
        return _unusable(tenancy, id_, "is not an object")
    type_, url = entry.get("type"), entry.get("connectionString")
    if type_ != "postgres":
        shown = type_ if isinstance(type_, str) and _WORD.fullmatch(type_) else "unknown"
        what = "has no type" if type_ is None else "has a type that is not supported"
        return _unusable(tenancy, id_, what, "the type must be postgres", type_=shown)
    if not isinstance(url, str) or not url.strip():
        return _unusable(tenancy, id_, "has no connectionString that is a text")
    try:
        check_url(url)
        parameters = conninfo_to_dict(url)
    except ValueError as problem:
        return _unusable(tenancy, id_, f"has a connectionString that can't be used: {problem}")
    except psycopg.Error:
        return _unusable(tenancy, id_, "has a connectionString that is none of PostgreSQL's")
    if unfit := sorted(parameters.keys() - _PARAMETERS):
        return _unusable(tenancy, id_, f"has a connectionString with a parameter that is not allowed: {unfit[0]}")
    if re.search(r"(^|,)\s*(gss|sspi)", str(parameters.get("require_auth"))):
        return _unusable(tenancy, id_, "has a connectionString that asks for the operator's own ticket (require_auth)")
    if not (parameters.get("host") or parameters.get("hostaddr")):
        return _unusable(tenancy, id_, "has a connectionString that names no host")
    return ExternalDatabase(
        tenancy=tenancy, id=id_, type="postgres", url=url, path=None, mappings=None, base=Path(),
        origin=_origin(tenancy, id_), author="tenancy",
    )  # fmt: skip


def _unusable(tenancy: UUID, id_: str, what: str, hint: str | None = None, type_: str = "postgres") -> ExternalDatabase:
    where = ".".join(SECTION if id_ == SECTION[-1] else (*SECTION, id_))
    problem: StackctlError = ConfigError(
        f"{where} {what}",
        code="invalid-external-database",
        hint=hint or "correct it in the backend's configuration of the tenancy",
    )
    return ExternalDatabase(
        tenancy=tenancy, id=id_, type=type_, url=None, path=None, mappings=None, base=Path(),
        origin=_origin(tenancy, id_), author="tenancy", problem=problem,
    )  # fmt: skip


def _origin(tenancy: UUID, id_: str) -> str:
    return f"{'.'.join((*SECTION, id_))} of tenancy {tenancy}"
