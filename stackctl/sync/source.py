"""Reading the operated database for the engine: batches of keys joined to the mapping as of now, and whole loads."""

from __future__ import annotations

import queue as queues
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from stackctl.db import translate
from stackctl.errors import AnswerNo, ServiceError
from stackctl.sql import statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from uuid import UUID

    from stackctl.db import Connection
    from stackctl.mapping.compile import Compiled
    from stackctl.sync.refused import Key

REPLICA_WAIT = 60.0  # seconds for a replica to replay past the primary's position
REPLICA_POLL = 0.02  # seconds
PIPE_BUFFER = 64 * 1024  # bytes between the two COPYs; a write for each row costs 10 to 20 %

_SQL = statements("source")
_NEWS: LiteralString = "SELECT {number} WHERE ({oldest}) IS NOT NULL"


@dataclass(frozen=True)
class Stream:
    """Rows of one statement on the source, in the form that the target takes best. To be read once.

    `on_rows` hears how many more rows were read, every now and then.
    """

    conn: Connection
    statement: LiteralString
    parameters: Mapping[str, Any]
    mapping: str
    on_rows: Callable[[int], None]

    def binary(self) -> Iterator[bytes]:
        """The rows as PostgreSQL's binary COPY stream, unparsed, in pieces of about PIPE_BUFFER bytes."""
        return self._copied("FORMAT binary", ends=1)

    def csv(self) -> Iterator[bytes]:
        """The rows as CSV, unparsed, in pieces of about PIPE_BUFFER bytes: null is nothing, every value is quoted."""
        return self._copied("FORMAT csv, FORCE_QUOTE *", ends=0)

    def _copied(self, options: LiteralString, *, ends: int) -> Iterator[bytes]:
        """`ends` is how many pieces the server sends besides the rows."""
        query = sql.SQL("COPY ({}) TO STDOUT ({})").format(sql.SQL(self.statement), sql.SQL(options))
        with reading(self.mapping), self.conn.cursor() as cursor, cursor.copy(query, self.parameters) as copy:
            buffer = bytearray()
            rows = 0
            # The server sends a row at a time.
            for row in copy:
                buffer += row
                rows += 1
                if len(buffer) >= PIPE_BUFFER:
                    yield bytes(buffer)
                    self.on_rows(rows)
                    buffer.clear()
                    rows = 0
            yield bytes(buffer)
            self.on_rows(max(rows - ends, 0))

    def chunks(self, size: int) -> Iterator[list[tuple[Any, ...]]]:
        """The rows as tuples, at most `size` of them in memory at a time."""
        fetched = size if psycopg.capabilities.has_stream_chunked() else 1
        with reading(self.mapping), self.conn.cursor() as cursor:
            rows = cursor.stream(self.statement, self.parameters, size=fetched)
            while chunk := list(islice(rows, size)):
                yield chunk
                self.on_rows(len(chunk))


@dataclass(frozen=True)
class Form:
    """How a kind of target takes a stream, and how many pieces of it may be read ahead."""

    read: Callable[[Stream], Iterator[Any]]
    depth: int


