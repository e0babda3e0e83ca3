"""Reading the operated database for the engine: batches of keys joined to the mapping as of now, and whole loads."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from stackctl.postgres.statements import load_statements
from stackctl.sync.changes.sequence_position import refuse_low_sequence
from stackctl.sync.changes.source_identity import find_last_common_id, notice_place
from stackctl.sync.engine.load_window import LoadLimits, LoadPage, NumberedCopy
from stackctl.sync.engine.row_stream import WIDE_ROWS, Amount, RowStream
from stackctl.sync.engine.source_errors import OperatedDatabaseLost, translate_source_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from uuid import UUID

    from stackctl.mapping.compile import Compiled
    from stackctl.mapping.model import Mapping
    from stackctl.postgres.connect import Connection
    from stackctl.sync.engine.rejected_rows import RejectedKey

REPLICA_WAIT = 60.0  # seconds for a replica to replay past the primary's position
REPLICA_POLL = 0.02  # seconds
FLUSH_AFTER = 0.1  # seconds after which the primary is made to write out the end of its log, in case nobody else does

_SQL = load_statements(__file__)
_SELECT_NUMBER: LiteralString = "SELECT {number} WHERE ({oldest}) IS NOT NULL"


class Source:
    """The operated database for one worker: the primary, and the replica that is read when there is one.

    `mappings` are all that the pipeline has. Both connections are in autocommit mode. Raises OperatedDatabaseLost, and
    AnswerNo `mapping-failed` for whatever else goes wrong with a mapping's statement.
    """

    def __init__(self, primary: Connection, mappings: Iterable[Mapping], replica: Connection | None = None) -> None:
        self.primary = primary
        self._mappings = mappings
        self._reader = replica or primary
        self._replicated = replica is not None

    def wait_for_replica(self) -> None:
        """Wait until what is read shows everything that was committed on the primary before this call.

        Raises OperatedDatabaseLost `replica-lags` when the replica does not get there in time.
        """
        if not self._replicated:
            return
        with translate_source_errors("the replica"):
            row = self.primary.execute(_SQL["read_primary_position"]).fetchone()
            started, flushed = time.monotonic(), False
            while True:
                seen = self._reader.execute(_SQL["has_replayed"], {"position": row[0] if row else None}).fetchone()
                if seen and seen[0]:
                    return
                waited = time.monotonic() - started
                if waited >= FLUSH_AFTER and not flushed:
                    self.primary.execute(_SQL["flush_log"])
                    flushed = True
                if waited >= REPLICA_WAIT:
                    raise OperatedDatabaseLost(
                        f"the replica did not catch up with the primary in {REPLICA_WAIT:.0f} s",
                        code="replica-lags",
                        hint="check replication, or take database.replica_url out of the configuration",
                    )
                time.sleep(REPLICA_POLL)

    def refuse_low_sequence(self, compiled: Iterable[Compiled], tenancy: UUID) -> None:
        """Raise StateError `sequence-behind` if the tenancy's rows carry ids that the sequence has yet to give."""
        with translate_source_errors("global_seq_id"):
            refuse_low_sequence(self.primary, [one.mapping for one in compiled], [tenancy])

    def read_last_sequence_id(self) -> int:
        """The highest sequence id ever given; 0 before the first."""
        with translate_source_errors("global_seq_id"):
            row = self.primary.execute(_SQL["read_last_sequence_id"]).fetchone()
        return row[0] if row else 0

    def read_position(self) -> tuple[int, str | None]:
        """The highest sequence id ever given, and where the database lives (see changes/source_identity.py)."""
        with translate_source_errors("global_seq_id"):
            row = self.primary.execute(_SQL["read_position"]).fetchone()
            assert row is not None
            last, identity, noticed = row
            if identity != noticed:
                identity = notice_place(self.primary, self._mappings).identity
        return last, identity

    def find_last_common_id(self, identity: str) -> int | None:
        """The highest id that the database shares with what it was when it lived elsewhere; None: it never did."""
        with translate_source_errors("the source's history"):
            return find_last_common_id(self.primary, identity)

    def read_highest_stamp(self, compiled: Compiled, tenancy: UUID) -> int:
        """The tenancy's highest id, over the mapping's rows and tombstones; 0 when there is none."""
        with translate_source_errors(compiled.mapping.name):
            row = self._reader.execute(compiled.high_water, {"tenancy_id": tenancy}).fetchone()
        return (row[0] if row else None) or 0

    def find_changed_mappings(self, compiled: Sequence[Compiled], tenancy: UUID, cursors: dict[str, int]) -> set[str]:
        """Names of the mappings that have anything above their cursor; one statement for all of them."""
        selects: list[LiteralString] = []
        parameters: dict[str, Any] = {"tenancy_id": tenancy}
        for number, one in enumerate(compiled):
            oldest = one.oldest_unsent.replace("%(cursor)s", f"%(at_{number})s")
            selects.append(cast("LiteralString", _SELECT_NUMBER.format(number=number, oldest=oldest)))
            parameters[f"at_{number}"] = cursors[one.mapping.name]
        with translate_source_errors("the mappings"):
            found = self._reader.execute(" UNION ALL ".join(selects), parameters).fetchall()
        return {compiled[number].mapping.name for (number,) in found}

    def open_batch(
        self, compiled: Compiled, tenancy: UUID, cursor: int, limit: int, on_rows: Callable[[int], None]
    ) -> RowStream:
        """Up to `limit` keys above the cursor with their rows as of now. Keys and rows are of one snapshot."""
        return self._open(compiled, compiled.fetch, _at(tenancy, cursor) | {"limit": limit}, on_rows)

    def open_rows_by_key(self, compiled: Compiled, tenancy: UUID, keys: Sequence[RejectedKey]) -> RowStream:
        """The same for keys that are named, whether their rows exist or not."""
        parameters = {"tenancy_id": tenancy, "keys": Jsonb(list(keys))}
        return self._open(compiled, compiled.by_key, parameters)

    def _open(
        self,
        compiled: Compiled,
        statement: LiteralString,
        parameters: dict[str, Any],
        on_rows: Callable[[int], None] = lambda rows: None,
    ) -> RowStream:
        """A page of keys with their rows."""
        types = ("int8", "bool", *compiled.streamed_types)
        amount = Amount(compiled.dialect)
        return RowStream(self._reader, statement, parameters, compiled.mapping.name, types, amount, on_rows)

    def find_load_bound(
        self, compiled: Compiled, tenancy: UUID, cursor: int, limit: int, passed: int
    ) -> tuple[int | None, int]:
        """See `Compiled.load_bound`."""
        asked = _at(tenancy, cursor) | {"limit": limit, "passed": passed}
        with translate_source_errors(compiled.mapping.name):
            row = self._reader.execute(compiled.load_bound, asked).fetchone()
        return row or (None, 0)

    def read_load_window(
        self,
        compiled: Compiled,
        tenancy: UUID,
        cursor: int,
        limits: LoadLimits,
        options: LiteralString,
        on_rows: Callable[[int], None],
    ) -> Generator[LoadPage, None, int | None]:
        """The pages of the rows above the cursor in order of their ids, all as of now; each is to be read to its end.

        As long as it goes on the source keeps what it deletes. Returns the id up to which it went; None when fewer rows
        than a page are left, or come before the next tombstone, or when some of them may have to go.
        """
        name, types, statement = compiled.mapping.name, compiled.streamed_types, compiled.load_window
        if limits.merged:
            types, statement = ("int8", "bool", *types), compiled.fetch_window
        with self.open_snapshot(name) as conn:
            conn.execute(_SQL["plan_for_all"])
            up_to, rows = self.find_load_bound(compiled, tenancy, cursor, limits.window, limits.passed)
            if rows < limits.page:
                return None
            asked = _at(tenancy, cursor) | {"up_to": up_to}
            if not limits.merged and not limits.fresh and _count(conn, compiled.load_window, asked) < rows:
                return None
            stream = RowStream(conn, statement, asked, name, types, Amount(compiled.dialect))
            with stream.open_copy(options) as copy:
                numbered = NumberedCopy(copy, len(types), options)
                while numbered.has_more():
                    amount = Amount(compiled.dialect, wide=WIDE_ROWS)
                    yield LoadPage(
                        conn, statement, asked, name, types, amount, on_rows, copy=numbered, rows=limits.page
                    )
        return up_to

    def open_unstamped(self, compiled: Compiled, tenancy: UUID, on_rows: Callable[[int], None]) -> RowStream:
        """The rows that have no sequence id yet."""
        return self._open_load(compiled, compiled.load_unstamped, {"tenancy_id": tenancy}, on_rows)

    def _open_load(
        self, compiled: Compiled, statement: LiteralString, asked: dict[str, Any], on_rows: Callable[[int], None]
    ) -> RowStream:
        amount = Amount(compiled.dialect, wide=WIDE_ROWS)
        name = compiled.mapping.name
        return RowStream(self._reader, statement, asked, name, compiled.streamed_types, amount, on_rows)

    def find_next_key(self, compiled: Compiled, tenancy: UUID, cursor: int) -> tuple[RejectedKey, int] | None:
        """The first key above the cursor, as text, and its sequence id."""
        with translate_source_errors(compiled.mapping.name):
            return self._reader.execute(compiled.next_key, _at(tenancy, cursor)).fetchone()

    @contextmanager
    def open_all_rows(
        self, compiled: Compiled, tenancy: UUID, on_rows: Callable[[int], None]
    ) -> Iterator[tuple[RowStream, int]]:
        """All rows of the mapping in one stream, and the cursor that goes with them.

        The cursor is this tenancy's highest stamp, over rows and tombstones, in the very snapshot that the rows are
        read from: everything at or below it is visible there (see sequencer.py on order).
        """
        name = compiled.mapping.name
        with translate_source_errors(name), self._reader.transaction():
            self._reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            self._reader.execute(_SQL["plan_for_all"])
            highest = self.read_highest_stamp(compiled, tenancy)
            asked = {"tenancy_id": tenancy}
            amount = Amount(compiled.dialect, wide=WIDE_ROWS)
            types = compiled.streamed_types
            yield RowStream(self._reader, compiled.load, asked, name, types, amount, on_rows, repeatable=True), highest

    @contextmanager
    def open_snapshot(self, what: str) -> Iterator[Connection]:
        """The connection that is read, for several statements that see one moment."""
        with translate_source_errors(what), self._reader.transaction():
            self._reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield self._reader

    def cancel_statement(self) -> None:
        """From another thread: break off the statement in hand."""
        with suppress(psycopg.Error):
            self._reader.cancel_safe()

    def close(self) -> None:
        self.primary.close()
        self._reader.close()


def _count(conn: Connection, statement: LiteralString, parameters: dict[str, Any]) -> int:
    counting = sql.SQL("SELECT count(*) FROM ({}) AS rows").format(sql.SQL(statement))
    row = conn.execute(counting, parameters).fetchone()
    return row[0] if row else 0


def _at(tenancy: UUID, cursor: int) -> dict[str, Any]:
    return {"tenancy_id": tenancy, "cursor": cursor}
