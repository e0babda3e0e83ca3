"""What the commands run: sequencer and poller, once or in a loop, both in one process, and a sync by hand.

A loop is its single pass repeated. A loop outlives the operated database: while that is away, it knocks again with a
growing pause; `once` raises instead.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from stackctl.core.errors import ServiceError, StackctlError, StateError
from stackctl.sync.changes.sequencer import LOCK_WAIT, Sequencer, SequenceResult
from stackctl.sync.changes.wakeup import SLOW_TICK, Listener, PendingWork, open_listener
from stackctl.sync.configuration import ConfigurationWatch
from stackctl.sync.engine.database_sync import DatabaseResult, SyncOptions
from stackctl.sync.engine.poller import Poller, PollResult, record_outcome
from stackctl.sync.engine.workers import Workers
from stackctl.sync.queue import deliveries, entries, known_databases, retries
from stackctl.sync.reports import LoadedFiles, OutcomeReporter, Reports, hear_once
from stackctl.sync.scope import Scope, find_unknown_tenancies, select_databases

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stackctl.postgres.connect import Connection
    from stackctl.sync.engine.requests import SyncRequests
    from stackctl.sync.pipeline import Pipeline
    from stackctl.sync.stop import Stop, WakeUpSignal

FIRST_PAUSE = 0.5  # seconds before knocking at a lost database again, doubled up to the longest
LONGEST_PAUSE = 30.0  # seconds
_PASSING = (
    "unreachable",
    "not-postgresql",  # what a server says that goes down during the handshake
    "too-many-connections",
    "connection-lost",
    "replica-lags",
    "out-of-resources",
    "deadlock",
    "statement-timeout",
    "lock-timeout",
)
RETRY_PAUSE = timedelta(seconds=5)  # between two tries of rejected rows, however often a database is synced
RESEND_TIME = 5.0  # seconds that rows of changed mappings are sent again before it is another tenancy's turn
BUSY_TICK = 0.05  # seconds between two looks while databases are in hand
CALM_TICK = 0.02  # seconds at least between two looks while those in hand go on: each batch of stamps asks for one
LONGEST_PASS = 10.0  # seconds after which a loop tells what it did, though it is not through
FUSE_PAUSE = 1.0  # seconds between two looks at a fuse that is off


class OneTimeCheck:
    """The check of a pipeline: once a process, however often its loops connect.

    A mapping that the database stops bearing out later fails by itself; it does not end the loop.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._lock = threading.Lock()
        self._done = False

    def run_once(self, conn: Connection) -> None:
        with self._lock:
            if not self._done:
                self._pipeline.check_ready(conn, without_missing=True)
                self._done = True


