"""How DuckDB reads rows that PostgreSQL writes as CSV: through a pipe, and every value as it is or not at all."""

# ruff: noqa: S608 - DuckDB has no composer of names: they are quoted here, values come through the pipe.

from __future__ import annotations

import os
import select
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stackctl.mapping.sql_text import quote, quote_literal
from stackctl.mapping.target_statements import TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from stackctl.mapping.model import Column

ROOM_POLL = 100  # milliseconds after which a writer looks whether it is still wanted
BUFFERED = 2  # rows of the largest size in one buffer
NARROW = 1024 * 1024  # bytes of the rows that are read together; a wider one is read alone
PART = 16 * 1024 * 1024  # bytes for one statement: DuckDB holds 2,048 rows in memory, however wide they are
LARGEST_ROW = 32 * 1024 * 1024  # bytes of CSV
TOO_LARGE = f"DuckDB can't read a row; the largest has {LARGEST_ROW // 1024 // 1024} MB"
# Read as text first: DuckDB rounds a number that is too precise, takes BC for AD, and knows no `infinity+00`.
_CHECKED = {
    "numeric": "CASE WHEN length(rtrim(split_part({0}, '.', 2), '0')) > 10"
    " THEN error('more than ten decimal places') ELSE {0}::DECIMAL(38, 10) END",
    "date": "CASE WHEN {0} LIKE '%BC' THEN error('a date BC') ELSE {0}::DATE END",
    "timestamp": "CASE WHEN {0} LIKE '%BC' THEN error('a date BC') ELSE {0}::TIMESTAMP END",
    "timestamptz": "CASE WHEN {0} LIKE '%BC+00' THEN error('a date BC')"
    " ELSE replace({0}, 'infinity+00', 'infinity')::TIMESTAMPTZ END",
}


def split_stream(pieces: Iterator[bytes]) -> Iterator[tuple[int, Iterator[bytes]]]:
    """The stream in parts for a statement each, to be read in turn, with the size that no row of the part exceeds."""
    waiting: list[bytes] = []

    def peek() -> int:
        while not waiting:
            if (piece := next(pieces, None)) is None:
                return 0
            if piece:
                waiting.append(piece)
        return len(waiting[0])

    def read_part() -> Iterator[bytes]:
        taken = 0
        while 0 < (size := peek()) <= NARROW and taken + size <= PART:
            taken += size
            yield waiting.pop()

    while size := peek():
        yield max(size, NARROW), iter([waiting.pop()]) if size > NARROW else read_part()


def compose_insert(table: str, columns: Sequence[Column], extra: dict[str, str], path: str, largest: int) -> str:
    """The statement that inserts what is read from `path`; `extra` are columns before these, and their types.

    No row has more than `largest` bytes.
    """
    types = extra | {c.name: "VARCHAR" if c.type in _CHECKED else TYPES["duckdb"][c.type] for c in columns}
    values = [*extra, *(_CHECKED.get(c.type, "{0}").format(quote(c.name)) for c in columns)]
    names = ", ".join([*extra, *(quote(column.name) for column in columns)])
    return f"INSERT INTO {table} ({names}) SELECT {', '.join(values)} FROM {_compose_reader(path, types, largest)}"


@contextmanager
def open_pipe(pieces: Iterable[bytes]) -> Iterator[str]:
    """A path from which the pieces can be read, once; a thread writes them. Raises what they raise."""
    reading, writing = os.pipe()
    done = threading.Event()
    failures: list[BaseException] = []
    thread = threading.Thread(
        target=_write_pieces, args=(writing, pieces, done, failures), name="stackctl-duckdb-feed", daemon=True
    )
    thread.start()
    try:
        yield f"/dev/fd/{reading}"
    finally:
        # DuckDB keeps a stream open that it has refused: whoever waits for room in the pipe would wait for ever.
        done.set()
        os.close(reading)
        thread.join()
        if failures and not isinstance(failures[0], BrokenPipeError):
            # Not what DuckDB makes of a stream that ends too early.
            raise failures[0]


def _compose_reader(path: str, types: dict[str, str], largest: int) -> str:
    """DuckDB's reader of what `Stream.csv` writes; nothing is left to be guessed from the data."""
    columns = ", ".join(f"{quote_literal(name)}: {quote_literal(type_)}" for name, type_ in types.items())
    return (
        f"read_csv({quote_literal(path)}, columns = {{{columns}}}, auto_detect = false, header = false, delim = ',',"
        " quote = '\"', escape = '\"', new_line = '\\n', comment = '', nullstr = '', allow_quoted_nulls = false,"
        f" strict_mode = true, parallel = false, max_line_size = {largest}, buffer_size = {BUFFERED * largest})"
    )


def _write_pieces(writing: int, pieces: Iterable[bytes], done: threading.Event, failures: list[BaseException]) -> None:
    """Until the end, or until nobody wants them any more."""
    room = select.poll()
    room.register(writing, select.POLLOUT)
    os.set_blocking(writing, False)
    try:
        for piece in pieces:
            left = memoryview(piece)
            del piece
            while left and not done.is_set():
                try:
                    left = left[os.write(writing, left) :]
                except BlockingIOError:
                    room.poll(ROOM_POLL)
            del left
            if done.is_set():
                break
    except BaseException as error:  # noqa: BLE001 - raised by the thread that waits for the rows
        failures.append(error)
    finally:
        os.close(writing)
