"""Stage 3: claimed queue entries become attempts on the tenancy's external databases.

Each (tenancy, database) is a job of its own in a pool of workers, so that a failing or slow database never holds up
another. A failing one is recorded with its next attempt *before* the entry is finished: it is never reported as done,
and a kill in between only means that the tenancy is tried again.
"""

from __future__ import annotations

import queue as queues
import threading
import time
from collections import defaultdict
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from uuid import UUID

import psycopg

from stackctl.sync import delivery, fuses, queue
from stackctl.sync.engine import DatabaseResult, attempt
from stackctl.sync.source import OperatedDatabaseLost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta

    from stackctl.db import Connection
    from stackctl.settings import ExternalDatabase
    from stackctl.sync.engine import Options
    from stackctl.sync.loop import Stop
    from stackctl.sync.pipeline import Pipeline
    from stackctl.sync.source import Source
    from stackctl.sync.target import Target

IDLE_TARGETS = 32  # connections to external databases kept open between jobs
RECOVERY_INTERVAL = 5.0  # seconds between two looks for expired leases


@dataclass
class PollResult:
    """Entries `claimed` and `delivered`, attempts `failed`, leases `recovered`, databases gone `dead`."""

    claimed: int = 0
    delivered: int = 0
    failed: int = 0
    recovered: int = 0
    dead: int = 0
    duration_ms: int = 0
    stopped_by: Literal["drained", "fuse", "max-duration", "signal"] = "drained"


@dataclass
class _Work:
    """A claimed entry (None: a retry that is due) and the jobs that remain of it."""

    claim: queue.Claim | None
    tenancy: UUID
    jobs: set[Future[DatabaseResult]] = field(default_factory=set[Future[DatabaseResult]])
    results: list[DatabaseResult] = field(default_factory=list[DatabaseResult])


