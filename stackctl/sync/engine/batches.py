"""One mapping of one external database: pages of what changed, each in one transaction of the target.

While the target merges a page, the next one is read. That reading may precede the lock of its own transaction: it is
used only if nobody wrote the cursor's row in between, so that it is as if the lock had been held all the time.

A row that the target refuses stops nothing: the page is split until the row is found, the row is recorded in the
operated database, and only then the cursor passes it.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from stackctl.core.errors import AnswerNo, StackctlError
from stackctl.sync.engine import rejected_rows
from stackctl.sync.engine.keys import prune
from stackctl.sync.streams import Ahead
from stackctl.sync.targets.protocol import NEVER_SYNCED, Applied

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from stackctl.mapping.compile import Compiled
    from stackctl.sync.engine.database import MappingResult, Options
    from stackctl.sync.engine.rejected_rows import Key
    from stackctl.sync.engine.source import Source
    from stackctl.sync.stop import Stop
    from stackctl.sync.targets.protocol import Target

FIRST_PAGE = 5_000  # rows; doubled with each full page up to the batch size
RETRIED_AT_ONCE = 1_000  # refused rows


class Batches:
    """Sends what is above the cursor of one mapping; adds to `entry` after each commit."""

    def __init__(
        self,
        source: Source,
        target: Target,
        compiled: Compiled,
        *,
        tenancy: UUID,
        database: str,
        entry: MappingResult,
        options: Options,
        stop: Stop,
    ) -> None:
        self._source = source
        self._target = target
        self._compiled = compiled
        self._name = compiled.mapping.name
        self._tenancy = tenancy
        self._database = database
        self._entry = entry
        self._options = options
        self._stop = stop
        self._hear = partial(options.on_rows, self._name)
        self._full = options.full
        self._aside = rejected_rows.Aside(source.primary, tenancy, database, self._name)
        # What is being read ahead: from which cursor, how many rows, as of which version of the cursor's row.
        self._ahead: Ahead | None = None
        self._ahead_from = self._ahead_limit = 0
        self._ahead_version = ""

    def send(self) -> bool:
        """Pages until nothing is above the cursor; False when the stop came first.

        Raises whatever is wrong with the mapping or the database as a whole.
        """
        started = time.monotonic()
        size = rejected_rows.PageSize(FIRST_PAGE, self._options.batch_size)
        try:
            while not self._stop.requested:
                try:
                    applied = self._batch(size.rows)
                except StackctlError as error:
                    alone = size.shrink(error)
                    self._drop_ahead()
                    if self._full or self._entry.cursor == NEVER_SYNCED:
                        self._start_over()
                    elif alone and not self._set_one_aside(error):
                        return True
                    continue
                if applied is None:
                    return True
                self._entry.upserted += applied.upserted
                self._entry.deleted += applied.deleted
                self._entry.batches += 1
                size.grow()
                if self._ahead is None and not self._more():
                    return True
            return False
        finally:
            self._drop_ahead()
            self._entry.duration_ms = round((time.monotonic() - started) * 1000)

    def _more(self) -> bool:
        """Whether anything is left above the cursor: a look costs less than a transaction that finds nothing."""
        return bool(self._source.with_news([self._compiled], self._tenancy, {self._name: self._entry.cursor}))

    def _batch(self, limit: int) -> Applied | None:
        """One transaction of the target: cursor locked, source read, rows written, cursor advanced.

        A mapping that was never synced is loaded whole; that is one batch however many rows it has, and streams.
        Returns None when nothing was above the cursor.
        """
        following: tuple[int, int] | None = None

        def on_read(rows: int, highest: int) -> None:
            nonlocal following
            if rows > limit // 2 and limit >= min(FIRST_PAGE, self._options.batch_size):
                following = highest, min(limit * 2, self._options.batch_size)
                self._read_ahead(*following)

        with self._target.locked(self._compiled) as cursor:
            self._entry.cursor = cursor
            if self._full or cursor == NEVER_SYNCED:
                return self._load(cursor)
            page = self._taken_ahead(cursor, limit)
            if page is None:
                # Only now: what a replica shows must not be older than the cursor.
                self._source.catch_up()
                page = self._source.batch(self._compiled, self._tenancy, cursor, limit, self._hear)
            applied = self._target.apply(self._compiled, page, on_read)
            if applied.rows == 0:
                return None
            if applied.highest <= cursor:
                raise AnswerNo(f"the mapping {self._name} yields no row above its cursor", code="mapping-failed")
            self._target.advance(self._compiled, applied.highest)
            if following is not None:
                self._ahead_version = self._target.version(self._compiled)
        self._entry.cursor = applied.highest
        return applied

    def _load(self, cursor: int) -> Applied:
        self._source.catch_up()
        with self._source.load(self._compiled, self._tenancy, self._hear) as (rows, highest):
            applied = self._target.load(self._compiled, rows)
        if cursor <= self._source.last_sequence_id():
            # The highest stamp may have gone with its row; a cursor never goes back for that.
            highest = max(highest, cursor)
        self._target.advance(self._compiled, highest)
        rejected_rows.forget(self._source.primary, self._tenancy, self._database, self._name, None)
        self._entry.cursor = highest
        self._full = False
        return applied

    # -- reading ahead

    def _read_ahead(self, cursor: int, limit: int) -> None:
        self._source.catch_up()
        stream = self._source.batch(self._compiled, self._tenancy, cursor, limit, self._hear)
        self._ahead = Ahead(stream, self._target.form)
        self._ahead_from, self._ahead_limit, self._ahead_version = cursor, limit, ""

    def _taken_ahead(self, cursor: int, limit: int) -> Ahead | None:
        ahead = self._ahead
        if ahead is None:
            return None
        if (cursor, limit) == (self._ahead_from, self._ahead_limit) and (
            self._target.version(self._compiled) == self._ahead_version
        ):
            return ahead
        self._drop_ahead()
        return None

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.discard()
            self._ahead = None

    # -- refused rows

    def _start_over(self) -> None:
        """A whole load met a refused row: what the source does not have goes, the rest is replaced page by page.

        Readers keep the old rows meanwhile. Not by the tombstones alone: some deletes leave none.
        """
        with self._target.locked(self._compiled):
            self._source.catch_up()
            prune(self._source, self._target, self._compiled, self._tenancy)
            self._target.advance(self._compiled, 0)
        self._entry.cursor = 0
        self._full = False

    def _set_one_aside(self, error: StackctlError) -> bool:
        """Record the first row above the cursor, then let the cursor pass it."""
        with self._target.locked(self._compiled) as cursor:
            found = self._source.next_key(self._compiled, self._tenancy, cursor)
            if found is None:
                return False
            key, sequence_id = found
            self._aside.add(key, sequence_id, error)
            self._target.advance(self._compiled, sequence_id)
        self._entry.cursor = sequence_id
        return True

    def retry(self) -> None:
        """Send rows that were refused before, as they are now; what goes through is forgotten."""
        keys = rejected_rows.claim_retry(
            self._source.primary, self._tenancy, self._database, self._name, self._options.retry_pause
        )
        for start in range(0, len(keys), RETRIED_AT_ONCE):
            for _ in rejected_rows.around(keys[start : start + RETRIED_AT_ONCE], self._retry):
                pass  # it is still refused, and still recorded

    def _retry(self, keys: Sequence[Key]) -> None:
        with self._target.locked(self._compiled) as cursor:
            self._source.catch_up()
            stream = self._source.by_key(self._compiled, self._tenancy, keys)
            applied = self._target.apply(self._compiled, stream)
            self._target.advance(self._compiled, cursor)
        rejected_rows.forget(self._source.primary, self._tenancy, self._database, self._name, keys)
        self._entry.upserted += applied.upserted
        self._entry.deleted += applied.deleted
