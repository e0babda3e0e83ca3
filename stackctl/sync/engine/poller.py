"""Stage 3: queue entries become attempts on the tenancies' external databases.

An entry is turned at once into a record of each database (queue/deliveries.py), and each database is a job of its own
in a pool of workers, so that a failing or slow one never holds up another. What fails is recorded with its next attempt
*before* the record is finished: it is never reported as done, and a kill in between only means that it is tried again.

The tenancies take turns. A database that takes longer than a moment gives up its place among those that are quick, and
works beside them with others of its kind; when those are too many, it lets the next have a turn between two batches.
"""

from __future__ import annotations

import time
import uuid
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from uuid import UUID

import psycopg

from stackctl.core.errors import ConfigError
from stackctl.sync.changes.sequencer import prune_stamps
from stackctl.sync.changes.wakeup import WorkProbe
from stackctl.sync.engine.source_errors import OperatedDatabaseLost
from stackctl.sync.engine.workers import MAX_STUCK
from stackctl.sync.queue import claims, deliveries, entries, known_databases, pauses, retries
from stackctl.sync.queue.deliveries import WHOLE, Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import timedelta

    from stackctl.config.settings import ExternalDatabase
    from stackctl.postgres.connect import Connection
    from stackctl.sync.changes.wakeup import PendingWork
    from stackctl.sync.engine.database_sync import DatabaseResult
    from stackctl.sync.engine.requests import Outcome, SyncRequests
    from stackctl.sync.engine.workers import Job, Workers
    from stackctl.sync.pipeline import Pipeline

RECOVERY_INTERVAL = 5.0  # seconds between two looks for expired leases
PRUNE_INTERVAL = 600.0  # seconds between two prunings of what only tells of the past
PAUSES_INTERVAL = 1.0  # seconds between two looks at what is paused while something is in hand
QUICK = 0.2  # seconds after which a job is no longer among the quick ones
TURN = 1.0  # seconds that a slow one works while others of its kind wait


@dataclass
class PollResult:
    """Entries `claimed` and `delivered`, attempts `failed`, leases `recovered`, copies and databases gone `dead`.

    `paused`: times that a database was due and switched off, or a mapping of it.
    """

    claimed: int = 0
    delivered: int = 0
    failed: int = 0
    recovered: int = 0
    dead: int = 0
    paused: int = 0
    duration_ms: int = 0
    stopped_by: Literal["drained", "fuse", "max-duration", "signal"] = "drained"


@dataclass
class _Work:
    """A database in hand. `slow`: it works besides the quick ones. `told`: that it does not answer is recorded."""

    delivery: Delivery
    job: Job
    slow: bool = False
    told: bool = False