def sequence(
    pipeline: Pipeline,
    stop: Stop,
    *,
    batch_size: int | None = None,
    interval: timedelta | None,
    reports: Reports,
    on_pending_work: Callable[[PendingWork], None] | None = None,
    check: OneTimeCheck | None = None,
    watch: ConfigurationWatch | None = None,
) -> SequenceResult:
    """Stamp until nothing is left, or with an `interval` for ever; returns the last pass.

    Without a `batch_size`, batches are as the configuration says, and grow where it says nothing.

    Given `on_pending_work`, the loop looks for the poller's work as well, and says at each tick what it found. `check`
    and `watch` are shared with another loop of this process.
    """
    result = SequenceResult()
    configured = pipeline.settings.setting("sync.stamp_batch_size")
    check = check or OneTimeCheck(pipeline)
    link = _Link(reports)
    loaded = LoadedFiles(pipeline.settings, reports.warned)
    watch = watch or ConfigurationWatch(pipeline)
    warned = hear_once(reports.warned)

    def work() -> None:
        nonlocal result
        with pipeline.open_session() as conn:
            link.reached = True
            check.run_once(conn)
            sequencer = Sequencer(
                conn,
                list(pipeline.mappings.values()),
                batch_size=batch_size or configured.value,
                grows=batch_size is None and configured.source == "default",
                lease=entries.LEASE if on_pending_work else None,
            )
            link.up()
            looping = interval is not None
            tables = [*sequencer.tables, *([entries.QUEUE] if on_pending_work else [])]
            listener = _open_listener(pipeline, conn, tables, warned) if looping else None
            while True:
                result, started = SequenceResult(), time.monotonic()
                # In a loop, one that finds another at work has other things to look for meanwhile.
                result.stopped_by = sequencer.drain(
                    result, stop, reports.stamped, lock_wait=0 if looping else LOCK_WAIT
                )
                result.duration_ms = _milliseconds(started)
                if sequencer.place.before is not None:
                    warned(
                        f"the operated database has moved ({sequencer.place.before} to {sequencer.place.identity}): a"
                        " standby was promoted, or it was restored. If transactions were lost, run"
                        " `stackctl verify --repair`"
                    )
                for waits in filter(None, (sequencer.behind, sequencer.missing)):
                    if interval is None:
                        raise waits
                    warned(f"{waits.message}: {waits.hint}")
                if interval is None or stop.requested:
                    return
                if result.rows:
                    reports.sequenced(result)
                found = sequencer.pending_work
                if on_pending_work is not None and found is not None:
                    on_pending_work(found)
                loaded.warn_of_changes()
                _look_at_configuration(watch, stop, reports)
                pause = interval.total_seconds()
                if result.stopped_by == "fuse" and on_pending_work is None:
                    pause = max(pause, FUSE_PAUSE)
                if listener is not None and not (found is not None and (found.marked or found.queued)):
                    pause = max(pause, SLOW_TICK)
                _pause(stop, pause, listener=listener)

    _repeat_until_done(work, link, stop, forever=interval is not None)
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
    wakeup: WakeUpSignal | None = None,
    lease: timedelta = entries.LEASE,
    check: OneTimeCheck | None = None,
    watch: ConfigurationWatch | None = None,
    requests: SyncRequests | None = None,
    takes_entries: bool = True,
) -> PollResult:
    """Process the queue until nothing is left, or with an `interval` for ever; returns the last pass.

    The loop also sweeps. `wakeup`, a signal of `stop`, ends a pause early: whoever sends it has found work. `requests`
    are answered besides; without `takes_entries` the queue itself is left to others.
    """
    result = PollResult()
    check = check or OneTimeCheck(pipeline)
    link = _Link(reports)
    settings = pipeline.settings
    looping = interval is not None
    outcomes = OutcomeReporter(reports)
    loaded = LoadedFiles(settings, reports.warned)
    watch = watch or ConfigurationWatch(pipeline)
    warned = hear_once(reports.warned)
    listens = looping and wakeup is None and takes_entries
    signal = wakeup or stop.new_wakeup_signal()
    on_result = outcomes.report if looping else lambda conn, outcome: outcomes.tell(outcome)
    if takes_entries and settings.get("sync.dispatch") != "direct":
        from stackctl.sync.dispatch.dispatcher import Dispatcher
        from stackctl.sync.dispatch.endpoint import Endpoint
        from stackctl.sync.dispatch.qstash import DeliveryService

        assert requests is None
        poller = Dispatcher(
            pipeline,
            (Endpoint if settings.get("sync.dispatch") == "http" else DeliveryService).from_settings(settings),
            claim_limit=claim_limit,
            lease=lease,
            loops=looping,
            on_done=signal.send,
            on_result=on_result,
            on_trouble=lambda error: warned(f"{error.message}: {error.hint}"),
        )
        close = poller.close
    else:
        options = SyncOptions(
            settings.get("sync.batch_size"),
            retry_pause=RETRY_PAUSE,
            repair_rewound=settings.get("sync.on_failover") == "repair",
            resend_time=RESEND_TIME,
        )
        workers = Workers(pipeline, settings.get("sync.workers"), options, stop, on_done=signal.send)
        poller = Poller(
            pipeline,
            workers,
            claim_limit=claim_limit,
            lease=lease,
            loops=looping,
            requests=requests,
            takes_entries=takes_entries,
            on_result=on_result,
        )
        close = workers.close
    if requests is not None:
        requests.wake = signal.send

    def work() -> None:
        nonlocal result
        # An entry that is taken, or its end, is taken or ended again if a crash of the server takes that back, which
        # changes nothing; and their order stays.
        with pipeline.open_session(lazy_commits=True) as conn:
            link.reached = True
            check.run_once(conn)
            _ = pipeline.databases  # a mistake in them is told before anything is taken
            link.up()
            poller.connect(conn)
            listener = _open_listener(pipeline, conn, [entries.QUEUE], warned) if listens else None
            started = time.monotonic()
            while True:
                before, looked = replace(result), time.monotonic()
                found = poller.tick(result, stopping=stop.requested)
                result.duration_ms = _milliseconds(started)
                busy = poller.is_working or result != replace(before, duration_ms=result.duration_ms)
                if found is None:
                    if not busy:
                        result.stopped_by = stop.reason
                        return
                    poller.wait(BUSY_TICK)
                    continue
                if interval is None and not busy:
                    result.stopped_by = "drained" if found.fuses.poller else "fuse"
                    return
                if looping and (not busy or time.monotonic() - started > LONGEST_PASS):
                    if result.claimed or result.failed or result.recovered:
                        reports.polled(result)
                    result, started = PollResult(), time.monotonic()
                loaded.warn_of_changes()
                _look_at_configuration(watch, stop, reports)
                if poller.is_working:
                    stop.wait(BUSY_TICK, signal)
                    while not (stop.requested or poller.has_results):
                        if (rest := looked + CALM_TICK - time.monotonic()) <= 0:
                            break
                        stop.wait(rest, signal)
                elif interval is not None and not busy:
                    pause = interval.total_seconds()
                    if not found.fuses.poller:
                        pause = max(pause, FUSE_PAUSE)
                    if listener is not None and not found.queued:
                        pause = max(pause, SLOW_TICK)
                    _pause(stop, pause, signal=signal, listener=listener)

    def work_or_give_up() -> None:
        try:
            work()
        except BaseException as error:
            if not (looping and isinstance(error, StackctlError) and link.is_passing(error)):
                poller.give_up()
            raise

    try:
        _repeat_until_done(work_or_give_up, link, stop, forever=looping)
    finally:
        close()
    if looping:
        result.stopped_by = stop.reason
    return result


