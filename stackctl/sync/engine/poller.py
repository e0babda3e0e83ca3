"""Stage 3: claimed queue entries become attempts on the tenancy's external databases.

Each (tenancy, database) is a job of its own in a pool of workers, so that a failing or slow database never holds up
another. A failing one is recorded with its next attempt *before* the entry is finished: it is never reported as done,
and a kill in between only means that the tenancy is tried again.
"""

from __future__ import annotations

import time
from collections import defaultdict
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from uuid import UUID

import psycopg

from stackctl.sync.engine.database_sync import DatabaseResult
from stackctl.sync.engine.workers import CHECK_INTERVAL, Job
from stackctl.sync.queue import entries, fuses, known_databases, retries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta

    from stackctl.config.settings import ExternalDatabase
    from stackctl.postgres.connect import Connection
    from stackctl.sync.engine.workers import Workers
    from stackctl.sync.pipeline import Pipeline
    from stackctl.sync.stop import Stop

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
class _ClaimedWork:
    """A claimed entry (None: a retry that is due) and the jobs that remain of it.

    `detached`: its databases do not answer. They rest, with a hold on them that is renewed, and new entries of the
    tenancy are worked off without them.
    """

    claim: entries.Claim | None
    tenancy: UUID
    detached: bool = False
    jobs: set[Job] = field(default_factory=set[Job])
    results: list[DatabaseResult] = field(default_factory=list[DatabaseResult])


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
        lease: timedelta = entries.LEASE,
        on_result: Callable[[DatabaseResult], None] = lambda result: None,
    ) -> None:
        self._conn = conn
        self._pipeline = pipeline
        self._workers = workers
        self._claim_limit = claim_limit
        self._interval = interval.total_seconds()
        self._lease = lease
        self._on_result = on_result
        self._works: list[_ClaimedWork] = []
        self._renewed = self._recovered = 0.0
        self._configured = False

    def drain(self, result: PollResult, stop: Stop) -> Literal["drained", "fuse", "max-duration", "signal"]:
        """Work until nothing is pending, due or in hand; returns why it ended. Nothing stays in hand."""
        try:
            while True:
                stopped = stop.requested
                fuse = not stopped and not fuses.read_fuses(self._conn).poller
                if not stopped and not fuse:
                    self.reconfigure()
                    self._recover(result)
                    self._claim_work(result)
                if not self._works:
                    return stop.reason if stopped else "fuse" if fuse else "drained"
                self._wait()
                self._collect_results(result)
        except BaseException:
            self._abandon()
            raise

    def reconfigure(self) -> None:
        """Take up what changed in the configuration, the first time also what changed since somebody last did.

        An entry of a tenancy that was not known here is finished without jobs, so one that is new must be queued.
        """
        changes = self._pipeline.refresh(self._conn)
        if not changes and self._configured:
            return
        if self._pipeline.settings.file_in_effect is not None:  # else nobody has said which there are
            altered = {(one.tenancy, one.id) for one in changes.altered}
            known_databases.take_up(self._conn, self._pipeline.fingerprint_databases(), altered)
        self._configured = True
        self._workers.close_unconfigured(self._pipeline.databases)

    def _recover(self, result: PollResult) -> None:
        if self._recovered and time.monotonic() - self._recovered < RECOVERY_INTERVAL:
            return
        self._recovered = time.monotonic()
        result.recovered += entries.recover_expired(self._conn, self._lease)

    def _list_busy_tenancies(self) -> list[UUID]:
        # A tenancy in hand is not taken a second time: its jobs would wait for the cursor and block the workers.
        return [work.tenancy for work in self._works if not work.detached]

    def _claim_work(self, result: PollResult) -> None:
        busy = self._list_busy_tenancies()
        room = self._claim_limit - len(busy)
        if room <= 0:
            return
        for claim in entries.claim(self._conn, room, busy):
            result.claimed += 1
            self._works.append(self._start(claim))
        busy = self._list_busy_tenancies()
        room = self._claim_limit - len(busy)
        due: dict[UUID, set[str]] = defaultdict(set)
        for tenancy, database in retries.claim_due(self._conn, max(room, 0), self._lease, busy):
            due[tenancy].add(database)
        for tenancy, names in due.items():
            found = [d for d in self._pipeline.databases.get(tenancy, ()) if d.id in names]
            for gone in names - {d.id for d in found}:
                # No longer configured: nothing is left to retry.
                retries.record_success(self._conn, tenancy, gone)
            if found:
                self._works.append(self._submit(_ClaimedWork(None, tenancy), found))

    def _start(self, claim: entries.Claim) -> _ClaimedWork:
        try:
            tenancy = UUID(claim.tenancy or "")
        except ValueError:
            # No tenancy can be read from it, now or later; it is finished without jobs.
            return _ClaimedWork(claim, UUID(int=0))
        databases = self._pipeline.databases.get(tenancy, [])
        resting = retries.list_databases_in_backoff(self._conn, tenancy) if databases else set[str]()
        return self._submit(_ClaimedWork(claim, tenancy), [d for d in databases if d.id not in resting])

    def _submit(self, work: _ClaimedWork, databases: Iterable[ExternalDatabase]) -> _ClaimedWork:
        work.jobs = {self._workers.submit(database) for database in databases}
        return work

    def _wait(self) -> None:
        """Until a job is done or it is time to look for more; renews the leases when they want it."""
        jobs = {job.future for work in self._works for job in work.jobs}
        if jobs and all(work.jobs for work in self._works):
            wait(jobs, timeout=min(self._interval, CHECK_INTERVAL), return_when=FIRST_COMPLETED)
        self._workers.check_jobs()
        if time.monotonic() - self._renewed >= self._lease.total_seconds() / 3:
            self._renew()

    def _renew(self) -> None:
        self._renewed = time.monotonic()
        held = {work.claim.id: work for work in self._works if work.claim is not None}
        renewed = entries.renew(self._conn, [work.claim for work in held.values() if work.claim is not None])
        for claim in renewed:
            held[claim.id].claim = claim
        for work in self._works:
            if work.detached:
                self._record_no_answer(work)

    def _record_no_answer(self, work: _ClaimedWork) -> None:
        for job in work.jobs:
            retries.record_no_answer(self._conn, work.tenancy, job.database.id, self._lease)

    def _collect_results(self, result: PollResult) -> None:
        for work in list(self._works):
            done = {job for job in work.jobs if job.future.done()}
            work.jobs -= done
            for job in done:
                work.results.append(job.future.result())
            if work.jobs and not work.detached and all(job.stuck for job in work.jobs):
                self._detach(work)
            if not work.jobs:
                self._works.remove(work)
                self._finish(work, result)

    def _detach(self, work: _ClaimedWork) -> None:
        """What hangs goes on by itself: its databases are held first, so that nothing is forgotten in a kill."""
        apart = _ClaimedWork(None, work.tenancy, detached=True, jobs=work.jobs)
        self._record_no_answer(apart)
        self._works.append(apart)
        work.jobs = set()

    def _finish(self, work: _ClaimedWork, result: PollResult) -> None:
        """Record the outcomes and finish the entry, in one transaction."""
        failed = [r for r in work.results if r.error is not None]
        interrupted = any(r.interrupted for r in work.results)
        dead = 0
        recovered = False
        with self._conn.transaction():
            for outcome in work.results:
                if outcome.error is not None:
                    recorded = retries.record_failure(
                        self._conn, work.tenancy, outcome.database, outcome.error, scheduled=work.claim is None
                    )
                    dead += recorded.dead
                    recovered |= recorded.recovered
                elif not outcome.interrupted:
                    recovered |= retries.record_success(self._conn, work.tenancy, outcome.database)
            if recovered or any(one.unfinished for one in work.results):
                entries.enqueue(self._conn, [work.tenancy])
            if work.claim is not None:
                if interrupted:
                    entries.release(self._conn, work.claim)
                else:
                    entries.finish(self._conn, work.claim)
        result.failed += len(failed)
        result.dead += dead
        if work.claim is not None and not failed and not interrupted:
            result.delivered += 1
        for outcome in work.results:
            self._on_result(outcome)

    def _abandon(self) -> None:
        """Give up what is in hand; what can't be given back now comes back when its lease expires."""
        for work in self._works:
            for job in work.jobs:
                job.future.cancel()
            if work.claim is not None:
                with suppress(psycopg.Error):
                    entries.release(self._conn, work.claim)
        self._works.clear()