class Poller:
    """Hands what is due to `workers`, tick by tick; keeps what is in hand when its connection is lost.

    `loops`: it sweeps as well. `requests` are answered besides. Without `takes_entries` the queue is left to others,
    and it works on what they and the requests have recorded.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        workers: Workers,
        *,
        claim_limit: int,
        lease: timedelta = entries.LEASE,
        loops: bool = False,
        requests: SyncRequests | None = None,
        takes_entries: bool = True,
        on_result: Callable[[Connection, DatabaseResult], None] = lambda conn, result: None,
    ) -> None:
        self._pipeline = pipeline
        self._workers = workers
        self._claim_limit = claim_limit
        self._lease = lease
        self._loops = loops
        self._requests = requests
        self._takes_entries = takes_entries
        self._on_result = on_result
        self._holder = uuid.uuid4()
        self._works: dict[deliveries.Key, _Work] = {}
        self._owed = _OwedEntries()
        self._renewed = 0.0
        self._recovered = self._pruned = float("-inf")
        self._configured = False
        self._paused: list[pauses.Pause] = []
        self._pauses_read = float("-inf")
        self._conn: Connection
        self._probe: WorkProbe

    def connect(self, conn: Connection) -> None:
        """Work over this connection (autocommit) from now on."""
        self._conn = conn
        self._probe = WorkProbe(conn, lease=self._lease)
        self._renew_leases()

    @property
    def is_working(self) -> bool:
        """Whether anything is in hand."""
        return bool(self._works)

    @property
    def has_results(self) -> bool:
        """Whether anything that was in hand has ended."""
        return any(work.job.future.done() for work in self._works.values())

    def tick(self, result: PollResult, *, stopping: bool = False) -> PendingWork | None:
        """Record what has ended, do what is due besides, and hand out more; what was found to do (None when stopping).

        Raises OperatedDatabaseLost of a worker, after that.
        """
        self._workers.check_jobs()
        lost = self._record_results(result)
        self._watch_jobs()
        if time.monotonic() - self._renewed >= self._lease.total_seconds() / 3:
            self._renew_leases()
        found = None
        if not stopping and lost is None:
            self._prune()
            found = self._probe.find_work()
            if found.fuses.poller:
                altered = self._reconfigure()
                swept = self._loops and found.sweep_due and self._sweep()
                if found.queued or altered or swept or (self._requests is not None and self._requests.has_new):
                    self._find_due(result)
            elif self._requests is not None:
                self._accept_requests(self._requests)
                self._requests.postpone_all()
        if lost is not None:
            raise lost
        return found

    def wait(self, seconds: float) -> None:
        """Until a job in hand has ended."""
        wait([work.job.future for work in self._works.values()], timeout=seconds, return_when=FIRST_COMPLETED)

    def give_up(self) -> None:
        """Give back what is in hand; what can't be given back now comes back when its lease expires."""
        for work in self._works.values():
            work.job.future.cancel()
            with suppress(psycopg.Error):
                deliveries.reopen(self._conn, self._holder, work.delivery.key, retry=work.delivery.retry)
        self._works.clear()

    # -- what is due besides

    def _reconfigure(self) -> bool:
        """Take up what changed in the configuration, the first time also what changed since somebody last did.

        A database of a tenancy that was not known here was not sent what came for it, so one that is new is queued.
        Whether anything may have been.
        """
        changes = self._pipeline.refresh(self._conn)
        if not changes and self._configured:
            return False
        if self._takes_entries and not self._configured:
            claims.take_back(self._conn)
        if self._pipeline.settings.file_in_effect is not None:  # else nobody has said which there are
            altered = {(one.tenancy, one.id) for one in changes.altered}
            known_databases.take_up(self._conn, self._pipeline.fingerprint_databases(), altered)
        self._configured = True
        self._workers.close_unconfigured(self._pipeline.databases)
        return True

    def _sweep(self) -> bool:
        """Queue every tenancy, if nobody else did; whether that was done."""
        if not retries.claim_sweep(self._conn):
            return False
        entries.enqueue(self._conn, entries.find_existing_tenancies(self._conn, self._pipeline.databases))
        return True

    def _prune(self) -> None:
        if time.monotonic() - self._pruned >= PRUNE_INTERVAL:
            self._pruned = time.monotonic()
            prune_stamps(self._conn)

    def _renew_leases(self) -> None:
        self._renewed = time.monotonic()
        if self._works:
            deliveries.renew(self._conn, self._holder)
        for work in self._works.values():
            if work.told:
                self._record_no_answer(work)

    def _record_no_answer(self, work: _Work) -> None:
        work.told = True
        retries.record_no_answer(self._conn, *work.delivery.key, self._lease)

    # -- taking

    def _find_due(self, result: PollResult) -> None:
        if time.monotonic() - self._recovered >= RECOVERY_INTERVAL:
            self._recovered = time.monotonic()
            if self._takes_entries:
                result.recovered += entries.recover_expired(self._conn, self._lease)
            result.recovered += deliveries.recover_expired(self._conn, self._holder, self._lease)
        deliveries.add_due_retries(self._conn, self._lease)
        while self._takes_entries and self._take_entries(result) == self._claim_limit:
            pass
        if self._requests is not None:
            self._accept_requests(self._requests)
        works = [work for work in self._works.values() if not work.job.stuck]
        quick = self._workers.count - sum(not work.slow for work in works)
        slow = self._workers.count - sum(work.slow for work in works)
        room = self._workers.count + MAX_STUCK - len(self._works)
        self._lease_some(result, min(quick, room), slow=False)
        self._lease_some(result, min(slow, room - max(quick, 0)), slow=True)

    def _take_entries(self, result: PollResult) -> int:
        """Turn entries into records of the databases; how many entries that were."""
        databases: dict[UUID, list[ExternalDatabase]] = {}
        with self._conn.transaction():
            taken = entries.take(self._conn, self._claim_limit)
            for text in taken:
                with suppress(ValueError):  # no tenancy can be read from it, now or later
                    databases[UUID(text or "")] = self._pipeline.databases.get(UUID(text or ""), [])
            deliveries.add(self._conn, [(one.tenancy, one.id) for found in databases.values() for one in found])
        result.claimed += len(taken)
        result.delivered += len(taken) - len(databases)
        for tenancy, found in databases.items():
            result.delivered += self._owed.add(tenancy, {one.id for one in found})
        return len(taken)

    def _accept_requests(self, requests: SyncRequests) -> None:
        """Turn what is asked for into records of the databases."""
        new = requests.list_new()
        if not new:
            return
        databases = self._pipeline.databases
        found = {one.tenancy: [database.id for database in databases.get(one.tenancy, [])] for one in new}
        deliveries.add(self._conn, [(tenancy, id_) for tenancy, ids in found.items() for id_ in ids])
        for one in new:
            requests.accept(one, found[one.tenancy], self._works.keys())

    def _settle(self, key: deliveries.Key, outcome: Outcome) -> None:
        if self._requests is not None:
            self._requests.settle(key, outcome)

    def _lease_some(self, result: PollResult, limit: int, *, slow: bool) -> None:
        if limit <= 0:
            return
        leased = deliveries.lease(self._conn, self._holder, limit, slow=slow, busy=self._works.keys())
        # Not before: whoever ends a pause queues what it held up, and one of the two sees the other.
        if leased:
            self._read_pauses()
        for delivery in leased:
            database = self._find_database(delivery)
            paused = self._list_paused(delivery.key)
            result.paused += bool(paused)
            if database is None or WHOLE in delivery.resting | paused:
                # Nothing is left to retry; or its next attempt lies ahead, and takes all that has changed by then; or
                # whoever ends the pause queues it.
                with self._conn.transaction():
                    if database is None:
                        retries.record_success(self._conn, *delivery.key)
                    deliveries.finish(self._conn, self._holder, delivery.key)
                result.delivered += self._owed.pay(delivery.key)
                self._settle(delivery.key, "failing" if WHOLE in delivery.resting else "paused" if paused else "ok")
                continue
            if not delivery.retry and delivery.tenancy not in self._owed:
                # Somebody else has taken its entry, and left it at that.
                result.claimed += 1
                self._owed.add(delivery.tenancy, {delivery.database})
            job = self._workers.submit(database, delivery.resting | paused, placed=not slow)
            self._works[delivery.key] = _Work(delivery, job, slow)
            if self._requests is not None:
                self._requests.start(delivery.key)

    def _read_pauses(self) -> None:
        self._pauses_read = time.monotonic()
        self._paused = pauses.list_pauses(self._conn)

    def _list_paused(self, key: deliveries.Key) -> frozenset[str]:
        """The mappings of a database that are switched off; WHOLE: all of it is."""
        return frozenset(
            one.mapping or WHOLE for one in self._paused if pauses.find_pause([one], *key, one.mapping) is not None
        )

    def _find_database(self, delivery: Delivery) -> ExternalDatabase | None:
        databases = self._pipeline.databases.get(delivery.tenancy, ())
        return next((one for one in databases if one.id == delivery.database), None)

    # -- in hand

    def _watch_jobs(self) -> None:
        """Have the jobs take turns, and record which do not answer."""
        if self._works and time.monotonic() - self._pauses_read >= PAUSES_INTERVAL:
            self._read_pauses()
        for work in self._works.values():
            if self._list_paused(work.delivery.key).difference(work.job.skipped):
                work.job.pause.wanted = True
            if work.job.stuck:
                if not work.told:
                    self._record_no_answer(work)
            elif not work.slow and work.job.seconds_working > QUICK:
                work.slow = True
                work.job.release_place()
        slow = [work for work in self._works.values() if work.slow and not work.job.stuck]
        surplus = len(slow) - self._workers.count
        if surplus < 0:
            return
        slow.sort(key=lambda work: work.job.seconds_working)
        for work in slow[:surplus]:
            work.job.pause.wanted = True
        longest = slow[-1].job
        if longest.seconds_working > TURN and not longest.pause.wanted:
            longest.pause.wanted = deliveries.has_slow_waiting(self._conn)

    def _record_results(self, result: PollResult) -> OperatedDatabaseLost | None:
        """Record what has ended; a worker's loss of the operated database is returned, not raised."""
        lost = None
        for key, work in list(self._works.items()):
            if not work.job.future.done():
                continue
            try:
                outcome = work.job.future.result()
            except OperatedDatabaseLost as error:
                lost = error
                outcome = None
            self._record(result, work, outcome)
            del self._works[key]
            if outcome is not None:
                self._on_result(self._conn, outcome)
        return lost

    def _record(self, result: PollResult, work: _Work, outcome: DatabaseResult | None) -> None:
        """Record the outcome (None: it has none) and finish the delivery, in one transaction."""
        delivery = work.delivery
        if outcome is None:
            deliveries.reopen(self._conn, self._holder, delivery.key, retry=delivery.retry)
            return
        with self._conn.transaction():
            dead = record_outcome(self._conn, outcome, delivery.retry)
            if outcome.interrupted:
                retry = delivery.retry - ({WHOLE} if outcome.mappings else set())
                slow = work.slow and bool(outcome.mappings)
                deliveries.reopen(self._conn, self._holder, delivery.key, slow=slow, retry=retry)
            elif outcome.unfinished:
                deliveries.reopen(self._conn, self._holder, delivery.key, slow=True)
            else:
                deliveries.finish(self._conn, self._holder, delivery.key)
        result.dead += dead
        result.failed += outcome.error is not None
        if not outcome.interrupted:
            result.delivered += self._owed.pay(delivery.key, failed=outcome.error is not None)
            wrong = "misconfigured" if isinstance(outcome.error, ConfigError) else "failing"
            self._settle(delivery.key, wrong if outcome.error is not None or delivery.resting else "ok")


