"""Rows on their way from the operated database to a target, and the errors of reading them."""

from __future__ import annotations

import queue as queues
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql

from stackctl.core.errors import AnswerNo, ServiceError
from stackctl.postgres.errors import translate_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stackctl.postgres.connect import Connection

PIPE_BUFFER = 64 * 1024  # bytes between the two COPYs; a write for each row costs 10 to 20 %


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


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Errors of the operated database as the engine tells them apart: it is lost, a value is bad, or the rest."""
    try:
        yield
    except psycopg.Error as error:
        inner = translate_error(error, "the operated database")
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