class Workers:
    """Threads that sync one database at a time, with connections that outlive the job."""

    def __init__(
        self, pipeline: Pipeline, count: int, options: Options, stop: Stop, *, only: str | None = None
    ) -> None:
        self._pipeline = pipeline
        self._options = options
        self._only = only
        self._stop = stop
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="stackctl-sync")
        self._sources: queues.SimpleQueue[Source] = queues.SimpleQueue()
        self._idle: dict[tuple[UUID, str], Target] = {}
        self._lock = threading.Lock()

    def submit(self, database: ExternalDatabase) -> Future[DatabaseResult]:
        return self._executor.submit(self._job, database)

    def _job(self, database: ExternalDatabase) -> DatabaseResult:
        key = (database.tenancy, database.id)
        with self._lock:
            idle = self._idle.pop(key, None)
        try:
            return self._with_source(self._sources.get_nowait(), database, key, idle)
        except queues.Empty:
            pass
        except OperatedDatabaseLost:
            # A connection that lay idle may have been cut since; one that is new tells.
            idle = None
        return self._with_source(self._pipeline.open_source(), database, key, idle)

    def _with_source(
        self, source: Source, database: ExternalDatabase, key: tuple[UUID, str], idle: Target | None
    ) -> DatabaseResult:
        try:
            result = self._attempt(source, database, key, idle)
            if idle is not None and result.error is not None and result.error.code == "connection-lost":
                # The same goes for the target's.
                result = self._attempt(source, database, key, None)
        except BaseException:
            source.close()
            raise
        self._sources.put(source)
        return result

    def _attempt(
        self, source: Source, database: ExternalDatabase, key: tuple[UUID, str], idle: Target | None
    ) -> DatabaseResult:
        result = DatabaseResult(database.tenancy, database.id, database.type)
        target = attempt(
            source,
            lambda: idle or self._pipeline.open_target(database),
            lambda: self._pipeline.compiled(database, self._only),
            result,
            self._options,
            self._stop,
        )
        self._keep(key, target)
        return result

    def _keep(self, key: tuple[UUID, str], target: Target | None) -> None:
        if target is None:
            return
        with self._lock:
            surplus = self._idle.pop(key, None)
            self._idle[key] = target
            if surplus is None and len(self._idle) > IDLE_TARGETS:
                surplus = self._idle.pop(next(iter(self._idle)))
        if surplus is not None:
            surplus.close()

    def close(self) -> None:
        """Waits for the jobs in hand; they end after their batch once the stop is requested."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        for target in self._idle.values():
            target.close()
        while not self._sources.empty():
            self._sources.get_nowait().close()


class Poller:
    """Claims over one connection (autocommit) and hands the work to `workers`."""

    def __init__(
        self,
        conn: Connection,
        pipeline: Pipeline,
        workers: Workers,
        *,
        claim_limit: int,
        interval: timedelta,
        lease: timedelta = queue.LEASE,
        on_result: Callable[[DatabaseResult], None] = lambda result: None,
    ) -> None:
        self._conn = conn
        self._databases = pipeline.databases
        self._workers = workers
        self._claim_limit = claim_limit
        self._interval = interval.total_seconds()
        self._lease = lease
        self._on_result = on_result
        self._works: list[_Work] = []
        self._renewed = self._recovered = 0.0

    def drain(self, result: PollResult, stop: Stop) -> Literal["drained", "fuse", "max-duration", "signal"]:
        """Work until nothing is pending, due or in hand; returns why it ended. Nothing stays in hand."""
        try:
            while True:
                stopped = stop.requested
                fuse = not stopped and not fuses.read(self._conn).poller
                if not stopped and not fuse:
                    self._recover(result)
                    self._take(result)
                if not self._works:
                    return stop.reason if stopped else "fuse" if fuse else "drained"
                self._wait()
                self._settle(result)
        except BaseException:
            self._abandon()
            raise

    def _recover(self, result: PollResult) -> None:
        if self._recovered and time.monotonic() - self._recovered < RECOVERY_INTERVAL:
            return
        self._recovered = time.monotonic()
        result.recovered += queue.recover(self._conn, self._lease)

    def _take(self, result: PollResult) -> None:
        room = self._claim_limit - len(self._works)
        if room <= 0:
            return
        # A tenancy in hand is not taken a second time: its jobs would wait for the cursor and block the workers.
        for claim in queue.claim(self._conn, room, [work.tenancy for work in self._works]):
            result.claimed += 1
            self._works.append(self._start(claim))
        room = self._claim_limit - len(self._works)
        due: dict[UUID, set[str]] = defaultdict(set)
        for tenancy, database in delivery.claim_due(
            self._conn, max(room, 0), self._lease, [work.tenancy for work in self._works]
        ):
            due[tenancy].add(database)
        for tenancy, names in due.items():
            found = [d for d in self._databases.get(tenancy, ()) if d.id in names]
            for gone in names - {d.id for d in found}:
                # No longer configured: nothing is left to retry.
                delivery.record_success(self._conn, tenancy, gone)
            if found:
                self._works.append(self._submit(_Work(None, tenancy), found))

    def _start(self, claim: queue.Claim) -> _Work:
        try:
            tenancy = UUID(claim.tenancy or "")
        except ValueError:
            # No tenancy can be read from it, now or later; it is finished without jobs.
            return _Work(claim, UUID(int=0))
        databases = self._databases.get(tenancy, [])
        resting = delivery.waiting(self._conn, tenancy) if databases else set[str]()
        return self._submit(_Work(claim, tenancy), [d for d in databases if d.id not in resting])

    def _submit(self, work: _Work, databases: Iterable[ExternalDatabase]) -> _Work:
        work.jobs = {self._workers.submit(database) for database in databases}
        return work

    def _wait(self) -> None:
        """Until a job is done or it is time to look for more; renews the leases when they want it."""
        jobs = {job for work in self._works for job in work.jobs}
        if jobs and all(work.jobs for work in self._works):
            wait(jobs, timeout=self._interval, return_when=FIRST_COMPLETED)
        if time.monotonic() - self._renewed >= self._lease.total_seconds() / 3:
            self._renew()

    def _renew(self) -> None:
        self._renewed = time.monotonic()
        held = {work.claim.id: work for work in self._works if work.claim is not None}
        renewed = queue.renew(self._conn, [work.claim for work in held.values() if work.claim is not None])
        for claim in renewed:
            held[claim.id].claim = claim

    def _settle(self, result: PollResult) -> None:
        for work in list(self._works):
            done = {job for job in work.jobs if job.done()}
            work.jobs -= done
            for job in done:
                work.results.append(job.result())
                self._on_result(work.results[-1])
            if not work.jobs:
                self._works.remove(work)
                self._finish(work, result)

    def _finish(self, work: _Work, result: PollResult) -> None:
        """Record the outcomes and finish the entry, in one transaction."""
        failed = [r for r in work.results if r.error is not None]
        interrupted = any(r.interrupted for r in work.results)
        dead = 0
        recovered = False
        with self._conn.transaction():
            for outcome in work.results:
                if outcome.error is not None:
                    dead += delivery.record_failure(self._conn, work.tenancy, outcome.database, outcome.error)
                elif not outcome.interrupted:
                    recovered |= delivery.record_success(self._conn, work.tenancy, outcome.database)
            if recovered:
                queue.enqueue(self._conn, [work.tenancy])
            if work.claim is not None:
                if interrupted:
                    queue.release(self._conn, work.claim)
                else:
                    queue.finish(self._conn, work.claim)
        result.failed += len(failed)
        result.dead += dead
        if work.claim is not None and not failed and not interrupted:
            result.delivered += 1

    def _abandon(self) -> None:
        """Give up what is in hand; what can't be given back now comes back when its lease expires."""
        for work in self._works:
            for job in work.jobs:
                job.cancel()
            if work.claim is not None:
                with suppress(psycopg.Error):
                    queue.release(self._conn, work.claim)
        self._works.clear()
