"""Connections to PostgreSQL: where they lead, and as whom; what is set in their sessions says session.py."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict

from stackctl.core.errors import ConfigError, ServiceError, StackctlError
from stackctl.core.redaction import redact_url, remember_url
from stackctl.postgres.errors import to_one_line, translate_error, translating_errors
from stackctl.postgres.libpq import NO_FILE, Parameters, fill_from_environment, open_connection, read_service
from stackctl.postgres.libpq import Connection as Connection
from stackctl.postgres.pooler import find_shared_sessions
from stackctl.postgres.session import FORMATS, WORK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.config.settings import Author, Settings
    from stackctl.postgres.embedded import EmbeddedServer
    from stackctl.postgres.session import Session

OPERATED = "the operated database"  # in messages

_TICKETS = ("!gss", "!sspi")
_MOST_PLACES = 8  # each may take CONNECT_TIMEOUT
# How soon a peer that is gone is noticed: nobody else may hold up a worker.
_PATIENCE = ("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
CONNECT_TIMEOUT = 10  # seconds, unless the connection string says otherwise

# What libpq says of a parameter that it can't use; it has no code of its own.
_BAD_PARAMETER = ("invalid sslmode value", "invalid integer value", "bad value for", "definition of service")

# What a server or a pooler says that takes no more connections; while connecting, its code does not get through.
_FULL = (
    "too many clients", "too many connections", "connection slots are reserved", "no more connections allowed",
)  # fmt: skip


def connect(
    url: str,
    *,
    base: Path | None = None,
    schema: str | None = None,
    what: str = "the database",
    application_name: str = "stackctl",
    author: Author = "operator",
    lazy_commits: bool = False,
    for_migrations: bool = False,
    external: bool = False,
) -> Session:
    """Open a connection in autocommit mode, or raise one of this family:

    ConfigError `bad-database-url`, `local-address`; ServiceError `unreachable`, `auth-failed`, `no-such-database`,
    `not-postgresql`, `too-many-connections`, and what the server says of the session's settings.
    `schema` becomes the search path; None leaves the server's. `what` names the database in messages. `author`: who
    wrote the URL, and so what it may reach and borrow. With `lazy_commits`, a crash of the server may take back the
    last commits. `external`: it is not ours to migrate. `for_migrations`: with the role's own limits, and in session
    pooling with a session that is kept.
    """
    if author == "operator":
        remember_url(url)  # a tenancy's would let it choose what is masked in everybody's messages
    embedded = _find_embedded(url, base or Path.cwd())
    parameters = embedded[0].parameters(embedded[1]) if embedded is not None else _read_url(url, what, author)
    parameters.setdefault("connect_timeout", CONNECT_TIMEOUT)
    parameters.setdefault("application_name", application_name)
    # Bytes pass between databases unparsed: both sides must mean the same by them, whatever PGCLIENTENCODING says.
    parameters["client_encoding"] = "UTF8"
    # A peer that vanished without a word is noticed in about a minute instead of two hours.
    for name, value in (("keepalives_idle", 30), ("keepalives_interval", 10), ("keepalives_count", 3)):
        parameters.setdefault(name, value)
    try:
        conn = open_connection(parameters) if embedded is None else _open_embedded(*embedded, parameters)
    except psycopg.Error as error:
        raise _connect_error(error, what, parameters) from (error if author == "operator" else None)
    try:
        lazy = {"synchronous_commit": "off"} if lazy_commits else {}
        settings = FORMATS if for_migrations else FORMATS | WORK | lazy
        conn.begin(settings, schema, own=for_migrations and find_shared_sessions(conn) is None)
    except psycopg.Error as error:
        conn.close()
        raise translate_error(error, what, external=external) from error
    return conn


def _read_url(url: str, what: str, author: Author) -> Parameters:
    """Where a URL leads, with what the environment adds, or without what a tenancy may not say. Raises ConfigError."""
    try:
        parameters = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise _bad_url(what, f"not a PostgreSQL connection string: {redact_url(url)}") from error
    if not re.fullmatch(r"[0-9,]*", str(parameters.get("port") or "")):
        raise _bad_url(what, "the port is not a number")
    if any(re.search(r"[=;\s]", host) for host in _list_hosts(parameters) if host[:1] not in "/@"):
        raise _bad_url(what, "the host is none that there can be")
    return fill_from_environment(parameters) if author == "operator" else _restrict(parameters, author, what)


def _find_embedded(url: str, base: Path) -> tuple[EmbeddedServer, str] | None:
    """The server of an `embedded…` URL, started or joined, and the name of the database; None for another URL."""
    if not url.startswith("embedded"):
        return None
    from stackctl.postgres import embedded
    from stackctl.postgres.embedded_url import parse_embedded_url

    parsed = parse_embedded_url(url, base)
    return None if parsed is None else (embedded.attach(parsed.directory, keep=parsed.keep), parsed.dbname)


def _open_embedded(server: EmbeddedServer, dbname: str, parameters: Parameters) -> Session:
    """A connection to a database that is ours to make where it is missing."""
    try:
        return server.connect(parameters)
    except psycopg.OperationalError as error:
        if not _lacks_database(error):
            raise
        server.ensure_database(dbname)
        return server.connect(parameters)


def _restrict(parameters: Parameters, author: Author, what: str) -> Parameters:
    """What a tenancy wrote, with nothing of the operator's: no password, certificate or ticket; and not for long.

    Raises what `pin_addresses` raises.
    """
    from stackctl.postgres.addresses import pin_addresses

    if author == "tenancy":
        parameters = pin_addresses(parameters, what)
    if len(_list_hosts(parameters)) > _MOST_PLACES:
        raise _bad_url(what, f"more than {_MOST_PLACES} places to try")
    methods = str(parameters.get("require_auth") or "!gss").split(",")
    if any(method.strip().startswith("!") for method in methods):  # which lets pass what it does not name
        methods = [*(method for method in methods if method.strip() not in _TICKETS), *_TICKETS]
    timeout = str(parameters.get("connect_timeout") or "")
    patience = int(timeout) if timeout.isascii() and timeout.isdigit() else CONNECT_TIMEOUT
    left = {name: value for name, value in parameters.items() if name not in _PATIENCE}
    return {"password": ""} | left | {
        "require_auth": ",".join(methods), "passfile": NO_FILE, "sslcertmode": "disable", "gssencmode": "disable",
        "connect_timeout": max(1, min(patience, CONNECT_TIMEOUT)),
    }  # fmt: skip


def connect_operated(settings: Settings, *, lazy_commits: bool = False) -> Session:
    """A connection to the operated database of the settings; see `connect`."""
    return connect(
        settings.database_url(),
        base=settings.base_dir,
        schema=settings.get("database.schema"),
        what=OPERATED,
        lazy_commits=lazy_commits,
    )


def find_operated_parameters(
    settings: Settings, *, with_search_path: bool = False
) -> tuple[Parameters, EmbeddedServer | None]:
    """Where the operated database is, for other programs, and the embedded server that it is on, if it is on one.

    That one is started, and runs as long as this process. Raises ConfigError, ServiceError and StateError.
    """
    url, schema = settings.database_url(), settings.get("database.schema")
    remember_url(url)
    embedded = _find_embedded(url, settings.base_dir)
    if embedded is not None:
        server, dbname = embedded
        server.ensure_database(dbname)
        parameters = server.parameters(dbname)
        del parameters["passfile"]  # no password is asked for
    else:
        server, parameters = None, _read_url(url, OPERATED, "operator")
        if (service := parameters.get("service")) and read_service(service):
            del parameters["service"]  # it is all there, and in an environment a service would beat the URL
    if with_search_path and schema != "public":
        name = re.sub(r"([\\\s])", r"\\\1", '"' + schema.replace('"', '""') + '"')
        parameters["options"] = f"{parameters.get('options') or ''} -c search_path={name}".strip()
    return parameters, server


@contextmanager
def open_operated_session(settings: Settings, *, lazy_commits: bool = False) -> Iterator[Session]:
    """`connect_operated`, closed at the end; PostgreSQL's errors inside come out as StackctlErrors."""
    conn = connect_operated(settings, lazy_commits=lazy_commits)
    try:
        with translating_errors(OPERATED):
            yield conn
    finally:
        conn.close()


