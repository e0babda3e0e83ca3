"""What the operated database knows of at a prompt: it is waited for no longer than a second, and never started."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from stackctl.backend import external_databases, tenancies
from stackctl.payments.money import format_money
from stackctl.postgres.connect import connect_operated
from stackctl.postgres.session import FORMATS, WORK
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stackctl.config.settings import Settings
    from stackctl.postgres.session import Session

DEADLINE = 1.0  # seconds after which the process ends, with what it has printed by then
_MOST_TENANCIES, _MOST = 1000, 50  # offered; of refunds and purchases the newest
_SQL = load_statements(__file__)


def ask(what: Callable[[Session], Iterator[str]], settings: Settings) -> Iterator[str]:
    """The lines of `what`, or none from an embedded server that does not run. The process ends after DEADLINE."""
    timer = threading.Timer(DEADLINE, os._exit, [0])
    timer.daemon = True
    timer.start()
    conn = _join(settings)
    if conn is not None:
        # In a transaction, and for it alone: a pooler may give the session to others afterwards.
        with conn, conn.transaction():
            conn.execute(_SQL["limit_time"], {"milliseconds": str(int(DEADLINE * 1000))})
            yield from what(conn)
    timer.cancel()


def _join(settings: Settings) -> Session | None:
    url = settings.database_url()
    if url.startswith("embedded"):
        from stackctl.postgres.embedded import find_running
        from stackctl.postgres.embedded_url import parse_embedded_url

        if (parsed := parse_embedded_url(url, settings.base_dir)) is not None:
            if (server := find_running(parsed.directory)) is None:
                return None
            conn = server.connect(server.parameters(parsed.dbname))
            conn.begin(FORMATS | WORK, settings.get("database.schema"), own=False)
            return conn
    return connect_operated(settings)


def list_tenancies(conn: Session) -> Iterator[str]:
    """Their ids, and those of projects that are words."""
    for one in tenancies.list_tenancies(conn, _MOST_TENANCIES):
        name = one.project_name or one.project
        yield f"{one.id}\t{name}, branch {one.branch}"
        if not tenancies.is_id(one.project):
            yield f"{one.project}\t{name}"


def list_databases(conn: Session) -> Iterator[str]:
    """The external databases that tenancies have configured in the backend."""
    backend = external_databases.BackendDatabases()
    backend.refresh(conn)
    for found in backend.databases.values():
        yield from (f"{one.id}\t{one.type} of {one.tenancy}" for one in found)


def list_failing(conn: Session) -> Iterator[str]:
    for database, code in conn.execute(_SQL["list_failing"], {"limit": _MOST}):
        yield f"{database}\t{code}"


def list_refunds(conn: Session) -> Iterator[str]:
    for id_, status, amount, currency, day in conn.execute(_SQL["list_refunds"], {"limit": _MOST}):
        yield f"{id_}\t{format_money(amount, currency)}, {status}, {day}"


def list_purchases(conn: Session) -> Iterator[str]:
    for id_, name, customer, day in conn.execute(_SQL["list_purchases"], {"limit": _MOST}):
        yield f"{id_}\t{name} of {customer}, {day}"
