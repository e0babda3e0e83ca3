"""Stage 2: the queue of tenancies whose external databases are due.

An entry is taken together with the records of what is due (deliveries.py). One that was claimed by others, who mark it
with `startedFulfillingAt`, is left to them until that is too long ago.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from stackctl.postgres.connect import Connection

QUEUE = "OutgoingRequest"  # the table
LEASE = timedelta(seconds=60)  # a claim that was not renewed for so long is anybody's

_SQL = load_statements(__file__)


@dataclass(frozen=True)
class QueueEntry:
    """An entry as `queue list` shows it; times are UTC. `stale`: its claim has expired."""

    id: UUID
    tenancy: str | None
    created_at: datetime
    claimed_at: datetime | None
    stale: bool


@dataclass(frozen=True)
class QueueSummary:
    """Entries, and databases that are due, in numbers; `oldest_age_ms` is None when there are none."""

    pending: int
    in_flight: int
    stale: int
    dead: int
    oldest_age_ms: int | None


def enqueue(conn: Connection, tenancies: Iterable[UUID]) -> int:
    """Make sure that each tenancy has a pending entry; inside the caller's transaction, if there is one."""
    ids = sorted(tenancies)
    if ids:
        conn.execute(_SQL["enqueue_tenancies"], {"tenancies": ids})
    return len(ids)


def take(conn: Connection, limit: int) -> list[str | None]:
    """Take up to `limit` pending entries, oldest first, out of the queue, passing over what others have in hand.

    Returns the tenancies as written in them. What is to be done for them must commit together with this.
    """
    return [tenancy for (tenancy,) in conn.execute(_SQL["take_entries"], {"limit": limit})]


def recover_expired(conn: Connection, lease: timedelta = LEASE) -> int:
    """Return entries whose claim has expired to pending, or drop them where a newer one is; returns how many.

    Claims are made by the backend, by earlier versions, and where another process syncs (claims.py); else an entry is
    taken, and its work has records of its own.
    """
    with conn.transaction():
        expired = conn.execute(_SQL["find_expired"], {"lease": lease}).fetchall()
        for id_, claimed_at in expired:
            release(conn, id_, claimed_at)
    return len(expired)


def release(conn: Connection, id_: UUID, claimed_at: datetime) -> None:
    """Return an entry to pending if this claim of it still stands, or drop it where a newer one is pending."""
    conn.execute(_SQL["release_entry"], {"id": id_, "claimed_at": claimed_at})


def list_entries(
    conn: Connection, limit: int, tenancy: UUID | None = None, lease: timedelta = LEASE
) -> list[QueueEntry]:
    """The queue, or a tenancy's part of it, oldest first."""
    asked = {"limit": limit, "lease": lease, "tenancy": None if tenancy is None else str(tenancy)}
    rows = conn.execute(_SQL["list_entries"], asked).fetchall()
    return [QueueEntry(id_, tenancy, created, claimed, bool(stale)) for id_, tenancy, created, claimed, stale in rows]


def summarize_queue(conn: Connection, lease: timedelta = LEASE) -> QueueSummary:
    row = conn.execute(_SQL["summarize_queue"], {"lease": lease}).fetchone()
    assert row is not None
    pending, in_flight, stale, dead, oldest = row
    return QueueSummary(pending, in_flight, stale, dead, int(oldest) if oldest is not None else None)


def find_existing_tenancies(conn: Connection, tenancies: Iterable[UUID]) -> set[UUID]:
    """Those of the tenancies that the operated database knows."""
    return {row[0] for row in conn.execute(_SQL["find_existing_tenancies"], {"tenancies": list(tenancies)})}
