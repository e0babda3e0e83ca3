"""In which place the operated database lives: after a fail-over or a restore, copies may be ahead of it.

A standby that is promoted may lack the last transactions of the server before it: ids that copies have seen, and rows.
Soon it gives these ids again, and nothing tells them from the ones before. So each place is written down in the
database itself, with the highest id known there, *before* ids are given in it; and beside each copy stands the place
that feeds it. A copy whose place is not the present one can thus be judged at any later time, also by a target that was
away for days.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from stackctl.postgres.statements import load_statements
from stackctl.sync.changes.sequenced_tables import list_owned_tables

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stackctl.mapping.model import Mapping
    from stackctl.postgres.connect import Connection

_SQL = load_statements(__file__)


@dataclass(frozen=True)
class Place:
    """Where the database lives. `identity` is None where the server does not tell: nothing is noticed then.

    `before`: where it lived until just now, if it was moved.
    """

    identity: str | None
    before: str | None = None


def notice_place(conn: Connection, mappings: Iterable[Mapping]) -> Place:
    """Write down where the database lives, unless that is known, with the highest id that its rows carry.

    To be called before ids are given, and again whenever the server behind the connection may be another one.
    """
    identity, noticed = _read_place(conn)
    if identity is None or identity == noticed:
        return Place(identity)
    with conn.transaction():
        conn.execute(_SQL["lock_history"])
        identity, noticed = _read_place(conn)
        if identity is None or identity == noticed:
            return Place(identity)
        known = [
            sql.SQL(_SQL["read_highest_stamp"]).format(sql.Identifier(one.sequenced.table))
            for one in list_owned_tables(mappings)
        ]
        query = sql.SQL(_SQL["add_place"]).format(sql.SQL(" UNION ALL ").join([
            sql.SQL(_SQL["read_highest_logged"]), *known
        ]))  # fmt: skip
        conn.execute(query, {"identity": identity})
    return Place(identity, noticed)


def _read_place(conn: Connection) -> tuple[str | None, str | None]:
    row = conn.execute(_SQL["read_place"]).fetchone()
    assert row is not None
    return row


def find_last_common_id(conn: Connection, identity: str) -> int | None:
    """The highest id that the database shares with what it was in another place; None: it never lived there."""
    row = conn.execute(_SQL["find_last_common_id"], {"identity": identity}).fetchone()
    return row[0] if row else None
