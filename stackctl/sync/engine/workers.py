"""The threads that sync external databases, one database at a time each.

A job whose target does not answer gives up its place among the workers, so that hung databases hold up nobody, and is
broken off when the target's patience is over.
"""

from __future__ import annotations

import queue as queues
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from stackctl.sync.engine.database_sync import DatabaseResult, attempt_sync
from stackctl.sync.engine.source_errors import OperatedDatabaseLost
from stackctl.sync.targets.protocol import format_unfed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from uuid import UUID

    from stackctl.config.settings import ExternalDatabase
    from stackctl.mapping.compile import Compiled
    from stackctl.sync.engine.database_sync import SyncOptions
    from stackctl.sync.engine.source import Source
    from stackctl.sync.pipeline import Pipeline
    from stackctl.sync.stop import Stop
    from stackctl.sync.targets.protocol import Target

IDLE_TARGETS = 32  # connections to external databases kept open between jobs
STUCK_AFTER = 1.0  # seconds without an answer after which a job gives up its place
MAX_STUCK = 60  # jobs that may wait besides those that work
STOP_GRACE = 10.0  # seconds that a stop waits for targets that do not answer
CHECK_INTERVAL = 0.25  # seconds


class Job:
    """One attempt on one database. `stuck`: its target has not answered for a while."""

    def __init__(self, database: ExternalDatabase, release_place: Callable[[], None]) -> None:
        self.database = database
        self.future: Future[DatabaseResult] = Future()
        self.stuck = False
        self.target: Target | None = None
        self._release_place = release_place
        self._lock = threading.Lock()
        self._connecting: float | None = None

    def start_connecting(self) -> None:
        """It has its place, and connects."""
        self._connecting = time.monotonic()

    def set_target(self, target: Target) -> Target:
        self.target = target
        self._connecting = None
        return target

    def seconds_waiting(self) -> float:
        """Seconds since the target was asked for something that it has not answered yet."""
        if (target := self.target) is not None:
            return target.response_timer.seconds_waiting
        return time.monotonic() - self._connecting if self._connecting is not None else 0.0

    def release_place(self) -> None:
        """Let another job work; once."""
        with self._lock:
            release, self._release_place = self._release_place, _do_nothing
        release()


def _do_nothing() -> None:
    pass


