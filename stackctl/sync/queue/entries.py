"""Stage 2: the queue of tenancies whose external databases are due.

Claims are leases: `startedFulfillingAt` is the time of the claim and its token. Whoever holds a claim renews it while
the work lasts, and finishes or gives it back only if it is still theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from stackctl.postgres.connect import Connection

QUEUE = "OutgoingRequest"  # the table
LEASE = timedelta(seconds=60)  # a claim that was not renewed for so long is anybody's

_SQL = load_statements(__file__)


@dataclass(frozen=True)
class Claim:
    """An entry in our hands. `tenancy` is as written in the entry; `claimed_at` (UTC) is the token."""

    id: UUID
    tenancy: str | None
    claimed_at: datetime


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
    """The queue in numbers; `oldest_age_ms` is None when it is empty."""

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


def claim(conn: Connection, limit: int, busy: Iterable[UUID] = ()) -> list[Claim]:
    """Take up to `limit` pending entries, oldest first, passing over what others claim and the `busy` tenancies."""
    rows = conn.execute(_SQL["claim_entries"], {"limit": limit, "busy": [str(tenancy) for tenancy in busy]}).fetchall()
    return [Claim(*row) for row in rows]


def renew(conn: Connection, claims: Sequence[Claim]) -> list[Claim]:
    """Prolong the claims that are still ours; the others are missing from what is returned."""
    if not claims:
        return []
    rows = conn.execute(
        _SQL["renew_claims"], {"ids": [c.id for c in claims], "claims": [c.claimed_at for c in claims]}
    ).fetchall()
    renewed = dict(rows)
    return [replace(c, claimed_at=renewed[c.id]) for c in claims if c.id in renewed]


def finish(conn: Connection, claim: Claim) -> bool:
    """Delete a finished entry, if the claim is still ours."""
    return conn.execute(_SQL["finish_entry"], {"id": claim.id, "claimed_at": claim.claimed_at}).rowcount == 1


def release(conn: Connection, claim: Claim) -> None:
    """Give an entry back to pending, if the claim is still ours."""
    conn.execute(_SQL["release_entry"], {"id": claim.id, "claimed_at": claim.claimed_at})


def recover_expired(conn: Connection, lease: timedelta = LEASE) -> int:
    """Return entries whose claim has expired to pending, or drop them where a newer one is; returns how many."""
    with conn.transaction():
        expired = conn.execute(_SQL["find_expired"], {"lease": lease}).fetchall()
        for id_, claimed_at in expired:
            release(conn, Claim(id_, None, claimed_at))
    return len(expired)


def list_entries(conn: Connection, limit: int, lease: timedelta = LEASE) -> list[QueueEntry]:
    """The queue, oldest first."""
    rows = conn.execute(_SQL["list_entries"], {"limit": limit, "lease": lease}).fetchall()
    return [QueueEntry(id_, tenancy, created, claimed, bool(stale)) for id_, tenancy, created, claimed, stale in rows]


def summarize_queue(conn: Connection, lease: timedelta = LEASE) -> QueueSummary:
    row = conn.execute(_SQL["summarize_queue"], {"lease": lease}).fetchone()
    assert row is not None
    pending, in_flight, stale, dead, oldest = row
    return QueueSummary(pending, in_flight, stale, dead, int(oldest) if oldest is not None else None)


def find_existing_tenancies(conn: Connection, tenancies: Iterable[UUID]) -> set[UUID]:
    """Those of the tenancies that the operated database knows."""
    return {row[0] for row in conn.execute(_SQL["find_existing_tenancies"], {"tenancies": list(tenancies)})}
