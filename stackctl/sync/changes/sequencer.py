"""Stage 1: marked rows get their sequence ids, and their tenancies are queued.

Order, the invariant everything behind this stage rests on: a cursor may pass N only if everything below N is visible.
`nextval` is not transactional, so two stampers could commit out of order, and the rows of the later commit would be
skipped for ever. Therefore a transaction-level advisory lock is held from before the first `nextval` until the commit
has released it; a second sequencer steps aside.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from psycopg import errors

from stackctl.core.errors import StateError
from stackctl.postgres.session import pipelined_transaction
from stackctl.postgres.statements import load_statements
from stackctl.sync.changes.sequence_position import find_tenancies_ahead, to_behind_error
from stackctl.sync.changes.sequenced_tables import find_missing_tables
from stackctl.sync.changes.source_identity import Place, notice_place
from stackctl.sync.changes.stamping import StampedRow, compose_stampings
from stackctl.sync.changes.turns import TakenRows, TurnTaker
from stackctl.sync.changes.wakeup import PendingWork, WorkProbe
from stackctl.sync.queue import entries

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import timedelta

    from stackctl.mapping.model import Mapping
    from stackctl.postgres.connect import Connection
    from stackctl.sync.stop import Stop

LOCK_WAIT = 5.0  # seconds that a single pass waits for another sequencer's commit
LOCK_POLL = 0.02  # seconds between two tries
BATCH_INTERVAL = 0.01  # seconds from one batch that was not full to the next: small ones cost as much as larger ones
HOLD = 0.05  # seconds for which a batch that may grow holds its rows locked, if it is larger than it has to be
LOOK_INTERVAL = 0.2  # seconds for which a look at the marks and fuses holds while one full batch follows another
EMPTIED_AT_ONCE = 20_000  # tombstones that one sweep empties
HELD_WAIT = 5.0  # seconds for which rows are looked for that come after those that can't be stamped
MISSING_INTERVAL = 1.0  # seconds between two looks for tables that are missing
AHEAD_PAUSE = 5.0  # seconds in which a tenancy is left out whose stamps are above the sequence
HELD_PAUSE = 1.0  # seconds in which a tenancy whose queue entry is locked is left out

Outcome = Literal["stamped", "held", "idle", "fuse", "busy"]
StoppedBy = Literal["drained", "fuse", "max-duration", "signal", "lock-held"]

_SQL = load_statements(__file__)


@dataclass
class SequenceResult:
    """What a run of the sequencer did. `tenancies` were touched, `enqueued` queue entries written."""

    rows: int = 0
    batches: int = 0
    by_table: Counter[str] = field(default_factory=Counter[str])
    touched: set[UUID] = field(default_factory=set[UUID])
    enqueued: int = 0
    duration_ms: int = 0
    stopped_by: StoppedBy = "drained"


def prune_stamps(conn: Connection) -> None:
    """Forget the times of old stamps; a copy further behind than that shows the age of the oldest one kept.

    And what stamped tombstones hold besides their keys, some at a time: the backend's own function leaves it there.
    """
    conn.execute(_SQL["prune_stamp_log"])
    conn.execute(_SQL["empty_tombstones"], {"limit": EMPTIED_AT_ONCE})


def _to_missing_error(tables: Collection[str]) -> StateError:
    names = ", ".join(f'"{name}"' for name in sorted(tables))
    return StateError(
        f"gone from the operated database, or no longer sequenced: {names}; what changes there is not sent",
        code="table-missing",
        hint="restore the tables, or remove their mappings (`stackctl doctor` says what is missing)",
        details={"tables": sorted(tables)},
    )


@dataclass
class _Batch:
    """What one transaction has done so far: rows by table, their tenancies, and the highest id given.

    `progress` counts the rows that mappings do not send, too; `taken` is what the turns are to learn of after the
    commit.
    """

    stamped: Counter[str] = field(default_factory=Counter[str])
    tenancies: set[UUID] = field(default_factory=set[UUID])
    highest: int = 0
    progress: int = 0
    taken: list[tuple[TurnTaker, list[TakenRows], int]] = field(
        default_factory=list[tuple[TurnTaker, list[TakenRows], int]]
    )


class _TenanciesAhead(Exception):
    """Rows of these carry ids above the sequence's next: what the transaction in hand has stamped is not to stay."""

    def __init__(self, tenancies: set[UUID]) -> None:
        super().__init__()
        self.tenancies = tenancies


class _Moved(Exception):
    """The server behind the connection is another one than that whose ids are known."""