class Workers:
    """`count` threads that work at a time, with connections that outlive the job.

    Whoever submits jobs calls `check_jobs` every now and then while they run.
    """

    def __init__(
        self, pipeline: Pipeline, count: int, options: SyncOptions, stop: Stop, *, only: str | None = None
    ) -> None:
        self._pipeline = pipeline
        self._options = replace(options, policy=replace(pipeline.change_policy, rebuild=options.rebuild))
        self._only = only
        self._stop = stop
        self._places = threading.Semaphore(count)
        self._executor = ThreadPoolExecutor(count + MAX_STUCK, thread_name_prefix="stackctl-sync")
        self._sources: queues.SimpleQueue[Source] = queues.SimpleQueue()
        self._idle: dict[ExternalDatabase, Target] = {}
        self._jobs: set[Job] = set()
        self._lock = threading.Lock()
        self._stopped_at: float | None = None

    def submit(self, database: ExternalDatabase) -> Job:
        job = Job(database, self._places.release)
        with self._lock:
            self._jobs.add(job)
        job.future = self._executor.submit(self._work, job)
        return job

    def check_jobs(self) -> None:
        """Free the places of jobs whose targets do not answer; break off those that have waited too long."""
        if self._stop.requested and self._stopped_at is None:
            self._stopped_at = time.monotonic()
        with self._lock:
            self._jobs = {job for job in self._jobs if not job.future.done()}
            jobs = list(self._jobs)
        for job in jobs:
            waited = job.seconds_waiting()
            if waited > STUCK_AFTER and not job.stuck:
                job.stuck = True
                job.release_place()
            target = job.target
            if target is None:
                continue  # connecting has its own time-out
            overdue = self._stopped_at is not None and time.monotonic() - self._stopped_at > STOP_GRACE
            if target.response_timer.is_overdue or (overdue and waited > STUCK_AFTER):
                target.abort()

    def wait(self, job: Job) -> DatabaseResult:
        """The outcome of a job."""
        while not wait([job.future], timeout=CHECK_INTERVAL).done:
            self.check_jobs()
        return job.future.result()

    def _work(self, job: Job) -> DatabaseResult:
        self._places.acquire()
        try:
            if self._stop.requested:
                database = job.database
                return DatabaseResult(database.tenancy, database.id, database.type, interrupted=True)
            return self._with_connections(job)
        finally:
            job.release_place()

    def _with_connections(self, job: Job) -> DatabaseResult:
        with self._lock:
            idle = self._idle.pop(job.database, None)
        try:
            return self._with_source(self._sources.get_nowait(), job, idle)
        except queues.Empty:
            pass
        except OperatedDatabaseLost:
            # A connection that lay idle may have been cut since; one that is new tells.
            idle = None
        return self._with_source(self._pipeline.open_source(), job, idle)

    def _with_source(self, source: Source, job: Job, idle: Target | None) -> DatabaseResult:
        try:
            result = self._attempt(source, job, idle)
            lost = result.error is not None and result.error.code == "connection-lost"
            if idle is not None and lost and not job.stuck:
                # The same goes for the target's; one that hung has had its time.
                result = self._attempt(source, job, None)
        except BaseException:
            source.close()
            raise
        self._sources.put(source)
        return result

    def _attempt(self, source: Source, job: Job, idle: Target | None) -> DatabaseResult:
        database = job.database
        result = DatabaseResult(database.tenancy, database.id, database.type)

        def open_target() -> Target:
            job.start_connecting()
            return job.set_target(idle or self._pipeline.open_target(database))

        def compile_mappings() -> Sequence[Compiled]:
            return self._pipeline.compile_mappings(database, self._only)

        target = attempt_sync(source, open_target, compile_mappings, result, self._options, self._stop)
        result.remarks += map(format_unfed, self._pipeline.find_unfed(database, result.copies))
        job.target = None
        if target is not None and target.keep_open:
            self._keep_open(database, target)
        elif target is not None:
            target.close()
        return result

    def _keep_open(self, database: ExternalDatabase, target: Target) -> None:
        with self._lock:
            surplus = self._idle.pop(database, None)
            self._idle[database] = target
            if surplus is None and len(self._idle) > IDLE_TARGETS:
                surplus = self._idle.pop(next(iter(self._idle)))
        if surplus is not None:
            surplus.close()

    def close_unconfigured(self, configured: Mapping[UUID, Sequence[ExternalDatabase]]) -> None:
        """Close the idle connections to databases that are no longer configured, or elsewhere now."""
        with self._lock:
            gone = [one for one in self._idle if one not in configured.get(one.tenancy, ())]
            closing = [self._idle.pop(one) for one in gone]
        for target in closing:
            target.close()

    def close(self) -> None:
        """Waits for the jobs in hand; they end after their batch once the stop is requested."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        while self._jobs:
            wait([job.future for job in self._jobs], timeout=CHECK_INTERVAL)
            self.check_jobs()
        self._executor.shutdown(wait=True)
        for target in self._idle.values():
            target.close()
        while not self._sources.empty():
            self._sources.get_nowait().close()


@contextmanager
def abort_when_stuck(source: Source, target: Target, stop: Stop, *, grace: float) -> Iterator[None]:
    """Watch over work on one target in this thread, as `Workers.check_jobs` does over that of the workers.

    A target that does not answer is aborted, and so are both sides when a stop comes and the work still goes on after
    `grace` seconds.
    """
    done = threading.Event()

    def watch() -> None:
        stopped_at: float | None = None
        while not done.wait(CHECK_INTERVAL):
            if target.response_timer.is_overdue:
                target.abort()
            if stop.requested and stopped_at is None:
                stopped_at = time.monotonic()
            if stopped_at is not None and time.monotonic() - stopped_at > grace:
                source.cancel_statement()
                target.abort()

    thread = threading.Thread(target=watch, name="stackctl-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
