"""The loops: the sequencer, the poller, and both in one process.

Each is its single pass repeated. A loop outlives the operated database: while that is away, it knocks again with a
growing pause; `once` raises instead.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stackctl.errors import ServiceError
from stackctl.sync import delivery, queue
from stackctl.sync.poller import Poller, PollResult, Workers
from stackctl.sync.sequencer import Sequencer, SequenceResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from stackctl.sync.engine import DatabaseResult
    from stackctl.sync.loop import Stop
    from stackctl.sync.pipeline import Pipeline

FIRST_PAUSE = 0.5  # seconds before knocking at a lost database again, doubled up to the longest
LONGEST_PAUSE = 30.0  # seconds
_PASSING = ("unreachable", "connection-lost", "replica-lags", "out-of-resources")
FUSE_PAUSE = 1.0  # seconds between two looks at a fuse that is off


@dataclass
class Reports:
    """Who hears of what, as it happens; called from the thread in which it happens."""

    sequenced: Callable[[SequenceResult], None] = lambda result: None
    polled: Callable[[PollResult], None] = lambda result: None
    synced: Callable[[DatabaseResult], None] = lambda result: None
    trouble: Callable[[ServiceError], None] = lambda error: None


@dataclass
class RunResult:
    """What `run` did, stage by stage."""

    sequence: SequenceResult = field(default_factory=SequenceResult)
    poll: PollResult = field(default_factory=PollResult)


def sequence(
    pipeline: Pipeline, stop: Stop, *, batch_size: int, interval: timedelta | None, reports: Reports
) -> SequenceResult:
    """Stamp until nothing is left, or with an `interval` for ever; `reports.sequenced` hears of each batch."""
    result = SequenceResult()

    def work() -> None:
        with pipeline.session() as conn:
            sequencer = Sequencer(conn, list(pipeline.mappings.values()), batch_size=batch_size)
            while True:
                result.stopped_by = sequencer.drain(result, stop, reports.sequenced)
                if interval is None or stop.requested:
                    return
                stop.wait(FUSE_PAUSE if result.stopped_by == "fuse" else interval.total_seconds())

    _timed(result, lambda: _persistent(work, stop, reports) if interval is not None else work())
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
    """Work off the queue until nothing is left, or with an `interval` for ever; the loop also sweeps.

    `wake` ends a pause early: set it when something was queued.
    """
    result = PollResult()
    pause = interval or pipeline.settings.get("sync.poller_interval")

    def work() -> None:
        workers = Workers(pipeline, pipeline.settings.get("sync.workers"), stop)
        try:
            with pipeline.session() as conn:
                poller = Poller(
                    conn,
                    pipeline,
                    workers,
                    claim_limit=claim_limit,
                    interval=pause,
                    lease=lease,
                    on_result=reports.synced,
                )
                while True:
                    if interval is not None and delivery.sweep_due(conn):
                        queue.enqueue(conn, queue.existing(conn, pipeline.databases))
                    before = result.claimed + result.failed
                    result.stopped_by = poller.drain(result, stop)
                    if result.claimed + result.failed != before:
                        reports.polled(result)
                    if interval is None or stop.requested:
                        return
                    _pause(stop, wake, FUSE_PAUSE if result.stopped_by == "fuse" else interval.total_seconds())
        finally:
            workers.close()

    _timed(result, lambda: _persistent(work, stop, reports) if interval is not None else work())
    if interval is not None:
        result.stopped_by = stop.reason
    return result


def run(pipeline: Pipeline, stop: Stop, *, claim_limit: int, reports: Reports) -> RunResult:
    """Sequencer, poller and engine in this process until the stop; a stamp wakes the poller at once."""
    settings = pipeline.settings
    wake = threading.Event()
    result = RunResult()
    failures: list[BaseException] = []

    def sequenced(done: SequenceResult) -> None:
        wake.set()
        reports.sequenced(done)

    def stamp() -> None:
        try:
            result.sequence = sequence(
                pipeline,
                stop,
                batch_size=settings.get("sync.stamp_batch_size"),
                interval=settings.get("sync.sequencer_interval"),
                reports=Reports(sequenced=sequenced, trouble=reports.trouble),
            )
        except BaseException as error:  # noqa: BLE001 - carried to the main thread, and raised there
            failures.append(error)
            stop.set()

    # Read here, so that a mistake in a file is reported once and before anything starts.
    _ = pipeline.mappings, pipeline.databases
    thread = threading.Thread(target=stamp, name="stackctl-sequencer")
    thread.start()
    try:
        result.poll = poll(
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
    return result


def _timed(result: SequenceResult | PollResult, work: Callable[[], None]) -> None:
    started = time.monotonic()
    try:
        work()
    finally:
        result.duration_ms = round((time.monotonic() - started) * 1000)


def _persistent(work: Callable[[], None], stop: Stop, reports: Reports) -> None:
    """Repeat `work` while it fails for want of the operated database, once that has been reached."""
    pause = FIRST_PAUSE
    reached = False
    while not stop.requested:
        started = time.monotonic()
        try:
            work()
            return
        except ServiceError as error:
            if error.code not in _PASSING or (error.code == "unreachable" and not reached):
                raise
            reached = True
            if time.monotonic() - started > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            reports.trouble(error)
        stop.wait(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def _pause(stop: Stop, wake: threading.Event | None, seconds: float) -> None:
    if wake is None:
        stop.wait(seconds)
        return
    # A signal sets the stop, not the wake: it is noticed after one interval at the latest.
    if wake.wait(seconds):
        wake.clear()
