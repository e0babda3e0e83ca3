"""Rows that were sent as an older version of their mapping had them, sent again beside the live changes.

The walk follows the stamps up to the cursor of the moment in which the copy took up its new mapping: what is above is
sent as it is now anyway. How far it has come stands beside the cursor, and commits with each page: a kill costs
nothing, and engines that meet share the work. In the end what the source does not have goes.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from stackctl.core.errors import StackctlError
from stackctl.sync.engine import rejected_rows
from stackctl.sync.engine.batches import BatchSender, CopyWork
from stackctl.sync.engine.source_rewound import is_copy_ahead, to_ahead_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackctl.sync.targets.protocol import CopyRecord

PAGE = 5_000  # rows under one lock of the cursor


class Resend:
    """The walk through one mapping of one database."""

    def __init__(self, work: CopyWork) -> None:
        self._source = work.source
        self._target = work.target
        self._compiled = work.compiled
        self._tenancy = work.tenancy
        self._result = work.result
        self._on_rows = partial(work.options.on_rows, work.compiled.mapping.name)
        self._stop = work.stop
        self._quarantine = rejected_rows.Quarantine(*work.rejected)
        self._sender = BatchSender(work)

    def run(self, between_pages: Callable[[], None], deadline: float) -> bool:
        """Pages until all is sent; False when the stop or the `deadline` (of the monotonic clock) came first.

        `between_pages` is called while nothing is locked.
        """
        size = rejected_rows.PageSize(PAGE, PAGE)
        while not self._stop.requested and time.monotonic() < deadline:
            try:
                left = self._send_page(size.rows)
            except StackctlError as error:
                if size.shrink(error):
                    self._quarantine_next_row(error)
                    self._stop.note_step()
                continue
            self._stop.note_step()
            if left is None:
                return True
            if not left:
                self._sender.remove_extra_rows()
                self._finish()
                return True
            size.grow()
            between_pages()
        return False

    def _send_page(self, limit: int) -> bool | None:
        """One transaction of the target; whether rows are left after it. None: nothing is to be done here any more."""
        with self._target.lock_cursor(self._compiled) as cursor:
            record = self._target.read_record(self._compiled)
            if record is None or record.resend_up_to is None:
                return None  # another engine was here, or everything was loaded
            if not _is_left(record):
                return False
            if is_copy_ahead(self._source, self._compiled, cursor, self._tenancy):
                raise to_ahead_error(self._compiled.mapping.name, cursor, self._tenancy)
            self._source.wait_for_replica()
            after = record.resend_after or 0
            page = self._source.open_batch(self._compiled, self._tenancy, after, limit, self._on_rows)
            applied = self._target.apply_batch(self._compiled, replace(page, statement=self._compiled.resend))
            highest = applied.highest if applied.rows == limit else record.resend_up_to
            record = replace(record, resend_after=highest)
            self._target.write_record(self._compiled, record)
            # Whoever reads ahead of its lock must see that somebody wrote.
            self._target.advance_cursor(self._compiled, cursor)
        self._result.upserted += applied.upserted
        self._result.batches += 1
        return _is_left(record)

    def _quarantine_next_row(self, error: StackctlError) -> None:
        """Record the next row, then pass it: it is tried again with the others that were rejected."""
        with self._target.lock_cursor(self._compiled) as cursor:
            record = self._target.read_record(self._compiled)
            if record is None or not _is_left(record):
                return
            asked = {"tenancy_id": self._tenancy, "cursor": record.resend_after}
            with self._source.open_snapshot(self._compiled.mapping.name) as conn:
                row = conn.execute(self._compiled.resend_next, asked).fetchone()
            if row is None:
                return
            key, sequence_id = row
            self._quarantine.add_row(key, sequence_id, error)
            self._target.write_record(self._compiled, replace(record, resend_after=sequence_id))
            self._target.advance_cursor(self._compiled, cursor)

    def _finish(self) -> None:
        with self._target.lock_cursor(self._compiled) as cursor:
            record = self._target.read_record(self._compiled)
            if record is not None and record.resend_up_to is not None and not _is_left(record):
                self._target.write_record(self._compiled, replace(record, resend_after=None, resend_up_to=None))
                self._target.advance_cursor(self._compiled, cursor)


def _is_left(record: CopyRecord) -> bool:
    return record.resend_up_to is not None and (record.resend_after or 0) < record.resend_up_to
