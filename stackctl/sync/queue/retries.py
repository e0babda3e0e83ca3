"""What failed to reach an external database, and when it is tried again.

Kept per (tenancy, database, mapping): new changes still go to all that is healthy. What an attempt on the database as
a whole comes to has a record of its own.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from stackctl.core.redaction import scrub
from stackctl.postgres.statements import load_statements
from stackctl.sync.queue.deliveries import WHOLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from stackctl.core.errors import StackctlError
    from stackctl.postgres.connect import Connection

FIRST_DELAY = timedelta(seconds=1)  # doubled with each further failure
LONGEST_DELAY = timedelta(minutes=10)
MAX_ATTEMPTS = 12  # after which it waits for the next change, the sweep or `queue retry`
SWEEP_INTERVAL = timedelta(minutes=10)

_SQL = load_statements(__file__)


@dataclass(frozen=True)
class Failure:
    """What does not take its rows, a mapping's copy or (`mapping` None) the database as a whole.

    `next_attempt_at` None: a dead letter.
    """

    tenancy: UUID
    database: str
    attempts: int
    failing_since: datetime
    error: str
    code: str
    next_attempt_at: datetime | None
    mapping: str | None = None

    @property
    def dead(self) -> bool:
        return self.next_attempt_at is None


def list_failures(conn: Connection) -> list[Failure]:
    """Everything that fails, longest first."""
    return [Failure(*row) for row in conn.execute(_SQL["list_failures"])]


def find_failure(conn: Connection, tenancy: UUID, database: str) -> Failure | None:
    """What is recorded of this database, if it or a mapping of it fails: what counts most."""
    row = conn.execute(_SQL["find_failure"], {"tenancy": tenancy, "database": database}).fetchone()
    return Failure(*row) if row is not None else None


def record_failure(
    conn: Connection,
    tenancy: UUID,
    database: str,
    error: StackctlError,
    *,
    scheduled: bool,
    mapping: str = WHOLE,
) -> bool:
    """Plan the next attempt: exponential, with jitter so that many do not come back at once. Whether it is given up.

    A copy that only refuses some rows does not rest: it goes on with every change, and only an attempt that was
    `scheduled` for those rows counts.
    """
    row = conn.execute(
        _SQL["record_failure"],
        {
            "tenancy": tenancy,
            "database": database,
            "mapping": mapping,
            "error": scrub(error.message),
            "code": error.code,
            "delay": FIRST_DELAY * random.uniform(0.7, 1.3),
            "longest": LONGEST_DELAY,
            "limit": MAX_ATTEMPTS,
            "scheduled": scheduled,
        },
    ).fetchone()
    assert row is not None
    return row[0]


def defer(conn: Connection, tenancy: UUID, database: str, wait: timedelta | None) -> None:
    """Make the next attempt not before `wait`, whatever was planned; None: give it up."""
    conn.execute(_SQL["defer_attempt"], {"tenancy": tenancy, "database": database, "wait": wait})


def record_no_answer(conn: Connection, tenancy: UUID, database: str, lease: timedelta) -> None:
    """An attempt is under way that gets no answer: until the lease ends, the database rests."""
    conn.execute(_SQL["record_no_answer"], {"tenancy": tenancy, "database": database, "lease": lease})


def record_success(
    conn: Connection, tenancy: UUID, database: str, mappings: Iterable[str] | None = None, *, rejections: bool = True
) -> bool:
    """Forget the failures of these mappings (WHOLE: of the database), or all; in the caller's transaction.

    Without `rejections`, those stay that are about rejected rows.

    True: there were some. Changes may have passed over what rested, so whoever holds no lease on the database must add
    a delivery.
    """
    parameters = {"tenancy": tenancy, "database": database}
    chosen = {"everything": mappings is None, "mappings": list(mappings or ()), "rejections": rejections}
    return conn.execute(_SQL["record_success"], parameters | chosen).rowcount > 0


def retry_now(conn: Connection, databases: Sequence[tuple[UUID, str]] | None) -> list[tuple[UUID, str]]:
    """Make the next attempt of these databases (None: all) due now; returns those that were failing."""
    return _change_failures(conn, "retry_now", databases)


def forget(conn: Connection, databases: Sequence[tuple[UUID, str]] | None) -> list[tuple[UUID, str]]:
    """Forget that these databases (None: all) fail, as if they never had; returns those that did."""
    return _change_failures(conn, "forget_failures", databases)


def _change_failures(
    conn: Connection, statement: str, databases: Sequence[tuple[UUID, str]] | None
) -> list[tuple[UUID, str]]:
    chosen = databases or ()
    rows = conn.execute(
        _SQL[statement],
        {
            "everything": databases is None,
            "tenancies": [tenancy for tenancy, _ in chosen],
            "databases": [database for _, database in chosen],
        },
    ).fetchall()
    return list(dict.fromkeys((tenancy, database) for tenancy, database in rows))


def claim_sweep(conn: Connection, interval: timedelta = SWEEP_INTERVAL) -> bool:
    """Whether it is time to queue every configured tenancy; says so to one caller an interval."""
    return conn.execute(_SQL["claim_sweep"], {"interval": interval}).fetchone() is not None