def _bad_url(what: str, problem: str) -> ConfigError:
    return ConfigError(
        f"{what}: {problem}",
        code="bad-database-url",
        hint="write postgresql://USER@HOST:5432/DBNAME; a password goes after the user, or into ~/.pgpass",
    )


def _lacks_database(error: psycopg.Error) -> bool:
    # While connecting, libpq hands on the server's words without their code.
    text = str(error)
    return isinstance(error, pg.InvalidCatalogName) or ("database" in text and "does not exist" in text)


# What libpq says of the place, which our message has named, and of what to look for, which is in our hint.
_REPEATED = re.compile(
    r'^connection failed: connection to server (?:at "[^"]*", port \d+|on socket "[^"]*") failed: (?:FATAL: +)?'
    r"|(?<=refused) Is the server running on that host and accepting TCP/IP connections\?$"
)
# Servers send SQLSTATEs with it, which libpq keeps to itself.
_REFUSED = re.compile(r'password|authentication failed|no pg_hba\.conf entry|role "[^"]*" (?:does not exist|is not)')


def _list_hosts(parameters: Parameters) -> list[str]:
    return str(parameters.get("host") or parameters.get("hostaddr") or "localhost").split(",")


def _describe_place(parameters: Parameters) -> str:
    hosts = _list_hosts(parameters)
    ports = str(parameters.get("port") or 5432).split(",")
    if len(ports) < len(hosts):
        ports *= len(hosts)
    return ", ".join(f"{host}:{port or 5432}" for host, port in zip(hosts, ports, strict=False))


def _connect_error(error: psycopg.Error, what: str, parameters: dict[str, Any]) -> StackctlError:
    if any(text in str(error) for text in _BAD_PARAMETER):
        return _bad_url(what, to_one_line(str(error).removeprefix("connection is bad: ")))
    place = _describe_place(parameters)
    reason = _REPEATED.sub("", to_one_line(str(error)))
    user = parameters.get("user")
    refused = isinstance(error, pg.InvalidPassword | pg.InvalidAuthorizationSpecification)
    if refused or _REFUSED.search(reason):
        return ServiceError(
            f"{what} at {place} refuses the credentials of {user or 'the default user'}: {reason}",
            code="auth-failed",
            hint="check the user and password in the connection string, and pg_hba.conf",
        )
    if _lacks_database(error):
        return ServiceError(
            f"{what} at {place}: {reason}",
            code="no-such-database",
            hint="create it, or correct the database name in the connection string",
        )
    if any(text in reason for text in _FULL):
        return ServiceError(
            f"{what} at {place} takes no more connections: {reason}",
            code="too-many-connections",
            hint="raise max_connections there, or the limit of the role, database or pooler; or lower sync.workers",
        )
    strangers = ("expected authentication request", "invalid response to", "server closed the connection")
    if any(text in reason for text in strangers):
        return ServiceError(
            f"what answers at {place} is not PostgreSQL: {reason}",
            code="not-postgresql",
            hint="check host and port",
        )
    return ServiceError(
        f"{what} can't be reached at {place}: {reason}",
        code="unreachable",
        hint="check that the server runs, and host, port and firewall",
    )
