"""What people have switched off within the poller: a tenancy, an external database, a mapping, or where these meet.

What is paused is not tried, and has not failed. What changes meanwhile stays above the cursors, and is sent when it is
switched on again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackctl.postgres.statements import load_statements
from stackctl.sync.queue import entries, retries

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime
    from uuid import UUID

    from stackctl.postgres.connect import Connection

_SQL = load_statements(__file__)


@dataclass(frozen=True)
class Pause:
    """One that stands; None for a tenancy, database or mapping stands for all of them."""

    tenancy: UUID | None
    database: str | None
    mapping: str | None
    reason: str | None
    paused_by: str
    paused_at: datetime

    def covers(self, tenancy: UUID, database: str, mapping: str | None = None) -> bool:
        """Whether all of this is paused by it; without a `mapping`, the database as a whole."""
        return self.tenancy in (None, tenancy) and self.database in (None, database) and self.mapping in (None, mapping)


def list_pauses(conn: Connection) -> list[Pause]:
    """All that stand, oldest first."""
    return [Pause(*row) for row in conn.execute(_SQL["list_pauses"])]


def find_pause(pauses: Iterable[Pause], tenancy: UUID, database: str, mapping: str | None = None) -> Pause | None:
    """The oldest that covers this."""
    return next((one for one in pauses if one.covers(tenancy, database, mapping)), None)


def add(
    conn: Connection,
    tenancy: UUID | None,
    database: str | None,
    mapping: str | None,
    *,
    reason: str | None,
    by: str,
) -> bool:
    """Switch this off; False if it was, by whoever that was."""
    values = {"tenancy": tenancy, "database": database, "mapping": mapping, "reason": reason, "by": by}
    return conn.execute(_SQL["add_pause"], values).rowcount == 1


def remove(
    conn: Connection,
    tenancy: UUID | None,
    database: str | None,
    mapping: str | None,
    held: Collection[tuple[UUID, str]],
) -> bool:
    """Switch this on again, and queue the databases that it `held` up, failing ones at once; False if it was not off.

    That commits together: nothing that was passed over waits for the sweep.
    """
    with conn.transaction():
        values = {"tenancy": tenancy, "database": database, "mapping": mapping}
        found = conn.execute(_SQL["remove_pause"], values).rowcount == 1
        if found:
            retries.retry_now(conn, sorted(held))
            entries.enqueue(conn, entries.find_existing_tenancies(conn, {tenancy for tenancy, _ in held}))
    return found
