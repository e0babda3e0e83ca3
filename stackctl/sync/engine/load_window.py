"""One long stream of rows in order of their sequence ids, read in pages that are streams of their own.

Each row begins with its id, which is taken off here. So the source joins and sorts once for many pages, and each page
still knows how far it reaches.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from stackctl.sync.engine.row_stream import RowStream
from stackctl.sync.engine.source_errors import translate_source_errors
from stackctl.sync.targets.protocol import BINARY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Copy
    from psycopg.abc import Buffer

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_ID, _REST = slice(6, 14), slice(14, None)  # of a binary row: first its number of columns and the length of the id


@dataclass(frozen=True)
class LoadLimits:
    """Rows of a page, and of all pages of one snapshot. Tombstones up to `passed` are of rows that were never sent.

    `merged`: the rows are as those of ordinary pages, and so are all tombstones. `fresh`: no row of the window was sent
    before, so that none has to go which the mapping yields no more.
    """

    page: int
    window: int
    passed: int = 0
    merged: bool = False
    fresh: bool = False


class NumberedCopy:
    """A COPY of rows with ids, read as if it were one COPY of each page without them."""

    def __init__(self, copy: Copy | NumberedCopy, columns: int, options: LiteralString) -> None:
        self._copy = copy
        self._binary = options == BINARY
        self._begin_row = columns.to_bytes(2, "big") if self._binary else b""
        self._left = 0
        self._number = self._begin = self._end = b""
        self.formatter, self.set_types = copy.formatter, copy.set_types
        self._row = self._read_row()  # which was read and not handed over; None: nothing was
        if self._binary:
            self.formatter.parse_row(_SIGNATURE + _TRAILER)  # it takes rows from now on
            self._row = self._row[len(_SIGNATURE) :]
            if self._row == _TRAILER:
                self._row = self._read_row()

    def begin_page(self, rows: int, *, parsed: bool) -> None:
        """`parsed`: by the formatter, one by one; else the page is a COPY of its own, with its beginning and end."""
        self._left = rows
        framed = self._binary and not parsed
        self._begin, self._end = (_SIGNATURE if framed else b"") + self._begin_row, _TRAILER if framed else b""

    def has_more(self) -> bool:
        """Whether there are rows after this page."""
        if self._row is None:
            self._row = self._read_row()
        return bool(self._row)

    @property
    def last_id(self) -> int:
        """Of the rows that were read."""
        return int.from_bytes(self._number, "big") if self._binary else int(self._number.strip(b'"'))

    def read(self) -> bytes:
        """A row; nothing at the end of the page. Rows of one id are of one page."""
        row = self._read_row() if self._row is None else self._row
        if self._binary:
            number, rest = bytes(row[_ID]), row[_REST]
        else:
            number, _, rest = bytes(row).partition(b",")
        if not row or (self._left <= 0 and number != self._number):
            self._row = row
            end, self._end = self._end, b""
            return end
        self._row = None
        self._number = number
        self._left -= 1
        begin, self._begin = self._begin, self._begin_row
        return begin + rest

    def _read_row(self) -> Buffer:
        row = self._copy.read()
        return self._copy.read() if self._binary and len(row) == len(_TRAILER) else row


@dataclass(frozen=True)
class LoadPage(RowStream):
    """The next `rows` rows of such a COPY. The statement is that of all its pages."""

    copy: NumberedCopy | None = None
    rows: int = 0

    @property
    def up_to(self) -> int:
        """The highest id of the page, when it was read."""
        assert self.copy is not None
        return self.copy.last_id

    @contextmanager
    def open_copy(self, options: LiteralString, *, parsed: bool = False) -> Iterator[NumberedCopy]:
        assert self.copy is not None
        with translate_source_errors(self.mapping):
            self.copy.begin_page(self.rows, parsed=parsed)
            yield self.copy