class Ahead:
    """A stream that a thread of its own reads before it is asked for, in one form.

    Its connection must not be used otherwise until the end was reached or `discard` has returned.
    """

    def __init__(self, stream: Stream, form: Form) -> None:
        self._stream = stream
        self._form = form
        self._pieces: queues.Queue[Any] = queues.Queue(form.depth)
        self._unwanted = threading.Event()
        self._thread = threading.Thread(target=self._work, name="stackctl-ahead", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            for piece in self._form.read(self._stream):
                self._pieces.put(piece)
                if self._unwanted.is_set():
                    break
        except BaseException as error:  # noqa: BLE001 - raised where the pieces are taken
            self._pieces.put(error)
        else:
            self._pieces.put(None)

    def binary(self) -> Iterator[bytes]:
        return self._taken()

    def csv(self) -> Iterator[bytes]:
        return self._taken()

    def chunks(self, size: int) -> Iterator[list[tuple[Any, ...]]]:
        """In chunks of the size that was read, whatever `size` says."""
        return self._taken()

    def _taken(self) -> Iterator[Any]:
        while (piece := self._pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def discard(self) -> None:
        """Give up what was not taken; returns once the connection is free."""
        self._unwanted.set()
        while self._thread.is_alive():
            with suppress(queues.Empty):
                self._pieces.get(timeout=0.01)
        self._thread.join()


_PASSING = ("deadlock", "lock-timeout", "statement-timeout", "out-of-resources")


class OperatedDatabaseLost(ServiceError):
    """The operated database went away, or its replica lags: not the fault of the external database at hand."""


class Source:
    """The operated database for one worker: the primary, and the replica that is read when there is one.

    Both connections are in autocommit mode. Raises OperatedDatabaseLost, and AnswerNo `mapping-failed` for whatever
    else goes wrong with a mapping's statement.
    """

    def __init__(self, primary: Connection, replica: Connection | None = None) -> None:
        self.primary = primary
        self._reader = replica or primary
        self._replicated = replica is not None

    def catch_up(self) -> None:
        """Wait until what is read shows everything that was committed on the primary before this call.

        Raises OperatedDatabaseLost `replica-lags` when the replica does not get there in time.
        """
        if not self._replicated:
            return
        with reading("the replica"):
            row = self.primary.execute(_SQL["primary_position"]).fetchone()
            deadline = time.monotonic() + REPLICA_WAIT
            while True:
                seen = self._reader.execute(_SQL["replayed"], {"position": row[0] if row else None}).fetchone()
                if seen and seen[0]:
                    return
                if time.monotonic() >= deadline:
                    raise OperatedDatabaseLost(
                        f"the replica did not catch up with the primary in {REPLICA_WAIT:.0f} s",
                        code="replica-lags",
                        hint="check replication, or take database.replica_url out of the configuration",
                    )
                time.sleep(REPLICA_POLL)

    def last_sequence_id(self) -> int:
        """The highest sequence id ever given; 0 before the first."""
        with reading("global_seq_id"):
            row = self.primary.execute(_SQL["last_sequence_id"]).fetchone()
        return row[0] if row else 0

    def with_news(self, compiled: Sequence[Compiled], tenancy: UUID, cursors: Mapping[str, int]) -> set[str]:
        """Names of the mappings that have anything above their cursor; one statement for all of them."""
        arms: list[LiteralString] = []
        parameters: dict[str, Any] = {"tenancy_id": tenancy}
        for number, one in enumerate(compiled):
            oldest = one.oldest_unsent.replace("%(cursor)s", f"%(at_{number})s")
            arms.append(cast("LiteralString", _NEWS.format(number=number, oldest=oldest)))
            parameters[f"at_{number}"] = cursors[one.mapping.name]
        with reading("the mappings"):
            found = self._reader.execute(" UNION ALL ".join(arms), parameters).fetchall()
        return {compiled[number].mapping.name for (number,) in found}

    def batch(
        self, compiled: Compiled, tenancy: UUID, cursor: int, limit: int, on_rows: Callable[[int], None]
    ) -> Stream:
        """Up to `limit` keys above the cursor with their rows as of now. Keys and rows are of one snapshot."""
        statement = compiled.fetch
        return Stream(self._reader, statement, _at(tenancy, cursor) | {"limit": limit}, compiled.mapping.name, on_rows)

    def by_key(self, compiled: Compiled, tenancy: UUID, keys: Sequence[Key]) -> Stream:
        """The same for keys that are named, whether their rows exist or not."""
        parameters = {"tenancy_id": tenancy, "keys": Jsonb(list(keys))}
        return Stream(self._reader, compiled.by_key, parameters, compiled.mapping.name, lambda rows: None)

    def next_key(self, compiled: Compiled, tenancy: UUID, cursor: int) -> tuple[Key, int] | None:
        """The first key above the cursor, as text, and its sequence id."""
        with reading(compiled.mapping.name):
            return self._reader.execute(compiled.next_key, _at(tenancy, cursor)).fetchone()

    @contextmanager
    def load(self, compiled: Compiled, tenancy: UUID, on_rows: Callable[[int], None]) -> Iterator[tuple[Stream, int]]:
        """All rows of the mapping in one stream, and the cursor that goes with them.

        The cursor is this tenancy's highest stamp, over rows and tombstones, in the very snapshot that the rows are
        read from: everything at or below it is visible there (see sequencer.py on order).
        """
        name = compiled.mapping.name
        with reading(name), self._reader.transaction():
            self._reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            # Everything is read: on tables that were filled and never analysed, a nested loop would be quadratic.
            self._reader.execute("SET LOCAL enable_nestloop = off")
            row = self._reader.execute(compiled.high_water, {"tenancy_id": tenancy}).fetchone()
            highest = row[0] if row and row[0] is not None else 0
            yield (
                Stream(self._reader, compiled.load, {"tenancy_id": tenancy}, name, on_rows),
                highest,
            )

    @contextmanager
    def snapshot(self, what: str) -> Iterator[Connection]:
        """The connection that is read, for several statements that see one moment."""
        with reading(what), self._reader.transaction():
            self._reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield self._reader

    def cancel(self) -> None:
        """From another thread: break off the statement in hand."""
        with suppress(psycopg.Error):
            self._reader.cancel_safe()

    def close(self) -> None:
        self.primary.close()
        self._reader.close()


def _at(tenancy: UUID, cursor: int) -> dict[str, Any]:
    return {"tenancy_id": tenancy, "cursor": cursor}


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Errors of the operated database as the engine tells them apart: it is lost, a value is bad, or the rest."""
    try:
        yield
    except psycopg.Error as error:
        inner = translate(error, "the operated database")
        if _lost(error):
            raise OperatedDatabaseLost(inner.message, code=inner.code, hint=inner.hint) from error
        if inner.code in _PASSING:
            raise inner from error  # not the mapping's fault; tried again
        if (error.sqlstate or "").startswith("22"):
            raise AnswerNo(f"{what} can't be read: {inner.message}", code="row-refused", hint=inner.hint) from error
        raise AnswerNo(f"{what} can't be read: {inner.message}", code="mapping-failed", hint=inner.hint) from error


def _lost(error: psycopg.Error) -> bool:
    # Class 08 and 57P say that the server or the connection is gone; without a SQLSTATE only the connection can be.
    state = error.sqlstate
    return isinstance(error, psycopg.OperationalError) and (state is None or state.startswith(("08", "57P")))
