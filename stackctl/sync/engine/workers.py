"""The threads that sync external databases, one database at a time each.

A job whose target does not answer gives up its place among the workers, so that hung databases hold up nobody, and is
broken off when the target's patience is over.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from stackctl.core.errors import ServiceError
from stackctl.sync.engine.database_sync import DatabaseResult, attempt_sync
from stackctl.sync.engine.source_errors import OperatedDatabaseLost
from stackctl.sync.stop import Pause
from stackctl.sync.targets.protocol import format_unfed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
    """One attempt on one database, without the mappings `skipped`. `stuck`: its target has not answered for a while.

    `pause.wanted` has it end after the batch in hand. Others may break off the target that it has at the time: what it
    has given back, or closed, may be somebody else's already.
    """

    def __init__(
        self, database: ExternalDatabase, skipped: Collection[str], stop: Stop, release_place: Callable[[], None]
    ) -> None:
        self.database = database
        self.skipped = skipped
        self.future: Future[DatabaseResult] = Future()
        self.stuck = False
        self.pause = Pause(stop)
        self._target: Target | None = None
        self._release_place = release_place
        self._lock = threading.Lock()
        self._started: float | None = None
        self._connecting: float | None = None

    def start(self) -> None:
        """It has its place."""
        self._started = time.monotonic()

    def start_connecting(self) -> None:
        self._connecting = time.monotonic()

    def set_target(self, target: Target | None) -> None:
        """It works with this one now; before it closes it or gives it away, with none."""
        with self._lock:
            self._target = target
        self._connecting = None

    @property
    def seconds_working(self) -> float:
        return 0.0 if self._started is None else time.monotonic() - self._started

    @property
    def seconds_waiting(self) -> float:
        """Seconds since the target was asked for something that it has not answered yet."""
        if (target := self._target) is not None:
            return target.response_timer.seconds_waiting
        return time.monotonic() - since if (since := self._connecting) is not None else 0.0

    def break_off(self, *, overdue: bool) -> None:
        """Break off what has waited too long for the target; with `overdue`, soon. Connecting has its own time-out."""
        with self._lock:
            if (target := self._target) is None:
                return
            waiting = target.response_timer
            if waiting.is_overdue or (overdue and waiting.seconds_waiting > STUCK_AFTER):
                target.abort()

    def release_place(self) -> None:
        """Let another job work; once."""
        with self._lock:
            release, self._release_place = self._release_place, _do_nothing
        release()


def _do_nothing() -> None:
    pass


class Workers:
    """`count` threads that work at a time, with connections that outlive the job.

    Whoever submits jobs calls `check_jobs` every now and then while they run. `on_done` is called by the thread of a
    job that has ended.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        count: int,
        options: SyncOptions,
        stop: Stop,
        *,
        only: Sequence[str] | None = None,
        on_done: Callable[[], None] = _do_nothing,
    ) -> None:
        self.count = count
        self._pipeline = pipeline
        self.options = replace(options, policy=replace(pipeline.change_policy, rebuild=options.rebuild))
        self._only = only
        self._stop = stop
        self._on_done = on_done
        self._places = threading.Semaphore(count)
        self._executor = ThreadPoolExecutor(count + MAX_STUCK, thread_name_prefix="stackctl-sync")
        self._sources: list[Source] = []
        self._idle: dict[ExternalDatabase, Target] = {}
        self._jobs: set[Job] = set()
        self._lock = threading.Lock()
        self._stopped_at: float | None = None

    def submit(self, database: ExternalDatabase, skipped: Collection[str] = (), *, placed: bool = True) -> Job:
        """Work on this database. A job that is not `placed` works besides those that wait for a place."""
        job = Job(database, skipped, self._stop, self._places.release if placed else _do_nothing)
        with self._lock:
            self._jobs.add(job)
        job.future = self._executor.submit(self._work, job, placed)
        job.future.add_done_callback(lambda future: self._on_done())
        return job

    def check_jobs(self) -> None:
        """Free the places of jobs whose targets do not answer; break off those that have waited too long."""
        if self._stop.requested and self._stopped_at is None:
            self._stopped_at = time.monotonic()
        overdue = self._stopped_at is not None and time.monotonic() - self._stopped_at > STOP_GRACE
        with self._lock:
            self._jobs = {job for job in self._jobs if not job.future.done()}
            jobs = list(self._jobs)
        for job in jobs:
            if job.seconds_waiting > STUCK_AFTER and not job.stuck:
                job.stuck = True
                job.release_place()
            job.break_off(overdue=overdue)

    def wait(self, job: Job) -> DatabaseResult:
        """The outcome of a job."""
        while not wait([job.future], timeout=CHECK_INTERVAL).done:
            self.check_jobs()
        return job.future.result()

    def _work(self, job: Job, placed: bool) -> DatabaseResult:
        if placed:
            self._places.acquire()
        try:
            if self._stop.requested:
                database = job.database
                return DatabaseResult(database.tenancy, database.id, database.type, interrupted=True)
            job.start()
            return self._with_connections(job)
        finally:
            job.release_place()

    def _with_connections(self, job: Job) -> DatabaseResult:
        with self._lock:
            idle = self._idle.pop(job.database, None)
        attempt = _Attempt(self, job, idle)
        try:
            result = attempt.run()
        except OperatedDatabaseLost:
            if not attempt.source_was_idle:
                raise
            # A connection that lay idle may have been cut since; one that is new tells.
            return _Attempt(self, job, None, new_source=True).run()
        lost = result.error is not None and result.error.code == "connection-lost"
        if idle is not None and lost and not job.stuck:
            # The same goes for the target's; one that hung has had its time.
            return _Attempt(self, job, None).run()
        return result

    def compile_mappings(self, job: Job) -> Sequence[Compiled]:
        found = self._pipeline.compile_mappings(job.database, self._only)
        return [one for one in found if one.mapping.name not in job.skipped]

    def find_unfed(self, database: ExternalDatabase, copies: Collection[str]) -> list[str]:
        """What to say of the copies that no mapping feeds."""
        return [format_unfed(name) for name in self._pipeline.find_unfed(database, copies)]

    def open_target(self, database: ExternalDatabase) -> Target:
        return self._pipeline.open_target(database)

    def take_source(self, *, new: bool) -> tuple[Source, bool]:
        """A connection to the operated database, and whether it lay idle. Raises OperatedDatabaseLost."""
        with self._lock:
            if self._sources and not new:
                return self._sources.pop(), True
        try:
            return self._pipeline.open_source(), False
        except ServiceError as error:
            raise OperatedDatabaseLost(error.message, code=error.code, hint=error.hint) from error

    def keep_source(self, source: Source) -> None:
        """Keep it for the next job; those above the number of workers are closed."""
        with self._lock:
            if len(self._sources) < self.count:
                self._sources.append(source)
                return
        source.close()

    def keep_target(self, database: ExternalDatabase, target: Target) -> None:
        if not target.keep_open:
            target.close()
            return
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
        for connection in (*self._idle.values(), *self._sources):
            connection.close()


