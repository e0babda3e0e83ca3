"""Rows that one external database does not take: named, set aside, and tried again, while the others go on.

A row is recorded in the operated database before the cursor passes it, so that a kill in between loses nothing.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from psycopg.types.json import Jsonb

from stackctl.core.errors import AnswerNo, StackctlError
from stackctl.postgres.statements import load_statements
from stackctl.sync.streams import reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime, timedelta
    from uuid import UUID

    from stackctl.postgres.connect import Connection

CODE = "rows-refused"  # of a database that took everything but some rows
ONE = "row-refused"  # of a batch with such a row
MAX_REFUSED = 100  # rows set aside in one attempt; more of them are the fault of the table or the mapping
FANOUT = 8  # parts that a batch with a refused row is split into

_SQL = load_statements(__file__)

_T = TypeVar("_T")

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


class PageSize:
    """How many rows to ask for next: ever fewer around a refused row until it is alone, then more again."""

    def __init__(self, first: int, most: int) -> None:
        self.rows = min(first, most)
        self._most = most

    def grow(self) -> None:
        self.rows = min(self.rows * 2, self._most)

    def shrink(self, error: StackctlError) -> bool:
        """Whether the refused row was alone on the page that ended with `error`; raises one that is not about a row."""
        if error.code != ONE:
            raise error
        alone = self.rows == 1
        self.rows = max(self.rows // FANOUT, 1)
        return alone


def around(keys: Sequence[_T], work: Callable[[Sequence[_T]], None]) -> Iterator[tuple[_T, StackctlError]]:
    """Do `work`, which is whole or absent, on all keys in as few parts as it takes; yields those that are refused."""
    try:
        work(keys)
    except StackctlError as error:
        if error.code != ONE:
            raise
        if len(keys) == 1:
            yield keys[0], error
            return
        part = -(-len(keys) // FANOUT)
        for start in range(0, len(keys), part):
            yield from around(keys[start : start + part], work)


class Aside:
    """Sets rows of one mapping aside in one attempt; `count` of them so far."""

    def __init__(self, conn: Connection, tenancy: UUID, database: str, mapping: str) -> None:
        self._conn = conn
        self._of = tenancy, database, mapping
        self.count = 0

    def add(self, key: Key, sequence_id: int, error: StackctlError) -> None:
        """Record a row. Raises AnswerNo `too-many-refused`."""
        if self.count >= MAX_REFUSED:
            raise AnswerNo(
                f"{self._of[2]}: more than {MAX_REFUSED} rows are refused, the last one: {error.message}",
                code="too-many-refused",
                hint="correct the target table or the mapping",
            )
        record(self._conn, *self._of, key=key, sequence_id=sequence_id, error=error.message)
        self.count += 1
