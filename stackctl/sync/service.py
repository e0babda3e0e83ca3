"""What the commands run: sequencer and poller, once or in a loop, both in one process, and a sync by hand.

A loop is its single pass repeated. A loop outlives the operated database: while that is away, it knocks again with a
growing pause; `once` raises instead.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from stackctl.errors import ServiceError, StateError, UsageError
from stackctl.sync import delivery, queue
from stackctl.sync.engine import DatabaseResult, Options
from stackctl.sync.pipeline import unknown
from stackctl.sync.poller import Poller, PollResult
from stackctl.sync.sequencer import Sequencer, SequenceResult, prune_stamp_log
from stackctl.sync.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from stackctl.db import Connection
    from stackctl.errors import StackctlError
    from stackctl.settings import ExternalDatabase
    from stackctl.sync.loop import Stop
    from stackctl.sync.pipeline import Pipeline

FIRST_PAUSE = 0.5  # seconds before knocking at a lost database again, doubled up to the longest
LONGEST_PAUSE = 30.0  # seconds
_PASSING = (
    "unreachable",
    "connection-lost",
    "replica-lags",
    "out-of-resources",
    "deadlock",
    "statement-timeout",
    "lock-timeout",
)
STOP_NOTICED = 0.1  # seconds in which a pause that waits for a wake-up notices the stop
RETRY_PAUSE = timedelta(seconds=5)  # between two tries of refused rows, however often a database is synced
FUSE_PAUSE = 1.0  # seconds between two looks at a fuse that is off


@dataclass(frozen=True)
class Reports:
    """Who hears of what, as it happens; called from the thread in which it happens.

    `stamped` hears of each batch of the sequencer, `sequenced` and `polled` of each pass of a loop that did
    something, `synced` of each attempt on a database.
    """

    stamped: Callable[[int], None] = lambda rows: None
    sequenced: Callable[[SequenceResult], None] = lambda result: None
    polled: Callable[[PollResult], None] = lambda result: None
    synced: Callable[[DatabaseResult], None] = lambda result: None
    trouble: Callable[[StackctlError], None] = lambda error: None


def sequence(
    pipeline: Pipeline, stop: Stop, *, batch_size: int, interval: timedelta | None, reports: Reports
) -> SequenceResult:
    """Stamp until nothing is left, or with an `interval` for ever; returns the last pass."""
    result = SequenceResult()
    reached = threading.Event()

    def work() -> None:
        nonlocal result
        with pipeline.session() as conn:
            reached.set()
            pipeline.check(conn)
            sequencer = Sequencer(conn, list(pipeline.mappings.values()), batch_size=batch_size)
            while True:
                result, started = SequenceResult(), time.monotonic()
                result.stopped_by = sequencer.drain(result, stop, reports.stamped)
                result.duration_ms = _milliseconds(started)
                if interval is None or stop.requested:
                    return
                if result.rows:
                    reports.sequenced(result)
                stop.wait(FUSE_PAUSE if result.stopped_by == "fuse" else interval.total_seconds())

    _persistent(work, reached, stop, reports=reports, forever=interval is not None)
    if interval is not None:
        result.stopped_by = stop.reason
    return result


def poll(
    pipeline: Pipeline,
    stop: Stop,
    *,
    claim_limit: int,
    interval: timedelta | None,
    reports: Reports,
    wake: threading.Event | None = None,
    lease: timedelta = queue.LEASE,
) -> PollResult:
    """Work off the queue until nothing is left, or with an `interval` for ever; returns the last pass.

    The loop also sweeps. `wake` ends a pause early: set it when something was queued.
    """
    result = PollResult()
    reached = threading.Event()
    settings = pipeline.settings
    options = Options(batch_size=settings.get("sync.batch_size"), retry_pause=RETRY_PAUSE)

    def work() -> None:
        nonlocal result
        workers = Workers(pipeline, settings.get("sync.workers"), options, stop)
        try:
            with pipeline.session() as conn:
                reached.set()
                pipeline.check(conn)
                poller = Poller(
                    conn,
                    pipeline,
                    workers,
                    claim_limit=claim_limit,
                    interval=interval or settings.get("sync.poller_interval"),
                    lease=lease,
                    on_result=reports.synced,
                )
                while True:
                    if interval is not None and delivery.sweep_due(conn):
                        queue.enqueue(conn, queue.existing(conn, pipeline.databases))
                        prune_stamp_log(conn)
                    result, started = PollResult(), time.monotonic()
                    result.stopped_by = poller.drain(result, stop)
                    result.duration_ms = _milliseconds(started)
                    if interval is None or stop.requested:
                        return
                    if result.claimed or result.failed or result.recovered:
                        reports.polled(result)
                    _pause(stop, wake, FUSE_PAUSE if result.stopped_by == "fuse" else interval.total_seconds())
        finally:
            workers.close()

    _persistent(work, reached, stop, reports=reports, forever=interval is not None)
    if interval is not None:
        result.stopped_by = stop.reason
    return result


def run(pipeline: Pipeline, stop: Stop, *, claim_limit: int, reports: Reports) -> None:
    """Sequencer, poller and engine in this process until the stop; a stamp wakes the poller at once."""
    settings = pipeline.settings
    wake = threading.Event()
    failures: list[BaseException] = []

    def sequenced(done: SequenceResult) -> None:
        wake.set()
        reports.sequenced(done)

    def stamp() -> None:
        try:
            last = sequence(
                pipeline,
                stop,
                batch_size=settings.get("sync.stamp_batch_size"),
                interval=settings.get("sync.sequencer_interval"),
                reports=replace(reports, sequenced=sequenced, stamped=lambda rows: wake.set()),
            )
            if last.rows:  # the pass that the stop cut short
                reports.sequenced(last)
        except BaseException as error:  # noqa: BLE001 - carried to the main thread, and raised there
            failures.append(error)
            stop.set()

    thread = threading.Thread(target=stamp, name="stackctl-sequencer")
    thread.start()
    try:
        poll(
            pipeline,
            stop,
            claim_limit=claim_limit,
            interval=settings.get("sync.poller_interval"),
            reports=reports,
            wake=wake,
        )
    except BaseException:
        stop.set()
        raise
    finally:
        thread.join()
    if failures:
        raise failures[0]


@dataclass(frozen=True)
class Scope:
    """What `sync` was asked for; None stands for all of it."""

    tenancies: Sequence[UUID] | None
    database: str | None = None
    mapping: str | None = None


def sync(pipeline: Pipeline, scope: Scope, options: Options, stop: Stop, reports: Reports) -> list[DatabaseResult]:
    """Sync these databases now, without the queue and whatever the fuses say; in the order of the configuration.

    Raises UsageError for a tenancy, database or mapping that was named and does not exist.
    """
    chosen = select(pipeline, scope)
    with pipeline.session() as conn:
        pipeline.check(conn)
        known = queue.existing(conn, {database.tenancy for database in chosen})
        strange = {database.tenancy for database in chosen} - known
        if scope.tenancies is not None and strange:
            raise UsageError(
                f"tenancy {min(strange)} does not exist in the operated database",
                code="unknown-tenancy",
                hint='the ids are in the table "Tenancy"; correct the command or stackctl.yaml',
            )
        workers = Workers(pipeline, pipeline.settings.get("sync.workers"), options, stop, only=scope.mapping)
        results: list[DatabaseResult] = []
        try:
            jobs = [(database, workers.submit(database) if database.tenancy in known else None) for database in chosen]
            for database, job in jobs:
                result = workers.wait(job) if job is not None else _strange(database)
                if not result.interrupted and database.tenancy in known:
                    _record(conn, result)
                results.append(result)
                reports.synced(result)
        except BaseException:
            stop.set()
            raise
        finally:
            workers.close()
    return results


def select(pipeline: Pipeline, scope: Scope) -> list[ExternalDatabase]:
    """The configured databases that the scope names; UsageError for a name that there is not."""
    if scope.mapping is not None:
        pipeline.mapping(scope.mapping)
    for tenancy in scope.tenancies or ():
        if tenancy not in pipeline.databases:
            raise UsageError(
                f"tenancy {tenancy} has no external database in the configuration",
                code="unknown-tenancy",
                hint="add it under `tenancies:` in stackctl.yaml; `stackctl config show` lists those that are there",
            )
    tenancies = pipeline.databases if scope.tenancies is None else dict.fromkeys(scope.tenancies)
    found = [database for tenancy in tenancies for database in pipeline.databases[tenancy]]
    if scope.database is not None:
        named = [database for database in found if database.id == scope.database]
        if not named:
            raise unknown("external database", scope.database, [database.id for database in found])
        found = named
    if scope.mapping is not None:
        found = [d for d in found if d.mappings is None or scope.mapping in d.mappings]
    return found


def _strange(database: ExternalDatabase) -> DatabaseResult:
    error = StateError(
        f"tenancy {database.tenancy} does not exist in the operated database",
        code="unknown-tenancy",
        hint="correct stackctl.yaml",
    )
    return DatabaseResult(database.tenancy, database.id, database.type, status="error", error=error)


def _record(conn: Connection, result: DatabaseResult) -> None:
    # A sync by hand that fails is retried by the poller as well; one that goes well ends the retries.
    with conn.transaction():
        if result.error is not None:
            recorded = delivery.record_failure(conn, result.tenancy, result.database, result.error, scheduled=True)
            recovered = recorded.recovered
        else:
            recovered = delivery.record_success(conn, result.tenancy, result.database)
        if recovered:
            queue.enqueue(conn, [result.tenancy])


def _milliseconds(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


def _persistent(
    work: Callable[[], None], reached: threading.Event, stop: Stop, *, reports: Reports, forever: bool
) -> None:
    """Do `work`; a loop repeats it while it fails for want of the operated database, once that was `reached`."""
    if not forever:
        work()
        return
    pause = FIRST_PAUSE
    while not stop.requested:
        started = time.monotonic()
        try:
            work()
            return
        except (ServiceError, StateError) as error:
            if error.code not in _PASSING or (error.code == "unreachable" and not reached.is_set()):
                raise
            if time.monotonic() - started > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            reports.trouble(error)
        stop.wait(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def _pause(stop: Stop, wake: threading.Event | None, seconds: float) -> None:
    if wake is None:
        stop.wait(seconds)
        return
    # The stop does not set the wake, so it is looked at now and then, however long the pause.
    deadline = time.monotonic() + seconds
    while not stop.requested and (left := deadline - time.monotonic()) > 0:
        if wake.wait(min(left, STOP_NOTICED)):
            wake.clear()
            return
