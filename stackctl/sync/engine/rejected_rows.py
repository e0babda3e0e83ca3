"""Rows that one external database does not take: named, quarantined, and tried again, while the others go on.

A row is recorded in the operated database before the cursor passes it, so that a kill in between loses nothing.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from psycopg.types.json import Jsonb

from stackctl.core.errors import AnswerNo, StackctlError
from stackctl.postgres.statements import load_statements
from stackctl.sync.engine.row_stream import PAGE_TOO_LARGE
from stackctl.sync.engine.source_errors import translate_source_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime, timedelta
    from uuid import UUID

    from stackctl.postgres.connect import Connection
    from stackctl.sync.engine.row_stream import Amount

ROWS_REJECTED = "rows-refused"  # of a database that took everything but some rows
ROW_REJECTED = "row-refused"  # of a batch with such a row
MAX_REJECTED = 100  # in one attempt; more of them are the fault of the table or the mapping
SHRINK_FACTOR = 8  # by which a page with a rejected row is cut

_SQL = load_statements(__file__)

_T = TypeVar("_T")

RejectedKey = list[
    str | None
]  # the text of each key column, in order of the mapping's key; null where a tombstone lacks it


@dataclass(frozen=True)
class RejectedRow:
    """A row in quarantine; `error` is the reason that the database, or the mapping's statement, gave."""

    mapping: str
    key: RejectedKey
    error: str
    refused_at: datetime


def list_rows(conn: Connection, tenancy: UUID, database: str) -> list[RejectedRow]:
    """All rows that this database rejects, by mapping, oldest first."""
    with translate_source_errors("the rejected rows"):
        return [
            RejectedRow(*row) for row in conn.execute(_SQL["list_rows"], {"tenancy": tenancy, "database": database})
        ]


def list_rows_by_database(conn: Connection, tenancy: UUID | None) -> dict[tuple[UUID, str], list[RejectedRow]]:
    """The rejected rows of all databases, of one tenancy or of all; no more than some thousands."""
    found: dict[tuple[UUID, str], list[RejectedRow]] = defaultdict(list)
    for owner, database, *row in conn.execute(_SQL["list_rows_by_tenancy"], {"tenancy": tenancy}):
        found[owner, database].append(RejectedRow(*row))
    return found


def record_row(
    conn: Connection, tenancy: UUID, database: str, mapping: str, *, key: RejectedKey, sequence_id: int, error: str
) -> None:
    parameters = {"tenancy": tenancy, "database": database, "mapping": mapping}
    with translate_source_errors("the rejected rows"):
        conn.execute(_SQL["record_row"], parameters | {"key": Jsonb(key), "sequence_id": sequence_id, "error": error})


def claim_retries(conn: Connection, tenancy: UUID, database: str, mapping: str, pause: timedelta) -> list[RejectedKey]:
    """Keys of the rows that were last tried longer ago than `pause`; they count as tried now."""
    parameters = {"tenancy": tenancy, "database": database, "mapping": mapping, "pause": pause}
    with translate_source_errors("the rejected rows"):
        return [key for (key,) in conn.execute(_SQL["claim_retries"], parameters)]


def read_versions(
    conn: Connection, tenancy: UUID, database: str, mapping: str, keys: Sequence[RejectedKey] | None
) -> list[tuple[RejectedKey, str]]:
    """What is recorded of these rows (None: of all of the mapping), to be forgotten once they went through.

    To be read under the lock of the cursor, before the source is.
    """
    parameters = {"tenancy": tenancy, "database": database, "mapping": mapping}
    with translate_source_errors("the rejected rows"):
        wanted = None if keys is None else Jsonb(list(keys))
        return conn.execute(_SQL["read_versions"], parameters | {"keys": wanted}).fetchall()


def forget_rows(
    conn: Connection, tenancy: UUID, database: str, mapping: str, versions: Sequence[tuple[RejectedKey, str]]
) -> None:
    """These rows went through, and the target has committed them. What was recorded since then stays."""
    parameters = {"tenancy": tenancy, "database": database, "mapping": mapping}
    with translate_source_errors("the rejected rows"):
        conn.execute(_SQL["forget_rows"], parameters | {"versions": Jsonb(list(versions))})


def to_error(rows: Sequence[RejectedRow]) -> AnswerNo:
    """What an attempt ends with that had to leave these rows out."""
    first = rows[0]
    more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
    return AnswerNo(
        f"the row {', '.join(map(str, first.key))} of {first.mapping} is rejected: {first.error}{more}",
        code=ROWS_REJECTED,
        hint="correct the row, or what the database does not take; it is tried again by itself and by `stackctl sync`",
        details={"rows": [{"mapping": row.mapping, "key": row.key, "error": row.error} for row in rows[:100]]},
    )


def join_errors(errors: Sequence[StackctlError]) -> StackctlError:
    """One for the rejected rows of several mappings: the first, with the rows of all."""
    first = errors[0]
    rows = [row for error in errors for row in error.details["rows"]]
    return AnswerNo(first.message, code=first.code, hint=first.hint, details={"rows": rows[:100]})


class PageSize:
    """How many rows to take next: ever fewer around a rejected row until it is alone, then more again.

    Of wide rows fewer, too.
    """

    def __init__(self, first: int, most: int) -> None:
        self.rows = min(first, most)
        self._most = most

    def after(self, amount: Amount | None = None) -> int:
        """What to take after a page of so much went through."""
        rows = min(self.rows * 2, self._most)
        return rows if amount is None else min(rows, amount.count_fitting())

    def grow(self, amount: Amount | None = None) -> None:
        self.rows = self.after(amount)

    def shrink(self, error: StackctlError) -> bool:
        """Whether the row was alone on the page that ended with `error`; raises an error that is not about a row."""
        if error.code not in (ROW_REJECTED, PAGE_TOO_LARGE):
            raise error
        alone = self.rows == 1
        self.rows = max(self.rows // SHRINK_FACTOR, 1)
        return alone


def isolate_rejected(keys: Sequence[_T], work: Callable[[Sequence[_T]], None]) -> Iterator[tuple[_T, StackctlError]]:
    """Do `work`, which is whole or absent, on all keys, page by page; yields those that are rejected."""
    size = PageSize(len(keys), len(keys))
    start = 0
    while start < len(keys):
        page = keys[start : start + size.rows]
        try:
            work(page)
        except StackctlError as error:
            if size.shrink(error):
                yield page[0], error
                start += 1
        else:
            start += len(page)
            size.grow()


class Quarantine:
    """Takes up the rejected rows of one mapping in one attempt; `count` of them so far."""

    def __init__(self, conn: Connection, tenancy: UUID, database: str, mapping: str) -> None:
        self._conn = conn
        self._of = tenancy, database, mapping
        self.count = 0

    def add_row(self, key: RejectedKey, sequence_id: int, error: StackctlError) -> None:
        """Record a row. Raises AnswerNo `too-many-refused`."""
        if self.count >= MAX_REJECTED:
            raise AnswerNo(
                f"{self._of[2]}: more than {MAX_REJECTED} rows are rejected, the last one: {error.message}",
                code="too-many-refused",
                hint="correct the table in the external database, or the mapping",
            )
        record_row(self._conn, *self._of, key=key, sequence_id=sequence_id, error=error.message)
        self.count += 1