class Sequencer:
    """Stamps over one connection (autocommit), for the tables of these mappings.

    A batch has up to `batch_size` rows of each table. Where it `grows`, it has more while a backlog lasts, as many as
    take no longer than HOLD: what a batch costs besides its rows is a tenth of 1,000 of them.

    `pending_work` is what it found when it last looked; given the `lease` of a poller, it looks for the poller's, too.
    `behind`: the StateError `sequence-behind` as long as tenancies are left out for it; `missing`: the StateError
    `table-missing` as long as tables are. `place`: where the database lives, noticed before any id is given there.
    Raises StateError `not-migrated` where there are no tombstones.
    """

    def __init__(
        self,
        conn: Connection,
        mappings: Sequence[Mapping],
        *,
        batch_size: int,
        grows: bool = False,
        lease: timedelta | None = None,
    ) -> None:
        self._conn = conn
        self._batch_size = self._size = batch_size
        self._grows = grows
        self._lease = lease
        self._all_mappings = mappings
        self._looked = 0.0
        self._full = False  # the last batch was, so that more is likely to wait
        self._skipped: dict[UUID, float] = {}
        self._compose(find_missing_tables(conn, mappings))
        self._compared: set[UUID] = set()  # tenancies whose stamps were found below the sequence
        self._ahead: set[UUID] = set()  # and those that are left out for a while because they were not
        self._collided = 0.0  # when the next try is due after ids collided with those that rows carry
        self.behind: StateError | None = None
        self.place: Place = notice_place(conn, self._mappings)

    def _compose(self, missing: frozenset[str]) -> None:
        """What is run for every batch, without these tables."""
        self._missing, self._looked_for_missing = missing, time.monotonic()
        self.missing = _to_missing_error(missing) if missing else None
        self._mappings = [one for one in self._all_mappings if one.source not in missing]
        self._stampings = compose_stampings(self._conn, self._all_mappings, missing)
        # Put together once, not for every batch.
        self._statements = [stamping.statement.as_bytes(self._conn) for stamping in self._stampings]
        self._probe = WorkProbe(self._conn, self._stampings, lease=self._lease)
        self._turns = [TurnTaker(self._batch_size, whole=stamping.whole) for stamping in self._stampings]
        self.pending_work: PendingWork | None = None

    def _notice_missing(self) -> bool:
        """Whether other tables are missing than before."""
        missing, self._looked_for_missing = find_missing_tables(self._conn, self._all_mappings), time.monotonic()
        if missing == self._missing:
            return False
        self._compose(missing)
        return True

    @property
    def tables(self) -> tuple[str, ...]:
        """Those whose changes it waits for."""
        return tuple(stamping.table for stamping in self._stampings)

    def stamp_batch(self, result: SequenceResult) -> Outcome:
        """One transaction: stamps up to a batch of every table that has marked rows, tenancies taking turns.

        Tables that are gone are passed over, and taken up again when they are back.

        "held": all rows that were looked at wait for others that are locked, and more are behind them.

        The stamps, the parents' marks, the stamp log and the queue entries commit together (no lost wake-up), and
        with them the sequencers' lock is released. Adds to `result` after the commit.

        An application that queues a tenancy itself and then changes its rows takes these locks in the other order. So
        the entries are waited for only shortly; whose entry can't be had is left out for a while. A tenancy with stamps
        above the sequence (see sequence_position.py) is left out, and tried again now and then.
        """
        if self._missing and time.monotonic() - self._looked_for_missing >= MISSING_INTERVAL:
            self._notice_missing()
        try:
            return self._stamp_present(result)
        except (errors.UndefinedTable, errors.UndefinedColumn):
            if not self._notice_missing():
                raise
            return self._stamp_present(result)

    def _stamp_present(self, result: SequenceResult) -> Outcome:
        fresh = not self._full or time.monotonic() - self._looked >= LOOK_INTERVAL
        if fresh or self.pending_work is None:
            self.pending_work, self._looked = self._probe.find_work(), time.monotonic()
        if not self.pending_work.fuses.sequencer:
            return "fuse"
        waiting = self.pending_work.marked
        if not waiting or time.monotonic() < self._collided:
            return "idle"
        while True:
            batch, begun = _Batch(), time.monotonic()
            try:
                with pipelined_transaction(self._conn):
                    # One round trip with the first stamps, which are none without the lock.
                    asked = self._conn.execute(_SQL["try_lock"])
                    self._stamp_all(batch, waiting)
                    taken, identity = asked.fetchall()[0][:2]
                    if taken is False:
                        return "busy"
                    if identity != self.place.identity:
                        raise _Moved
                    self._refuse_ahead(batch.tenancies)
                break
            except _Moved:
                # Behind a pooler the connection outlives a fail-over.
                self.place = notice_place(self._conn, self._mappings)
            except _TenanciesAhead as found:
                self._leave_out_ahead(found.tenancies)
            except errors.UniqueViolation:
                # The sequence may have been set back just now, among ids that rows carry.
                ahead = set(find_tenancies_ahead(self._conn, self._mappings))
                if not ahead:
                    raise
                if ahead <= self._ahead:
                    self._collided = time.monotonic() + AHEAD_PAUSE
                    return "idle"
                self._leave_out_ahead(ahead)
            except errors.LockNotAvailable:
                if not self._skip_held(batch.tenancies):
                    return "busy"
        now = time.monotonic()
        notes = [turns.note_taken(rows, total, now) for turns, rows, total in batch.taken]
        self._full = any(notes)
        self._choose_size(now - begun)
        if not batch.progress:
            if not fresh:
                return self._stamp_present(result)
            # What waits is locked by transactions of the application: its turn comes when they end.
            return "held" if self._full else "idle"
        result.rows += batch.stamped.total()
        result.batches += 1
        result.by_table.update(batch.stamped)
        result.touched |= batch.tenancies
        result.enqueued += len(batch.tenancies)
        return "stamped"

    def _choose_size(self, took: float) -> None:
        """After a batch that took so many seconds: how many rows the next one is to have."""
        if self._grows:
            size = int(self._size * min(2.0, HOLD / max(took, 0.001))) if self._full else 0
            self._size = max(self._batch_size, size)
            for turns in self._turns:
                turns.limit = self._size

    def _refuse_ahead(self, tenancies: set[UUID]) -> None:
        fresh = tenancies - self._compared
        if fresh and (ahead := find_tenancies_ahead(self._conn, self._mappings, fresh)):
            raise _TenanciesAhead(set(ahead))
        self._compared |= fresh
        self._ahead -= fresh
        if not self._ahead:
            self.behind = None

    def _leave_out_ahead(self, tenancies: set[UUID]) -> None:
        self._ahead |= tenancies
        self._skipped |= dict.fromkeys(tenancies, time.monotonic() + AHEAD_PAUSE)
        self.behind = to_behind_error(self._conn, self._mappings)

    def _stamp_all(self, batch: _Batch, waiting: Collection[int]) -> None:
        now = time.monotonic()
        self._skipped = {tenancy: until for tenancy, until in self._skipped.items() if until > now}
        marked: set[str] = set()
        for number, stamping in enumerate(self._stampings):
            # Parents come after their children, and may have been marked in this very transaction.
            if number in waiting or stamping.table in marked:
                self._stamp(number, batch)
                marked |= stamping.marks
        if batch.stamped:
            # They go out together with the commit.
            self._conn.execute(_SQL["log_stamps_and_limit_lock_wait"], {"up_to": batch.highest})
            entries.enqueue(self._conn, batch.tenancies)

    def _stamp(self, number: int, batch: _Batch) -> None:
        stamping, taker = self._stampings[number], self._turns[number]
        turns = taker.list_turns(self._skipped if stamping.by_tenancy else (), time.monotonic())
        if turns is None:
            return
        parameters = vars(turns) | {"skipped": list(self._skipped)}
        found, stamped = Counter[UUID](), Counter[UUID]()
        for repeated in (False, True):
            rows = [StampedRow(*row) for row in self._conn.execute(self._statements[number], parameters)]
            all_found, all_stamped = rows[0].all_found, sum(row.stamped for row in rows)
            batch.progress += all_stamped
            if all_sent := sum(row.sent for row in rows):
                batch.stamped[stamping.table] += all_sent
                batch.highest = max(batch.highest, *(row.highest or 0 for row in rows))
                sent = (row.tenancy for row in rows if row.sent or not stamping.by_tenancy)
                batch.tenancies |= {tenancy for tenancy in sent if tenancy is not None}
            # What changed while the statement ran is seen by the next one; it is locked by now.
            last = repeated or all_found == all_stamped
            for row in rows:
                if row.turn is not None:
                    found[row.turn] += row.found if last else row.stamped
                    stamped[row.turn] += row.stamped
            if last:
                break
        taken = [TakenRows(tenancy, count, stamped[tenancy]) for tenancy, count in found.items()]
        batch.taken.append((taker, taken, turns.total))

    def _skip_held(self, tenancies: set[UUID]) -> bool:
        """Leave out those of the tenancies whose queue entry is locked; the others get one, which does no harm."""
        held: set[UUID] = set()
        for tenancy in sorted(tenancies):
            try:
                with self._conn.transaction():
                    self._conn.execute(_SQL["limit_lock_wait"])
                    entries.enqueue(self._conn, [tenancy])
            except errors.LockNotAvailable:
                held.add(tenancy)
        self._skipped |= dict.fromkeys(held, time.monotonic() + HELD_PAUSE)
        return bool(held)

    def drain(
        self, result: SequenceResult, stop: Stop, on_batch: Callable[[int], None], *, lock_wait: float = LOCK_WAIT
    ) -> StoppedBy:
        """Batches until no row waits, or another sequencer has been at work for `lock_wait` seconds; returns why."""
        waited = 0.0
        before = 0
        stamped = time.monotonic()
        while not stop.requested:
            begun = time.monotonic()
            match self.stamp_batch(result):
                case "stamped":
                    waited, stamped = 0.0, time.monotonic()
                    if result.rows > before:
                        on_batch(result.rows - before)
                    before = result.rows
                    if not self._full:
                        stop.wait(begun + BATCH_INTERVAL - stamped)
                case "held" if time.monotonic() - stamped < HELD_WAIT:
                    pass
                case "held":
                    return "drained"
                case "idle":
                    return "drained"
                case "fuse":
                    return "fuse"
                case "busy" if waited >= lock_wait:
                    return "lock-held"
                case "busy":
                    stop.wait(LOCK_POLL)
                    waited += LOCK_POLL
        return stop.reason
