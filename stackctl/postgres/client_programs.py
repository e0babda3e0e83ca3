"""What programs of PostgreSQL, such as psql, are told of a connection: a URL, or libpq's variables."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from psycopg import pq

if TYPE_CHECKING:
    from stackctl.postgres.libpq import Parameters

_OPTIONS = pq.Conninfo.get_defaults()
_SECRET = {option.keyword.decode() for option in _OPTIONS if option.dispchar == b"*"}
_IN_PLACE = ("user", "password", "host", "port", "dbname")  # which stand before the `?`


def to_url(parameters: Parameters, *, with_secrets: bool) -> str:
    """The parameters as a libpq URL; without secrets, what reads it looks for them in the usual places."""
    shown = {
        name: str(value)
        for name, value in parameters.items()
        if value not in (None, "") and (with_secrets or name not in _SECRET)
    }
    user, password = (quote(shown.get(name, ""), safe="") for name in ("user", "password"))
    account = user + (f":{password}" if password else "")
    hosts, ports = shown.get("host", "").split(","), shown.get("port", "").split(",")
    rest = {name: value for name, value in shown.items() if name not in _IN_PLACE}
    if any(host.startswith(("/", "@")) for host in hosts):  # a socket's folder
        place = ""
        rest = {name: shown[name] for name in ("host", "port") if name in shown} | rest
    else:
        ports = ports * len(hosts) if len(ports) < len(hosts) else ports
        named = [f"[{host}]" if ":" in host else quote(host, safe="") for host in hosts]
        place = ",".join(host + (f":{port}" if port else "") for host, port in zip(named, ports, strict=False))
    at = f"{account}@" if account else ""
    query = urlencode(rest, quote_via=quote, safe="/,")
    return f"postgresql://{at}{place}/{quote(shown.get('dbname', ''), safe='')}" + (f"?{query}" if query else "")


def to_variables(parameters: Parameters) -> tuple[dict[str, str], Parameters]:
    """The parameters as environment variables, and those that have none; a secret that has none is left out."""
    variables = {option.keyword.decode(): option.envvar.decode() for option in _OPTIONS if option.envvar}
    given = {name: str(value) for name, value in parameters.items() if value is not None}
    return (
        {variables[name]: value for name, value in given.items() if name in variables},
        {name: value for name, value in given.items() if name not in variables and name not in _SECRET},
    )