def run(
    pipeline: Pipeline, stop: Stop, *, claim_limit: int, reports: Reports, requests: SyncRequests | None = None
) -> None:
    """Sequencer, poller and engine in this process until the stop; a stamp wakes the poller at once.

    The sequencer's ticks look for both. The poller's own are slow: they are there for when the sequencer is held up.
    `requests` are answered by the poller, besides.
    """
    settings = pipeline.settings
    reports = replace(reports, warned=hear_once(reports.warned))
    wakeup = stop.new_wakeup_signal()
    check, watch = OneTimeCheck(pipeline), ConfigurationWatch(pipeline)
    failures: list[BaseException] = []
    ticks: timedelta = settings.get("sync.sequencer_interval")
    own: timedelta = settings.get("sync.poller_interval")
    if ticks <= own:
        own = max(own, timedelta(seconds=SLOW_TICK))

    def on_pending_work(found: PendingWork) -> None:
        if found.fuses.poller and (found.queued or found.sweep_due):
            wakeup.send()

    def trouble(error: StackctlError) -> None:
        reports.trouble(error)
        wakeup.send()  # the poller notices now, and not when this one is through it again

    def stamp() -> None:
        try:
            last = sequence(
                pipeline,
                stop,
                interval=ticks,
                reports=replace(reports, stamped=lambda rows: wakeup.send(), trouble=trouble),
                on_pending_work=on_pending_work,
                check=check,
                watch=watch,
            )
            if last.rows:  # the pass that the stop cut short
                reports.sequenced(last)
        except BaseException as error:  # noqa: BLE001 - carried to the main thread, and raised there
            failures.append(error)
            stop.set()

    thread = threading.Thread(target=stamp, name="stackctl-sequencer")
    thread.start()
    try:
        poll(pipeline, stop, claim_limit=claim_limit, interval=own, reports=reports, wakeup=wakeup, check=check,
             watch=watch, requests=requests)  # fmt: skip
    except BaseException:
        stop.set()
        raise
    finally:
        thread.join()
    if failures:
        raise failures[0]