class _Attempt:
    """One go at a job's database, with the idle target if there is one, and the connections that it takes."""

    def __init__(self, workers: Workers, job: Job, target: Target | None, *, new_source: bool = False) -> None:
        self._workers = workers
        self._job = job
        self._target = target
        self._new_source = new_source
        self._source: Source | None = None
        self.source_was_idle = False

    def run(self) -> DatabaseResult:
        """Raises OperatedDatabaseLost."""
        job, workers = self._job, self._workers
        database = job.database
        result = DatabaseResult(database.tenancy, database.id, database.type)
        good = False
        source_good = True
        try:
            good = attempt_sync(
                self._take_source, self._open_target, lambda: workers.compile_mappings(job), result, workers.options,
                job.pause,
            )  # fmt: skip
        except BaseException:
            source_good = False
            raise
        finally:
            job.set_target(None)
            if self._target is not None and good:
                workers.keep_target(database, self._target)
            elif self._target is not None:
                self._target.close()
            if self._source is not None and source_good:
                workers.keep_source(self._source)
            elif self._source is not None:
                self._source.close()
        result.remarks += workers.find_unfed(database, result.copies)
        return result

    def _open_target(self) -> Target:
        if self._target is None:
            self._job.start_connecting()
            self._target = self._workers.open_target(self._job.database)
        self._job.set_target(self._target)
        return self._target

    def _take_source(self) -> Source:
        self._source, self.source_was_idle = self._workers.take_source(new=self._new_source)
        return self._source


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
