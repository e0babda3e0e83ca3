"""Whether the sequence stands above every stamp that rows carry.

After a cut-over by logical replication, or a restored dump, the rows have their stamps and the sequence begins anew.
Ids given then would lie below the cursors, and be skipped for ever, or collide with those that rows carry. Cursors are
of a tenancy: one that has no stamps above the sequence is not concerned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from stackctl.core.errors import StateError
from stackctl.postgres.statements import load_statements
from stackctl.sync.changes.sequenced_tables import list_owned_tables

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from uuid import UUID

    from stackctl.mapping.model import Mapping
    from stackctl.postgres.connect import Connection

_SQL = load_statements(__file__, "sequencer")


def find_tenancies_ahead(
    conn: Connection, mappings: Iterable[Mapping], tenancies: Collection[UUID] | None = None
) -> dict[UUID, int]:
    """Those of the tenancies (None: of all) with a stamp that the sequence has yet to give, and their highest stamp.

    One step in an index for each tenancy and table. Rows that were stamped in the transaction in hand do not count as
    ahead: the sequence was moved for them.
    """
    highest = sql.SQL(" UNION ALL ").join(
        sql.SQL(_SQL["read_highest_stamp"]).format(
            table=sql.Identifier(one.sequenced.table), owned=one.condition, filter=one.filter, each=one.each
        )
        for one in list_owned_tables(mappings)
    )
    query = sql.SQL(_SQL["find_tenancies_ahead"]).format(highest)
    rows = conn.execute(query, {"tenancies": None if tenancies is None else list(tenancies)}).fetchall()
    return dict(rows)


def refuse_low_sequence(
    conn: Connection, mappings: Iterable[Mapping], tenancies: Collection[UUID] | None = None
) -> None:
    """Raise StateError `sequence-behind`, with the statement that corrects it, if any of the tenancies is ahead."""
    if find_tenancies_ahead(conn, mappings, tenancies):
        raise to_behind_error(conn, mappings)


def to_behind_error(conn: Connection, mappings: Iterable[Mapping]) -> StateError:
    """What to tell once tenancies are known to be ahead: the sequence must be set above the stamps of all of them."""
    ahead = find_tenancies_ahead(conn, mappings)
    highest = max(ahead.values(), default=0)
    of = "tenancy" if len(ahead) == 1 else "tenancies"
    return StateError(
        f"global_seq_id is behind the ids that rows carry (up to {highest}, of {len(ahead)} {of}): it was not"
        " taken along when the database was restored or moved",
        code="sequence-behind",
        hint=f"SELECT setval('global_seq_id', {highest})",
        details={"highest_sequence_id": highest, "tenancies": [str(tenancy) for tenancy in ahead]},
    )
