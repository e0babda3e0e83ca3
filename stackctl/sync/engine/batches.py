"""One mapping of one external database: pages of what changed, each in one transaction of the target.

While the target merges a page, the next one is read. That reading may precede the lock of its own transaction: it is
used only if nobody wrote the cursor's row in between, so that it is as if the lock had been held all the time.

A row that the target rejects stops nothing: the page is split until the row is found, the row is recorded in the
operated database, and only then the cursor passes it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from stackctl.core.errors import AnswerNo, StackctlError
from stackctl.sync.engine import rejected_rows
from stackctl.sync.engine.paged_load import PagedLoad
from stackctl.sync.engine.prefetch import Prefetch
from stackctl.sync.engine.repair import find_extra_rows, repair_rows
from stackctl.sync.engine.row_stream import PAGE_TOO_LARGE
from stackctl.sync.targets.mapping_changes import make_record
from stackctl.sync.targets.protocol import NEVER_SYNCED, AppliedBatch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from stackctl.mapping.checksums import Key
    from stackctl.mapping.compile import Compiled
    from stackctl.postgres.connect import Connection
    from stackctl.sync.engine.database_sync import MappingResult, SyncOptions
    from stackctl.sync.engine.rejected_rows import RejectedKey
    from stackctl.sync.engine.row_stream import RowStream
    from stackctl.sync.engine.source import Source
    from stackctl.sync.stop import StopRequest
    from stackctl.sync.targets.protocol import Target

FIRST_PAGE = 5_000  # rows; doubled with each full page up to the batch size
RETRY_BATCH = 1_000  # rejected rows
# What ends a page that goes straight into the table, and is for an ordinary one to find out about.
_NOT_STRAIGHT = (rejected_rows.ROW_REJECTED, "two-rows-for-a-key", PAGE_TOO_LARGE)


@dataclass(frozen=True)
class CopyWork:
    """Whoever works at one copy: from where to where it goes, for whom, and how. `result` grows with each commit."""

    source: Source
    target: Target
    compiled: Compiled
    tenancy: UUID
    database: str
    result: MappingResult
    options: SyncOptions
    stop: StopRequest

    @property
    def rejected(self) -> tuple[Connection, UUID, str, str]:
        """Whose rejected rows are meant."""
        return self.source.primary, self.tenancy, self.database, self.compiled.mapping.name


class BatchSender:
    """Sends what is above the cursor of one mapping."""

    def __init__(self, work: CopyWork) -> None:
        self._source = source = work.source
        self._target = target = work.target
        self._compiled = compiled = work.compiled
        self._name = compiled.mapping.name
        self._tenancy = tenancy = work.tenancy
        self._result = work.result
        self._options = options = work.options
        self._stop = work.stop
        self._on_rows = partial(options.on_rows, self._name)
        self._full = options.full
        self._rebuild = options.rebuild == self._name
        self._rejected = work.rejected
        self._quarantine = rejected_rows.Quarantine(*self._rejected)
        self._load = PagedLoad(source, target, compiled, tenancy, self._on_rows)
        self._size = rejected_rows.PageSize(FIRST_PAGE, options.batch_size)
        # What is being read meanwhile: from which cursor, how many rows, as of which version of the cursor's row.
        self._prefetch: Prefetch | None = None
        self._prefetch_cursor = self._prefetch_limit = 0
        self._prefetch_version = ""

    def send(self) -> bool:
        """Pages until nothing is above the cursor; False when the stop came first.

        Raises whatever is wrong with the mapping or the database as a whole.
        """
        started = time.monotonic()
        size = self._size
        try:
            while not self._stop.requested:
                failed: StackctlError | None = None
                applied = None
                try:
                    applied = self._send_batch(size.rows)
                except StackctlError as error:
                    failed = error
                if failed is not None:
                    if not self._make_way(failed):
                        return True
                    continue
                if applied is None:
                    return True
                self._result.upserted += applied.upserted
                self._result.deleted += applied.deleted
                self._result.batches += 1
                self._stop.note_step()
                size.grow(applied.amount)
                if self._prefetch is None and not self._load.active and not self._has_more():
                    return True
            return False
        finally:
            self._drop_prefetch()
            self._load.stop()
            self._result.duration_ms = round((time.monotonic() - started) * 1000)

    def _make_way(self, error: StackctlError) -> bool:
        """Do what the next try needs; False when nothing is left. Raises what a smaller page does not help."""
        if self._rebuild:
            raise error  # the old table serves on
        if self._load.active and error.code in _NOT_STRAIGHT:
            self._load.stop()
            return True
        alone = self._size.shrink(error)
        error.with_traceback(None)  # it would keep the rows that were in hand
        self._drop_prefetch()
        if self._full or self._result.cursor == NEVER_SYNCED:
            self._start_over()
        elif alone:
            return self._quarantine_next_row(error)
        return True

    def _has_more(self) -> bool:
        """Whether anything is left above the cursor: a look costs less than a transaction that finds nothing."""
        return bool(
            self._source.find_changed_mappings([self._compiled], self._tenancy, {self._name: self._result.cursor})
        )

    def _send_batch(self, limit: int) -> AppliedBatch | None:
        """One transaction of the target: cursor locked, source read, rows written, cursor advanced.

        A mapping that was never synced is loaded whole; that is one batch however many rows it has, and streams.
        Returns None when nothing was above the cursor.
        """
        following: tuple[int, int] | None = None
        page: RowStream | Prefetch | None = None

        def on_read(rows: int, highest: int) -> None:
            nonlocal following
            if rows == limit == self._options.batch_size and self._load.consider(highest):
                return
            if rows > limit // 2 and limit >= min(FIRST_PAGE, self._options.batch_size):
                following = highest, self._size.after(page.amount if page else None)
                self._start_prefetch(*following)

        with self._target.lock_cursor(self._compiled, adopt=self._options.adopt, rebuild=self._rebuild) as cursor:
            self._result.cursor = cursor
            whole = self._full or self._rebuild or cursor == NEVER_SYNCED
            if whole:
                # The cursor's row may have gone since: what is read ahead has the connection that is needed now.
                self._drop_prefetch()
            recorded = rejected_rows.read_versions(*self._rejected, None) if whole else []
            begun = self._load.begin() if whole and not (self._full or self._rebuild) else None
            straight = self._load.send_page(cursor) if self._load.active and not whole else None
            if begun is not None or straight is not None:
                applied, whole = begun or straight or AppliedBatch(0, 0, 0), False
            elif whole:
                applied = self._send_all(cursor)
            else:
                page = self._take_prefetch(cursor, limit)
                if page is None:
                    # Only now: what a replica shows must not be older than the cursor.
                    self._source.wait_for_replica()
                    page = self._source.open_batch(self._compiled, self._tenancy, cursor, limit, self._on_rows)
                applied = replace(self._target.apply_batch(self._compiled, page, on_read), amount=page.amount)
                if applied.rows == 0:
                    return None
                if applied.highest <= cursor:
                    raise AnswerNo(f"the mapping {self._name} yields no row above its cursor", code="mapping-failed")
                self._target.advance_cursor(self._compiled, applied.highest)
            if self._load.active and page is not None:
                self._load.note_cursor()
            if following is not None:
                self._prefetch_version = self._target.read_cursor_version(self._compiled)
        # None of this is true before the target has committed.
        self._result.cursor = applied.highest
        if whole:
            self._full = self._rebuild = False
            rejected_rows.forget_rows(*self._rejected, recorded)
        return applied

    def _send_all(self, cursor: int) -> AppliedBatch:
        self._source.wait_for_replica()
        with self._source.open_all_rows(self._compiled, self._tenancy, self._on_rows) as (rows, highest):
            load = self._target.rebuild_table if self._rebuild else self._target.replace_rows
            applied = load(self._compiled, rows)
        if cursor <= self._source.read_last_sequence_id():
            # The highest stamp may have gone with its row; a cursor never goes back for that.
            highest = max(highest, cursor)
        self._target.write_record(self._compiled, make_record(self._compiled))
        self._target.advance_cursor(self._compiled, highest)
        return replace(applied, highest=highest)

    # -- prefetch

    def _start_prefetch(self, cursor: int, limit: int) -> None:
        self._source.wait_for_replica()
        stream = self._source.open_batch(self._compiled, self._tenancy, cursor, limit, self._on_rows)
        self._prefetch = Prefetch(stream, self._target.stream_format)
        self._prefetch_cursor, self._prefetch_limit, self._prefetch_version = cursor, limit, ""

    def _take_prefetch(self, cursor: int, limit: int) -> Prefetch | None:
        prefetch = self._prefetch
        if prefetch is None:
            return None
        if (cursor, limit) == (self._prefetch_cursor, self._prefetch_limit) and (
            self._target.read_cursor_version(self._compiled) == self._prefetch_version
        ):
            return prefetch
        self._drop_prefetch()
        return None

    def _drop_prefetch(self) -> None:
        if self._prefetch is not None:
            self._prefetch.discard()
            self._prefetch = None

    # -- rejected rows

    def _start_over(self) -> None:
        """A whole load met a rejected row: what the source does not have goes, the rest is replaced page by page.

        Readers keep the old rows meanwhile. Not by the tombstones alone: some deletes leave none. A row that can't be
        deleted, because the consumer's refer to it, is recorded as well.
        """
        self.remove_extra_rows()
        with self._target.lock_cursor(self._compiled, adopt=self._options.adopt):
            self._target.write_record(self._compiled, make_record(self._compiled))
            self._target.advance_cursor(self._compiled, 0)
        self._result.cursor = 0
        self._full = False

    def remove_extra_rows(self) -> None:
        """Delete what the source does not have."""
        self._source.wait_for_replica()
        for keys in find_extra_rows(self._source, self._target, self._compiled, self._tenancy):
            for key, error in rejected_rows.isolate_rejected(keys, self._delete_extra):
                self._quarantine.add_row(list(key), 0, error)

    def _delete_extra(self, keys: Sequence[Key]) -> None:
        with self._target.lock_cursor(self._compiled, adopt=self._options.adopt) as cursor:
            self._source.wait_for_replica()
            repair_rows(self._source, self._target, self._compiled, self._tenancy, keys)
            self._target.advance_cursor(self._compiled, cursor)

    def _quarantine_next_row(self, error: StackctlError) -> bool:
        """Record the first row above the cursor, then let the cursor pass it."""
        with self._target.lock_cursor(self._compiled) as cursor:
            found = self._source.find_next_key(self._compiled, self._tenancy, cursor)
            if found is None:
                return False
            key, sequence_id = found
            self._quarantine.add_row(key, sequence_id, error)
            self._target.advance_cursor(self._compiled, sequence_id)
        self._result.cursor = sequence_id
        self._stop.note_step()
        return True

    def retry_rejected_rows(self) -> None:
        """Send rows that were rejected before, as they are now; what goes through is forgotten."""
        keys = rejected_rows.claim_retries(*self._rejected, self._options.retry_pause)
        for start in range(0, len(keys), RETRY_BATCH):
            for _ in rejected_rows.isolate_rejected(keys[start : start + RETRY_BATCH], self._resend):
                pass  # it is still rejected, and still recorded

    def _resend(self, keys: Sequence[RejectedKey]) -> None:
        with self._target.lock_cursor(self._compiled) as cursor:
            recorded = rejected_rows.read_versions(*self._rejected, keys)
            self._source.wait_for_replica()
            stream = self._source.open_rows_by_key(self._compiled, self._tenancy, keys)
            applied = self._target.apply_batch(self._compiled, stream)
            self._target.advance_cursor(self._compiled, cursor)
        rejected_rows.forget_rows(*self._rejected, recorded)
        self._result.upserted += applied.upserted
        self._result.deleted += applied.deleted
