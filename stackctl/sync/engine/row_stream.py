"""Rows on their way from the operated database to a target."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql

from stackctl.sync.engine.source_errors import translate_source_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stackctl.postgres.connect import Connection

PIPE_BUFFER = 64 * 1024  # bytes between the two COPYs; a write for each row costs 10 to 20 %


@dataclass(frozen=True)
class RowStream:
    """Rows of one statement on the source, in the form that the target takes best. To be read once.

    `on_rows` hears how many more rows were read, every now and then.
    """

    conn: Connection
    statement: LiteralString
    parameters: Mapping[str, Any]
    mapping: str
    on_rows: Callable[[int], None]

    def read_binary(self) -> Iterator[bytes]:
        """The rows as PostgreSQL's binary COPY stream, unparsed, in pieces of about PIPE_BUFFER bytes."""
        return self._copy_out("FORMAT binary", ends=1)

    def read_csv(self) -> Iterator[bytes]:
        """The rows as CSV, unparsed, in pieces of about PIPE_BUFFER bytes: null is nothing, every value is quoted."""
        return self._copy_out("FORMAT csv, FORCE_QUOTE *", ends=0)

    def _copy_out(self, options: LiteralString, *, ends: int) -> Iterator[bytes]:
        """`ends` is how many pieces the server sends besides the rows."""
        query = sql.SQL("COPY ({}) TO STDOUT ({})").format(sql.SQL(self.statement), sql.SQL(options))
        with (
            translate_source_errors(self.mapping),
            self.conn.cursor() as cursor,
            cursor.copy(query, self.parameters) as copy,
        ):
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

    def read_chunks(self, size: int) -> Iterator[list[tuple[Any, ...]]]:
        """The rows as tuples, at most `size` of them in memory at a time."""
        fetched = size if psycopg.capabilities.has_stream_chunked() else 1
        with translate_source_errors(self.mapping), self.conn.cursor() as cursor:
            rows = cursor.stream(self.statement, self.parameters, size=fetched)
            while chunk := list(islice(rows, size)):
                yield chunk
                self.on_rows(len(chunk))

    def cancel(self) -> None:
        """From another thread: break off the statement."""
        with suppress(psycopg.Error):
            self.conn.cancel_safe()
