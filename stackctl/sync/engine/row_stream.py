"""Rows on their way from the operated database to a target.

One row may be hundreds of megabytes, and libpq holds two copies of a row that it hands over. So nobody here keeps a
piece any longer than it takes to pass it on, and a page of wide rows is given up in favour of a smaller one.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql

from stackctl.core.errors import AnswerNo
from stackctl.sync.engine.narrow_rows import NARROW, compose_parts
from stackctl.sync.engine.source_errors import translate_source_errors
from stackctl.sync.targets.protocol import BINARY, CSV

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from psycopg import Copy

    from stackctl.mapping.dialect import Dialect
    from stackctl.postgres.connect import Connection
    from stackctl.sync.engine.load_window import NumberedCopy

PIPE_BUFFER = 64 * 1024  # bytes between the two COPYs; a write for each row costs 10 to 20 %
CHUNK_BYTES = 1024 * 1024  # of tuples in memory at a time, and one row
FETCHED = 500  # narrow rows that libpq hands over at a time
LARGEST_PAGE = 256 * 1024 * 1024  # bytes of a page that has more than one row
# DuckDB has all that a transaction writes in memory when it commits, and once more for its log.
LARGEST_PAGES: dict[Dialect, int] = {"duckdb": 16 * 1024 * 1024}
WIDE_ROWS = 16 * 1024  # bytes a row, on the average, from which on a table is not loaded in one transaction

PAGE_TOO_LARGE = "page-too-large"


class Amount:
    """How much of a stream was read, which may be no more than a page for this kind of target has, or one row.

    Where the rows have less than `wide` bytes on the average it may be any number.
    """

    def __init__(self, dialect: Dialect, *, wide: int = 0) -> None:
        self._largest = LARGEST_PAGES.get(dialect, LARGEST_PAGE)
        self._wide = wide
        self.rows = self.bytes = 0

    def add(self, rows: int, size: int) -> None:
        """Raise AnswerNo `page-too-large`, which the engine answers with a smaller page."""
        self.rows += rows
        self.bytes += size
        if self.rows > 1 and self.bytes > max(self._largest, self.rows * self._wide):
            raise AnswerNo(f"a page of more than {self._largest // 1024 // 1024} MB", code=PAGE_TOO_LARGE)

    def count_fitting(self) -> int:
        """How many such rows make a page that is not too large even if some are wider."""
        return max(self.rows * self._largest // 4 // max(self.bytes, 1), 1)


@dataclass(frozen=True)
class RowStream:
    """Rows of one statement on the source, in the form that the target takes best. To be read once.

    `types` are those of the statement's columns, by PostgreSQL's names. `on_rows` hears how many more rows were read,
    every now and then. `repeatable`: a second statement sees the same rows.
    """

    conn: Connection
    statement: LiteralString
    parameters: Mapping[str, Any]
    mapping: str
    types: Sequence[str]
    amount: Amount
    on_rows: Callable[[int], None] = lambda rows: None
    repeatable: bool = False

    def read_binary(self) -> Iterator[bytes]:
        """The rows as PostgreSQL's binary COPY stream, unparsed, in pieces of about PIPE_BUFFER bytes, or one row."""
        return self._copy_out(BINARY, ends=1)

    def read_csv(self) -> Iterator[bytes]:
        """The same as CSV: null is nothing, every value is quoted."""
        return self._copy_out(CSV, ends=0)

    def _copy_out(self, options: LiteralString, *, ends: int) -> Iterator[bytes]:
        """`ends` is how many pieces the server sends besides the rows."""
        with self.open_copy(options) as copy:
            buffer = bytearray()
            rows = 0
            # The server sends a row at a time.
            while row := copy.read():
                rows += 1
                if len(row) < PIPE_BUFFER:
                    buffer += row
                    if len(buffer) < PIPE_BUFFER:
                        continue
                    pieces = [bytes(buffer)]
                else:  # bytes of bytes are no copy
                    pieces = [bytes(row), bytes(buffer)] if buffer else [bytes(row)]
                del row
                buffer.clear()
                self.amount.add(rows, sum(map(len, pieces)))
                while pieces:
                    yield pieces.pop()
                self.on_rows(rows)
                rows = 0
            rows = max(rows - ends, 0)
            self.amount.add(rows, len(buffer))
            yield bytes(buffer)
            self.on_rows(rows)

    def read_chunks(self, size: int) -> Iterator[list[tuple[Any, ...]]]:
        """The rows as tuples: at most `size` of them at a time, and no more after one that makes it CHUNK_BYTES."""
        if self.repeatable and psycopg.capabilities.has_stream_chunked():
            return self._read_narrow_first(size)
        return self._read_copied(size)

    def _read_narrow_first(self, size: int) -> Iterator[list[tuple[Any, ...]]]:
        """A plain SELECT costs a third of a COPY, but libpq hands over so many rows at a time, however wide they are.

        So it yields narrow rows, and of others nothing but their width: these come by a COPY, afterwards.
        """
        narrow, rest = compose_parts(self.statement, self.types)
        chunk: list[tuple[Any, ...]] = []
        taken = wide = 0
        with translate_source_errors(self.mapping), self.conn.cursor(binary=True) as cursor:
            for row in cursor.stream(narrow, self.parameters, size=FETCHED):
                if row[0] > NARROW:
                    wide += 1
                    continue
                chunk.append(row[1:])
                taken += row[0]
                if len(chunk) >= size or taken >= CHUNK_BYTES:
                    full, rows, chunk = [chunk], len(chunk), []
                    self.amount.add(rows, taken)
                    taken = 0
                    yield full.pop()
                    self.on_rows(rows)
            if chunk:
                self.amount.add(len(chunk), taken)
                yield chunk
                self.on_rows(len(chunk))
        if wide:
            yield from replace(self, statement=rest)._read_copied(size)

    def _read_copied(self, size: int) -> Iterator[list[tuple[Any, ...]]]:
        """One row after the other."""
        with self.open_copy(BINARY, parsed=True) as copy:
            copy.set_types(self.types)
            chunk: list[tuple[Any, ...]] = []
            taken = 0
            while data := copy.read():
                taken += len(data)
                # The first one stands behind a header, which is cut off.
                row = copy.formatter.parse_row(memoryview(data) if len(data) >= PIPE_BUFFER else data)
                del data
                if row is not None:
                    chunk.append(row)
                del row
                if len(chunk) >= size or taken >= CHUNK_BYTES:
                    full, rows, chunk = [chunk], len(chunk), []
                    self.amount.add(rows, taken)
                    taken = 0
                    yield full.pop()
                    self.on_rows(rows)
            if chunk:
                rows = len(chunk)
                self.amount.add(rows, taken)
                yield chunk
                self.on_rows(rows)

    @contextmanager
    def open_copy(self, options: LiteralString, *, parsed: bool = False) -> Iterator[Copy | NumberedCopy]:
        """The COPY of the rows. `parsed`: they are handed to its formatter one by one."""
        query = sql.SQL("COPY ({}) TO STDOUT ({})").format(sql.SQL(self.statement), sql.SQL(options))
        with (
            translate_source_errors(self.mapping),
            self.conn.cursor() as cursor,
            cursor.copy(query, self.parameters) as copy,
        ):
            yield copy

    def cancel(self) -> None:
        """From another thread: break off the statement."""
        with suppress(psycopg.Error):
            self.conn.cancel_safe()