def record_outcome(conn: Connection, outcome: DatabaseResult, scheduled: Collection[str] | None = None) -> int:
    """Record what failed and forget what failed before and does no more; how many copies or databases are given up.

    `scheduled` are the mappings (WHOLE: the database) whose attempt this was; None: all. In order of the mappings, in
    the caller's transaction.
    """
    of = (outcome.tenancy, outcome.database)
    if outcome.failed and outcome.error is not None:
        return retries.record_failure(conn, *of, outcome.error, scheduled=True)
    if outcome.interrupted and not outcome.mappings:
        return 0
    bad = {one.mapping: one.error for one in outcome.mappings if one.error is not None}
    good = {WHOLE, *(one.mapping for one in outcome.mappings)} - bad.keys()
    if not outcome.interrupted:
        good |= {*(scheduled or ())} - bad.keys()  # and those that are no longer configured
    # Of rows that are rejected only the end of an attempt tells.
    retries.record_success(conn, *of, good, rejections=not outcome.interrupted)
    dead = 0
    for mapping, error in sorted(bad.items()):
        planned = scheduled is None or mapping in scheduled
        dead += retries.record_failure(conn, *of, error, scheduled=planned, mapping=mapping)
    return dead


class _OwedEntries:
    """What was taken and is not delivered yet, by tenancy: how many entries, and for which databases."""

    def __init__(self) -> None:
        self._entries: dict[UUID, int] = {}
        self._databases: dict[UUID, set[str]] = {}

    def __contains__(self, tenancy: UUID) -> bool:
        return tenancy in self._databases

    def add(self, tenancy: UUID, databases: set[str]) -> int:
        """An entry of this tenancy, for these databases; 1 when there are none."""
        if not databases:
            return 1
        self._entries[tenancy] = self._entries.get(tenancy, 0) + 1
        self._databases.setdefault(tenancy, set()).update(databases)
        return 0

    def pay(self, key: deliveries.Key, *, failed: bool = False) -> int:
        """A database has all; how many entries are delivered by that. With one that `failed`, none of them is."""
        tenancy, database = key
        if failed:
            self._entries[tenancy] = 0
        owed = self._databases.get(tenancy, set())
        owed.discard(database)
        if owed:
            return 0
        self._databases.pop(tenancy, None)
        return self._entries.pop(tenancy, 0)