def sync(pipeline: Pipeline, scope: Scope, options: SyncOptions, stop: Stop, reports: Reports) -> list[DatabaseResult]:
    """Sync these databases now, without the queue and whatever the fuses say; in the order of the configuration.

    Raises UsageError for a tenancy, database or mapping that was named and does not exist.
    """
    databases = select_databases(pipeline, scope)
    with pipeline.open_session() as conn:
        pipeline.check_ready(
            conn, [one for database in databases for one in pipeline.compile_mappings(database, scope.mappings)]
        )
        unknown = find_unknown_tenancies(conn, databases, scope)
        workers = Workers(pipeline, pipeline.settings.get("sync.workers"), options, stop, only=scope.mappings)
        results: list[DatabaseResult] = []
        try:
            jobs = [(one, workers.submit(one) if one.tenancy not in unknown else None) for one in databases]
            for database, job in jobs:
                if job is None:
                    error = unknown[database.tenancy]
                    result = DatabaseResult(database.tenancy, database.id, database.type, status="error", error=error)
                else:
                    result = workers.wait(job)
                    if not result.interrupted:
                        _record(conn, result)
                    if result.error is None and not result.interrupted and scope.mappings is None:
                        known_databases.record(conn, {(database.tenancy, database.id): pipeline.fingerprint(database)})
                results.append(result)
                reports.synced(result)
        except BaseException:
            stop.set()
            raise
        finally:
            workers.close()
    return results


def _record(conn: Connection, result: DatabaseResult) -> None:
    # A sync by hand that fails is retried by the poller as well; one that goes well ends the retries. What rested has
    # been passed over by changes, maybe after this attempt read its rows.
    key = (result.tenancy, result.database)
    with conn.transaction():
        rested = retries.find_failure(conn, *key) is not None
        record_outcome(conn, result)
        if rested:
            deliveries.add(conn, [key])


def _look_at_configuration(watch: ConfigurationWatch, stop: Stop, reports: Reports) -> None:
    reload = watch.look(at_once=stop.take_reload_request())
    if reload is not None:
        reports.reloaded(reload)


def _milliseconds(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


class _Link:
    """Whether the operated database can be had, and whether it ever could."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._lost = False
        self._was_up = False
        self.reached = False

    def up(self) -> None:
        self.reached = self._was_up = True
        if self._lost:
            self._lost = False
            self._reports.regained()

    def is_passing(self, error: StackctlError) -> bool:
        """Whether a loop outlives it; what keeps it from beginning may as well be a mistake in the configuration."""
        if error.code == "not-migrated":
            return self._was_up  # a table was renamed or dropped since
        return error.code in _PASSING and not (error.code in _PASSING[:3] and not self.reached)

    def down(self, error: StackctlError) -> None:
        self._lost = True
        self._reports.trouble(error)


def _repeat_until_done(work: Callable[[], None], link: _Link, stop: Stop, *, forever: bool) -> None:
    """Do `work`; a loop repeats it while it fails for want of the operated database, once that was reached."""
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
            if not link.is_passing(error):
                raise
            if time.monotonic() - started > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            link.down(error)
        stop.wait(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def _open_listener(
    pipeline: Pipeline, conn: Connection, tables: Sequence[str], warned: Callable[[str], None]
) -> Listener | None:
    """What hears of changes of these tables, where the configuration asks for it and it is possible."""
    if pipeline.settings.get("sync.wakeup") != "notify":
        return None
    try:
        return open_listener(conn, tables, pipeline.open_session)
    except StateError as error:
        if error.code != "no-notifications":
            raise
        warned(f"sync.wakeup: notify is not possible, and it ticks instead: {error.message} ({error.hint})")
        return None


def _pause(stop: Stop, seconds: float, *, signal: WakeUpSignal | None = None, listener: Listener | None = None) -> bool:
    """Until the next tick, the stop, a notification or the `signal`; whether that was sent."""
    if listener is None:
        return stop.wait(seconds, signal)
    listener.wait(seconds, stop)
    return False
