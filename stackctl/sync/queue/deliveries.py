"""Stage 3: the external databases that are due, one record each.

A queue entry says that a tenancy has changed. Whoever takes it turns it into records of the tenancy's databases in the
same transaction; from then on each database goes its own way. Work on one is a lease, renewed while it lasts. Changes
that come meanwhile mark the record, and it is not finished but open again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import timedelta
    from uuid import UUID

    from stackctl.postgres.connect import Connection

WHOLE = ""  # in place of a mapping's name: the database as a whole

_SQL = load_statements(__file__)

Key = tuple["UUID", str]  # tenancy and database


@dataclass(frozen=True)
class Delivery:
    """A database in our hands.

    `retry` are the mappings whose next attempt was due (WHOLE: the database's), `resting` those whose next attempt
    lies ahead: a new change does not hurry it.
    """

    tenancy: UUID
    database: str
    retry: frozenset[str]
    resting: frozenset[str]

    @property
    def key(self) -> Key:
        return (self.tenancy, self.database)


def add(conn: Connection, databases: Iterable[Key]) -> None:
    """Have these databases brought up to date with everything that is visible now; in the caller's transaction."""
    wanted = set(databases)
    if wanted:
        conn.execute(
            _SQL["add_deliveries"],
            {"tenancies": [tenancy for tenancy, _ in wanted], "databases": [database for _, database in wanted]},
        )


def add_due_retries(conn: Connection, lease: timedelta) -> None:
    """The same of the databases that failed and whose next attempt is due."""
    conn.execute(_SQL["add_due_retries"], {"lease": lease})


def lease(conn: Connection, holder: UUID, limit: int, *, slow: bool, busy: Collection[Key]) -> list[Delivery]:
    """Take up to `limit` databases for `holder`, in turns of their tenancies; not the `busy` ones.

    `slow`: those that have had a turn that was not enough.
    """
    parameters = {
        "holder": holder,
        "limit": limit,
        "slow": slow,
        "busy_tenancies": [tenancy for tenancy, _ in busy],
        "busy_databases": [database for _, database in busy],
    }
    return [
        Delivery(tenancy, database, frozenset(retry), frozenset(resting))
        for tenancy, database, retry, resting in conn.execute(_SQL["lease_deliveries"], parameters)
    ]


def has_slow_waiting(conn: Connection) -> bool:
    """Whether databases wait that have had a turn that was not enough."""
    row = conn.execute(_SQL["has_waiting"]).fetchone()
    return row is not None and row[0]


def renew(conn: Connection, holder: UUID) -> None:
    """Prolong the leases of this holder."""
    conn.execute(_SQL["renew_leases"], {"holder": holder})


def recover_expired(conn: Connection, holder: UUID, lease: timedelta) -> int:
    """Open again what others hold and did not renew; returns how many."""
    return conn.execute(_SQL["recover_leases"], {"holder": holder, "lease": lease}).rowcount


def finish(conn: Connection, holder: UUID, key: Key) -> None:
    """It is up to date: forget the record if it is still ours, or open it again for what has changed since."""
    tenancy, database = key
    parameters = {"holder": holder, "tenancy": tenancy, "database": database}
    conn.execute(_SQL["finish_delivery"], parameters)
    reopen(conn, holder, key)


def reopen(conn: Connection, holder: UUID, key: Key, *, slow: bool = False, retry: Collection[str] = ()) -> None:
    """Give the record back if it is still ours, with what was to be tried again."""
    tenancy, database = key
    parameters = {"holder": holder, "tenancy": tenancy, "database": database, "slow": slow, "retry": list(retry)}
    conn.execute(_SQL["reopen_delivery"], parameters)
