"""Rows that one external database does not take: named, set aside, and tried again, while the others go on.

A row is recorded in the operated database before the cursor passes it, so that a kill in between loses nothing.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.types.json import Jsonb

from stackctl.errors import AnswerNo
from stackctl.sql import statements
from stackctl.sync.source import reading

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta
    from uuid import UUID

    from stackctl.db import Connection

CODE = "rows-refused"  # of a database that took everything but some rows

_SQL = statements("refused")

Key = list[str | None]  # the text of each key column, in order of the mapping's key; null where a tombstone lacks it


@dataclass(frozen=True)
class RefusedRow:
    """A row that was set aside; `error` is the reason that the database, or the mapping's statement, gave."""

    mapping: str
    key: Key
    error: str
    refused_at: datetime


def rows(conn: Connection, tenancy: UUID, database: str) -> list[RefusedRow]:
    """All rows that this database refuses, by mapping, oldest first."""
    with reading("the refused rows"):
        return [RefusedRow(*row) for row in conn.execute(_SQL["rows"], {"tenancy": tenancy, "database": database})]


def by_database(conn: Connection, tenancy: UUID | None) -> dict[tuple[UUID, str], list[RefusedRow]]:
    """The refused rows of all databases, of one tenancy or of all; no more than some thousands."""
    found: dict[tuple[UUID, str], list[RefusedRow]] = defaultdict(list)
    for owner, database, *row in conn.execute(_SQL["all_rows"], {"tenancy": tenancy}):
        found[owner, database].append(RefusedRow(*row))
    return found


def record(
    conn: Connection, tenancy: UUID, database: str, mapping: str, *, key: Key, sequence_id: int, error: str
) -> None:
    parameters = {"tenancy": tenancy, "database": database, "mapping": mapping}
    with reading("the refused rows"):
        conn.execute(_SQL["record"], parameters | {"key": Jsonb(key), "sequence_id": sequence_id, "error": error})


def claim_retry(conn: Connection, tenancy: UUID, database: str, mapping: str, pause: timedelta) -> list[Key]:
    """Keys of the rows that were last tried longer ago than `pause`; they count as tried now."""
    parameters = {"tenancy": tenancy, "database": database, "mapping": mapping, "pause": pause}
    with reading("the refused rows"):
        return [key for (key,) in conn.execute(_SQL["try"], parameters)]


def forget(conn: Connection, tenancy: UUID, database: str, mapping: str, keys: Sequence[Key] | None) -> None:
    """These rows went through; None: all of the mapping."""
    parameters = {"tenancy": tenancy, "database": database, "mapping": mapping}
    with reading("the refused rows"):
        if keys is None:
            conn.execute(_SQL["forget_mapping"], parameters)
        else:
            conn.execute(_SQL["forget"], parameters | {"keys": Jsonb(list(keys))})


def error(found: Sequence[RefusedRow]) -> AnswerNo:
    """What an attempt ends with that had to leave these rows out."""
    first = found[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return AnswerNo(
        f"the row {', '.join(map(str, first.key))} of {first.mapping} is refused: {first.error}{more}",
        code=CODE,
        hint="correct the row, or what the target does not take; it is tried again by itself and by `stackctl sync`",
        details={"rows": [{"mapping": row.mapping, "key": row.key, "error": row.error} for row in found[:100]]},
    )
