"""libpq as stackctl uses it: the one place that opens connections, and its variables, which libpq itself never sees.

libpq fills what a connection string leaves open from some thirty variables (`PGHOST`, `PGOPTIONS`, …) and from the
service that `PGSERVICE` names; one of them, `PGHOSTADDR`, even leads away from the host that a string does name. So the
variables are taken out of the environment, for good, before libpq can look, and `fill_from_environment` says which of
them count for a connection: none that says *where*, if the string says where.
"""

from __future__ import annotations

import logging
import os
import threading
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from stackctl.postgres.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping

Connection = psycopg.Connection[tuple[Any, ...]]
Parameters = dict[str, Any]

NO_FILE = "/dev/null/none"  # of /dev/null itself, libpq complains on stderr

_VARIABLES = {option.keyword.decode(): option.envvar.decode() for option in pq.Conninfo.get_defaults() if option.envvar}
# Read while a connection is being made, and sent to the server as settings; it would refuse the connection for a bad
# one. Every session sets what it needs of these (see `connect`).
_SETTINGS = ("PGDATESTYLE", "PGTZ", "PGGEQO")
_WHERE = ("host", "hostaddr", "port", "dbname", "service")

# What the driver would remark goes round the console, and unmasked; what matters of it comes as an exception.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

_taken: dict[str, str] = {}
_lock = threading.Lock()


def open_connection(parameters: Parameters) -> Session:
    """A connection in autocommit mode by these parameters alone. Raises psycopg's errors."""
    _take_environment()
    return cast("Session", Session.connect(make_conninfo("", **parameters), autocommit=True))


def to_conninfo(parameters: Parameters) -> str:
    """A connection string of these parameters, for a program that takes one."""
    return make_conninfo("", **parameters)


def open_again(conn: Connection) -> Session:
    """Another connection by the parameters of an open one, in autocommit mode. Raises psycopg's errors."""
    return open_connection(conninfo_to_dict(conn.info.dsn, password=conn.info.password or None))


def ping(parameters: Parameters) -> pq.Ping:
    """Whether a server answers there."""
    _take_environment()
    return pq.Ping(pq.PGconn.ping(make_conninfo("", **parameters).encode()))


def fill_from_environment(parameters: Parameters) -> Parameters:
    """The parameters with what the environment adds to them, as libpq would, but for where the connection leads.

    Host, port, database and service are taken from it only when the parameters name neither host nor service.
    """
    variables = _take_environment()
    filled = dict(parameters)
    says_where = any(filled.get(name) for name in ("host", "hostaddr", "service"))
    if not says_where and "PGSERVICE" in variables:
        filled["service"] = variables["PGSERVICE"]
    for name, value in read_service(filled["service"]).items() if filled.get("service") else ():
        filled.setdefault(name, value)
    for name, variable in _VARIABLES.items():
        if variable in variables and not (name in _WHERE and (says_where or name == "service")):
            filled.setdefault(name, variables[variable])
    return filled


def _take_environment() -> Mapping[str, str]:
    with _lock:
        for variable in (*_VARIABLES.values(), *_SETTINGS):
            if (value := os.environ.pop(variable, None)) is not None:
                _taken[variable] = value
    return _taken


@cache
def read_service(name: str) -> dict[str, str]:
    """What the files of services say of one, as libpq reads them: the first section of that name counts.

    libpq reads it as well. It is read here because a service beats the variables, and libpq does not tell them apart.
    """
    own = os.environ.get("PGSERVICEFILE") or str(Path.home() / ".pg_service.conf")
    for place in (Path(own), Path(os.environ.get("PGSYSCONFDIR", "/nowhere")) / "pg_service.conf"):
        try:
            lines = [line.strip() for line in place.read_text(encoding="utf-8", errors="replace").splitlines()]
        except OSError:
            continue
        if f"[{name}]" in lines:
            section = takewhile(lambda line: not line.startswith("["), lines[lines.index(f"[{name}]") + 1 :])
            pairs = (line.partition("=") for line in section if "=" in line and not line.startswith("#"))
            return {key: value for key, _, value in pairs}
    return {}
