"""The external databases that were queued since they were configured.

A new one has no change that would wake it: its tenancy is queued when a poller finds it here for the first time. So it
does not matter who finds it, a loop or cron's next pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.postgres.statements import load_statements
from stackctl.sync.queue import entries, retries

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from uuid import UUID

    from stackctl.postgres.connect import Connection

    Key = tuple[UUID, str]

_SQL = load_statements(__file__)


def take_up(conn: Connection, configured: Mapping[Key, str], altered: Collection[Key] = ()) -> None:
    """Queue what is new, or different by its fingerprint or as `altered` says; forget what is no longer configured.

    Of that no failure is left. What is different does not wait for the next attempt.
    """
    known = {(tenancy, id_): fingerprint for tenancy, id_, fingerprint in conn.execute(_SQL["list_known"])}
    changed = {key for key, now in configured.items() if key in altered or known.get(key, now) != now}
    news = changed | (configured.keys() - known.keys())
    failing = {(one.tenancy, one.database) for one in retries.list_failures(conn) if one.database}
    gone = (known.keys() | failing) - configured.keys()
    if not (news or gone):
        return
    with conn.transaction():
        retries.forget(conn, sorted(gone))
        conn.execute(_SQL["forget_known"], _columns(gone))
        record(conn, {key: configured[key] for key in news})
        retries.retry_now(conn, sorted(changed))
        entries.enqueue(conn, entries.find_existing_tenancies(conn, {tenancy for tenancy, _ in news}))


def record(conn: Connection, databases: Mapping[Key, str]) -> None:
    """These databases are known by now."""
    conn.execute(_SQL["record_known"], _columns(databases) | {"fingerprints": list(databases.values())})


def _columns(keys: Collection[Key]) -> dict[str, list[UUID] | list[str]]:
    return {"tenancies": [tenancy for tenancy, _ in keys], "databases": [id_ for _, id_ in keys]}
