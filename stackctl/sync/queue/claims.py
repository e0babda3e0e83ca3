"""Stage 3, where another process syncs: entries are claimed, handed on, and finished when that has answered.

A claim is a lease, renewed while it lasts; `entries.recover_expired` gives back what was not. What could not be handed
on is a failure of the tenancy as a whole, recorded with UNDELIVERED in place of a database. What a delivery service has
taken is remembered until it is done, or a day has passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from stackctl.postgres.statements import load_statements
from stackctl.sync.queue import entries

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime, timedelta

    from stackctl.postgres.connect import Connection

UNDELIVERED = ""  # in place of a database's id: the tenancy could not be handed on
PARALLELISM = 20  # at a time of one flow-control key, where the entry does not say


def name_database(database: str) -> str:
    """What people read for a database's id; where that is UNDELIVERED, what could not be handed on to."""
    return database or "(endpoint)"


_SQL = load_statements(__file__)


@dataclass(frozen=True)
class Claim:
    """An entry in our hands. `attempt` counts from 1; of one `key` no more than `parallelism` are to be under way."""

    id: UUID
    claimed_at: datetime
    tenancy: UUID
    key: str
    parallelism: int
    attempt: int


def claim(conn: Connection, limit: int, busy: Collection[UUID]) -> tuple[list[Claim], int]:
    """Claim up to `limit` entries, none of a tenancy that is `busy`; and how many could be of no tenancy.

    Those are finished: nothing can be read from them, now or later.
    """
    claims: list[Claim] = []
    odd: list[tuple[UUID, datetime]] = []
    rows = conn.execute(_SQL["claim_entries"], {"limit": limit, "busy": [str(one) for one in busy]}).fetchall()
    for id_, claimed_at, tenancy, key, parallelism, attempts in rows:
        try:
            of = UUID(tenancy or "")
        except ValueError:
            odd.append((id_, claimed_at))
            continue
        most = parallelism if isinstance(parallelism, int) and parallelism > 0 else PARALLELISM
        claims.append(Claim(id_, claimed_at, of, key or "", most, attempts + 1))
    _finish(conn, odd)
    return sorted(claims, key=lambda one: one.claimed_at), len(odd)


def requeue_due(conn: Connection) -> None:
    """Queue the tenancies that are to be handed on again and have no entry left."""
    with conn.transaction():
        entries.enqueue(conn, [tenancy for (tenancy,) in conn.execute(_SQL["find_due_without_entry"]).fetchall()])


def take_back(conn: Connection) -> None:
    """What could not be handed on is nobody else's matter any more: queue it, without a record of failure."""
    with conn.transaction():
        entries.enqueue(conn, [tenancy for (tenancy,) in conn.execute(_SQL["take_back"]).fetchall()])


def renew(conn: Connection, claims: Sequence[Claim]) -> dict[UUID, datetime]:
    """Prolong them; when each claim that is still ours was made, by the entry's id."""
    if not claims:
        return {}
    return dict(conn.execute(_SQL["renew_claims"], _columns([(one.id, one.claimed_at) for one in claims])).fetchall())


def finish(conn: Connection, claims: Sequence[Claim]) -> None:
    """They are done: forget those that are still ours."""
    _finish(conn, [(one.id, one.claimed_at) for one in claims])


def release(conn: Connection, claims: Sequence[Claim]) -> None:
    """Give back those that are still ours; in the order of the queue's keys."""
    for one in sorted(claims, key=lambda one: (str(one.tenancy), one.id)):
        entries.release(conn, one.id, one.claimed_at)


@dataclass(frozen=True)
class PublishedMessage:
    """An entry that a delivery service has taken, and that nobody has done yet, as far as is known here."""

    message: str
    tenancy: UUID
    entry: UUID | None
    published_at: datetime


def record_published(conn: Connection, published: Sequence[tuple[Claim, str]]) -> None:
    """Claims that were published, and as which messages; in the transaction in which they are finished."""
    if published:
        columns = {
            "messages": [message for _, message in published],
            "tenancies": [claim.tenancy for claim, _ in published],
            "entries": [claim.id for claim, _ in published],
        }
        conn.execute(_SQL["record_published"], columns)


def end_published(conn: Connection, message: str, tenancy: UUID, lasted: timedelta) -> None:
    """What a message asked for was done, by a sync that `lasted` so long until now."""
    if _knows_published(conn):
        conn.execute(_SQL["end_published"], {"message": message, "tenancy": tenancy, "lasted": lasted})


def list_published(conn: Connection, limit: int, tenancy: UUID | None = None) -> list[PublishedMessage]:
    """Those that are under way, oldest first."""
    if not _knows_published(conn):
        return []
    rows = conn.execute(_SQL["list_published"], {"limit": limit, "tenancy": tenancy})
    return [PublishedMessage(*row) for row in rows]


def forget_published(conn: Connection, messages: Sequence[str]) -> None:
    """The service has given them up, and they were dealt with."""
    if _knows_published(conn):
        conn.execute(_SQL["forget_published"], {"messages": list(messages)})


def prune_published(conn: Connection) -> None:
    """Forget what ended, or was published, a day ago: no service repeats a message for so long unheard of."""
    if _knows_published(conn):
        conn.execute(_SQL["prune_published"])


def _knows_published(conn: Connection) -> bool:
    row = conn.execute(_SQL["published_exist"]).fetchone()
    return row is not None and row[0]


def _finish(conn: Connection, claims: Sequence[tuple[UUID, datetime]]) -> None:
    if claims:
        conn.execute(_SQL["finish_claims"], _columns(claims))


def _columns(claims: Sequence[tuple[UUID, datetime]]) -> dict[str, list[UUID] | list[datetime]]:
    return {"ids": [id_ for id_, _ in claims], "times": [claimed_at for _, claimed_at in claims]}
