"""A load of a large table in pages, each committed with its position, so that a load that is cut goes on where it was.

The position is the cursor itself: pages follow the sequence ids from 0. So there is no state besides, nothing that
could be stale after a restore, and everything that holds of a cursor holds in the middle of a load: a row that changes,
or is deleted, gets a higher id and comes again at the end. Rows without an id have no place in that order: they are
sent first, in the transaction that sets the cursor to 0.

The source joins and sorts as in a whole load, once for all pages of a window, which are as of one moment. Meanwhile it
keeps what is deleted there, and needs room for the sorting, so a window has WINDOW_ROWS at most, some 15 seconds by the
rate of smaller loads; each one reads the joined tables anew. A load that is cut goes on with a window from its
position. (Pages with a statement each cost the source six times as much: two index look-ups a row.)

A page goes straight into the table, which is as fast as one COPY of it all into a table with its key. That needs keys
that the table lacks: when one is there already (the row was stamped since it was sent), ordinary pages go on from that
position. So they do before a window in which the mapping yields less than there are rows, unless none was sent before:
what is not there any more has to go. The same way is taken whenever a full page was sent and many rows of which the
first is not there are left: what remains of a load that was cut, or a bulk of new rows.

Where many are left that are there, as after a bulk update, their pages are of such a window, too, with the tombstones
among them, and are merged as ordinary ones are.

Readers see the table fill. Key ranges or positions in the file would need no sorting, but a position of their own
beside the cursor, and the file's move with every update.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.sync.engine.load_window import LoadLimits
from stackctl.sync.engine.prefetch import LoadAhead
from stackctl.sync.targets.mapping_changes import make_record
from stackctl.sync.targets.protocol import AppliedBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from uuid import UUID

    from stackctl.mapping.compile import Compiled
    from stackctl.sync.engine.load_window import LoadPage
    from stackctl.sync.engine.source import Source
    from stackctl.sync.targets.protocol import Target

WHOLE_ROWS = 250_000  # up to which a table is loaded in one transaction, which takes seconds
PAGE_ROWS = 50_000  # of a page; smaller ones cost rate, larger ones are not read while the one before is written
WINDOW_ROWS = 2_000_000  # that are read as of one moment
_NO_TOMBSTONE = 2**63 - 1


class PagedLoad:
    """The load of one mapping, while it is `active`; then nobody else may use the source's connection."""

    def __init__(
        self, source: Source, target: Target, compiled: Compiled, tenancy: UUID, on_rows: Callable[[int], None]
    ) -> None:
        self.active = False
        self._source = source
        self._target = target
        self._compiled = compiled
        self._tenancy = tenancy
        self._on_rows = on_rows
        self._considered = self._fresh = False
        self._merged = False  # nothing goes straight into the table
        self._passed = 0  # tombstones up to this id are of rows that this load never saw
        self._ahead: LoadAhead | None = None
        self._version = ""  # of the cursor's row, when what is read ahead was begun

    def begin(self) -> AppliedBatch | None:
        """Begin the load of an empty table, under the lock of its cursor; None if it is to be loaded whole."""
        if not self._is_large() or not self._target.is_empty(self._compiled):
            return None
        self._source.wait_for_replica()
        self._passed = self._source.read_highest_stamp(self._compiled, self._tenancy)
        unstamped = self._source.open_unstamped(self._compiled, self._tenancy, self._on_rows)
        applied = self._target.append_rows(self._compiled, unstamped)
        self._target.write_record(self._compiled, make_record(self._compiled))
        self._target.advance_cursor(self._compiled, 0)
        self.active = self._considered = True
        self._fresh = applied.rows == 0
        return applied

    def _is_large(self) -> bool:
        # No two rows have one id: mostly the range of ids tells that there are few, without a look at all of them.
        first = self._source.find_next_key(self._compiled, self._tenancy, 0)
        highest = self._source.read_highest_stamp(self._compiled, self._tenancy)
        if first is None or highest - first[1] < WHOLE_ROWS:
            return False
        _, rows = self._source.find_load_bound(self._compiled, self._tenancy, 0, WHOLE_ROWS + 1, highest)
        return rows > WHOLE_ROWS

    def consider(self, cursor: int) -> bool:
        """Whether what is above the cursor comes in windows from now on; looked at once.

        The first of them is read ahead of the cursor, which is about to get there; `note_cursor` tells when it has.
        """
        if self._considered:
            return False
        self._considered = True

        def count_rows(passed: int) -> int:
            return self._source.find_load_bound(self._compiled, self._tenancy, cursor, PAGE_ROWS, passed)[1]

        found = self._source.find_next_key(self._compiled, self._tenancy, cursor)
        if found is None or count_rows(_NO_TOMBSTONE) < PAGE_ROWS:
            return False
        key = tuple(str(value) for value in found[0])
        known = self._target.read_hashes_by_key(self._compiled, [key])
        self._merged = self._merged or bool(known) or count_rows(self._passed) < PAGE_ROWS
        self.active = True
        self._read_ahead(cursor)
        return True

    def note_cursor(self) -> None:
        """The cursor is where `consider` was told that it would be, in the transaction in hand."""
        self._version = self._target.read_cursor_version(self._compiled)

    def _read_ahead(self, cursor: int) -> LoadAhead:
        self._source.wait_for_replica()
        self._ahead = LoadAhead(cursor, self._read_pages(cursor), self._target.stream_format)
        return self._ahead

    def send_page(self, cursor: int) -> AppliedBatch | None:
        """The next page, under the lock of the cursor, which it advances; None when none is left."""
        if self._ahead is not None and (
            self._ahead.cursor != cursor or self._target.read_cursor_version(self._compiled) != self._version
        ):
            self._drop_ahead()
        ahead = self._ahead or self._read_ahead(cursor)
        page = ahead.take_page()
        if page is None:
            self.stop()
            return None
        send = self._target.apply_batch if self._merged else self._target.append_rows
        applied = send(self._compiled, page)
        up_to = ahead.end_page()
        self._target.advance_cursor(self._compiled, up_to)
        self.note_cursor()
        return AppliedBatch(applied.rows, applied.upserted, applied.deleted, up_to)

    def stop(self) -> None:
        """Ordinary pages go on; the source's connection is free when this returns."""
        if self.active and not self._merged:
            self._merged, self._considered = True, False
        self.active = False
        self._drop_ahead()

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.discard()
            self._ahead = None

    def _read_pages(self, cursor: int) -> Generator[LoadPage]:
        """Window after window, until too little is left before the end, or before a row that was deleted."""
        passed = _NO_TOMBSTONE if self._merged else self._passed
        options = self._target.stream_format.options
        at: int | None = cursor
        while at is not None:
            limits = LoadLimits(PAGE_ROWS, WINDOW_ROWS, passed, self._merged, self._fresh)
            self._fresh = False
            at = yield from self._source.read_load_window(
                self._compiled, self._tenancy, at, limits, options, self._on_rows
            )
