"""Nothing slow, hung or interrupted holds up another: turns, leases, and steps that go on while work is in hand."""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from stackctl.core.errors import ServiceError
from stackctl.sync import service
from stackctl.sync.engine import poller as poller_module
from stackctl.sync.engine import workers as workers_module
from stackctl.sync.engine.database_sync import SyncOptions
from stackctl.sync.engine.workers import Workers
from stackctl.sync.queue import deliveries, entries, retries
from stackctl.sync.queue.deliveries import WHOLE
from stackctl.sync.stop import Stop
from stackctl.sync.targets.sqlite import SqliteTarget
from tests.backend import (
    MINE,
    OTHER,
    QUEUED,
    Connection,
    Project,
    add_many_users,
    add_user,
    differences,
    failures,
    fetch,
    one,
    poll,
    sequence,
    settle,
    wait_for,
    wait_until_blocked,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.sync.engine.database_sync import DatabaseResult
    from stackctl.sync.pipeline import Pipeline
    from tests.conftest import Connect

SOON = 0.5  # seconds in which a single change is to be visible whatever others do
LEASE = timedelta(minutes=1)


@contextmanager
def polling(pipeline: Pipeline, reports: service.Reports | None = None) -> Iterator[None]:
    """`poll --loop` in the background."""
    stop = Stop()
    interval = pipeline.settings.get("sync.poller_interval")
    thread = threading.Thread(
        target=service.poll,
        args=(pipeline, stop),
        kwargs={"claim_limit": 100, "interval": interval, "reports": reports or service.Reports()},
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def change(source: Connection, tenancy: uuid.UUID, name: str) -> None:
    """A user that is stamped and queued, without a look at the tables that a test holds locked."""
    with source.transaction():
        user = add_user(source, tenancy, displayName=name)
        source.execute(
            'UPDATE "ProjectUser" SET "sequenceId" = nextval(\'global_seq_id\'), "shouldUpdateSequenceId" = false'
            ' WHERE "projectUserId" = %s', (user,)
        )  # fmt: skip
        entries.enqueue(source, [tenancy])


def arrived(project: Project, file: str, name: str) -> bool:
    with sqlite3.connect(project.directory / file) as conn:
        return conn.execute("SELECT 1 FROM users WHERE display_name = ?", (name,)).fetchone() is not None


# -- the unit of work is one database


def test_a_slow_read_holds_up_neither_its_tenancy_nor_others(
    project: Project, source: Connection, migrated_db: str, connect: Connect
) -> None:
    """One worker; one database of MINE is at a page that takes as long as its source is locked."""
    project.sync_settings(workers=1).sqlite(MINE, "slow.db", "a_slow", mappings=["email_outboxes"])
    project.sqlite(MINE, "quick.db", "quick", mappings=["users"]).sqlite(OTHER, "other.db", mappings=["users"])
    pipeline = project.pipeline()
    settle(pipeline)
    blocker = connect(migrated_db)
    with polling(pipeline):
        change(source, OTHER, "it is up")
        wait_for(lambda: arrived(project, "other.db", "it is up") and not fetch(source, QUEUED))
        blocker.execute('LOCK TABLE "EmailOutbox"')
        entries.enqueue(source, [MINE])
        wait_until_blocked(source)
        waited: list[float] = []
        for tenancy, file in ((MINE, "quick.db"), (OTHER, "other.db"), (MINE, "quick.db")):
            started = time.monotonic()
            name = f"change {len(waited)}"
            change(source, tenancy, name)
            wait_for(lambda file=file, name=name: arrived(project, file, name))
            waited.append(time.monotonic() - started)
        blocker.rollback()
        wait_for(lambda: not fetch(source, QUEUED))
    assert min(waited) < SOON  # of three, for the sake of a busy machine
    assert differences(pipeline) == []


def test_changes_while_a_database_is_in_hand_are_sent_after_it(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    """Its cursor has passed `teams` when a team changes: another pass must follow."""
    pipeline = project.postgres(MINE, external_db, mappings=["users", "teams"]).pipeline()
    settle(pipeline)
    blocker = connect(external_db)
    with polling(pipeline):
        wait_for(lambda: fetch(source, "SELECT FROM stackctl.known_database") and not fetch(source, QUEUED))
        blocker.execute("LOCK TABLE users IN SHARE MODE")
        change(source, MINE, "first")
        wait_until_blocked(connect(external_db, autocommit=True), "stackctl sync")
        change(source, MINE, "second")
        wait_for(lambda: fetch(source, "SELECT FROM stackctl.pending_delivery WHERE again"))
        assert not fetch(source, 'SELECT FROM "OutgoingRequest"')
        blocker.rollback()
        wait_for(lambda: not fetch(source, QUEUED))
    assert differences(pipeline) == []


@pytest.mark.parametrize("order", ["add first", "finish first"])
def test_a_wake_up_meets_the_end_of_a_delivery(
    order: str, source: Connection, migrated_db: str, connect: Connect
) -> None:
    holder, key = uuid.uuid4(), (MINE, "analytics")
    deliveries.add(source, [key])
    assert deliveries.lease(source, holder, 1, slow=False, busy=[])
    first, second = connect(migrated_db), connect(migrated_db, autocommit=True)
    steps = [lambda conn: deliveries.add(conn, [key]), lambda conn: deliveries.finish(conn, holder, key)]
    if order == "finish first":
        steps.reverse()
    steps[0](first)
    thread = threading.Thread(target=steps[1], args=(second,))
    thread.start()
    wait_until_blocked(source, "%")
    first.commit()
    thread.join()
    assert fetch(source, "SELECT leased_by, again FROM stackctl.pending_delivery") == [(None, False)]


def test_only_the_holder_ends_a_delivery(source: Connection) -> None:
    key, ours, theirs = (MINE, "analytics"), uuid.uuid4(), uuid.uuid4()
    deliveries.add(source, [key])
    assert deliveries.lease(source, theirs, 1, slow=False, busy=[])
    assert deliveries.lease(source, ours, 1, slow=False, busy=[]) == []
    deliveries.finish(source, ours, key)
    deliveries.reopen(source, ours, key)
    assert deliveries.recover_expired(source, ours, LEASE) == 0
    source.execute("UPDATE stackctl.pending_delivery SET leased_at = leased_at - interval '61 s'")
    deliveries.renew(source, ours)
    deliveries.renew(source, theirs)
    assert deliveries.recover_expired(source, ours, LEASE) == 0
    source.execute("UPDATE stackctl.pending_delivery SET leased_at = leased_at - interval '61 s'")
    assert deliveries.recover_expired(source, ours, LEASE) == 1
    assert deliveries.lease(source, ours, 1, slow=False, busy=[])
    deliveries.finish(source, theirs, key)
    assert len(fetch(source, "SELECT FROM stackctl.pending_delivery")) == 1
    deliveries.finish(source, ours, key)
    assert fetch(source, "SELECT FROM stackctl.pending_delivery") == []


# -- turns


def test_tenancies_take_turns_and_so_do_their_databases(source: Connection) -> None:
    many = [(MINE, f"db{number:02}") for number in range(30)]
    deliveries.add(source, many)
    deliveries.add(source, [(OTHER, "only")])
    taken = deliveries.lease(source, uuid.uuid4(), 2, slow=False, busy=[])
    assert {one.tenancy for one in taken} == {MINE, OTHER}
    # Whoever has something in hand comes after who has not.
    deliveries.add(source, [(uuid.UUID(int=77), "third")])
    assert [one.database for one in deliveries.lease(source, uuid.uuid4(), 1, slow=False, busy=[])] == ["third"]
    # Of one tenancy, the one that has waited longest.
    first, second = (deliveries.lease(source, uuid.uuid4(), 1, slow=False, busy=[])[0] for _ in range(2))
    assert first.tenancy == second.tenancy == MINE
    deliveries.add(source, [(MINE, first.database)])
    holder = uuid.uuid4()
    source.execute("UPDATE stackctl.pending_delivery SET leased_by = %s WHERE database_id = %s",
                   (holder, first.database))  # fmt: skip
    deliveries.finish(source, holder, (MINE, first.database))
    assert max(fetch(source, "SELECT queued_at, database_id FROM stackctl.pending_delivery"))[1] == first.database


def test_two_backlogs_take_turns_page_by_page(
    project: Project, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller_module, "QUICK", 0.0)
    monkeypatch.setattr(poller_module, "TURN", 0.0)
    monkeypatch.setattr(service, "BUSY_TICK", 0.001)
    project.sync_settings(workers=1, batch_size=1)
    pipeline = project.sqlite(MINE, "a.db", mappings=["users"]).sqlite(OTHER, "b.db", mappings=["users"]).pipeline()
    settle(pipeline)
    for number, tenancy in enumerate((MINE, OTHER)):
        add_many_users(source, 60, tenancy, 1 + 100 * number)
    sequence(pipeline)
    turns: list[DatabaseResult] = []
    service.poll(pipeline, Stop(), claim_limit=8, interval=None, reports=service.Reports(synced=turns.append))
    assert differences(pipeline) == []
    assert failures(pipeline) == []
    assert {turn.interrupted for turn in turns} == {True, False}
    # Each has begun before the other was through, and each turn brought it on.
    through = min(number for number, turn in enumerate(turns) if not turn.interrupted)
    assert {turn.tenancy for turn in turns[: through + 1]} == {MINE, OTHER}
    assert all(turn.mappings[0].batches for turn in turns if turn.interrupted)
    assert fetch(source, "SELECT FROM stackctl.pending_delivery") == []


def test_two_pollers_work_off_two_thousand_tenancies(project: Project, source: Connection) -> None:
    """Each entry once, no deadlock, nothing left. Most lead nowhere; some have databases, of which one is down."""
    tenancies = [uuid.UUID(int=number) for number in range(1, 2001)]
    for number in range(0, 2000, 100):
        project.sqlite(tenancies[number], f"{number}.db", mappings=["teams"])
        project.postgres(tenancies[number], f"postgresql://nobody@127.0.0.1:1/no{number}", "down", mappings=["teams"])
    entries.enqueue(source, tenancies)
    results: list[service.PollResult] = []

    def work(pipeline: Pipeline) -> None:
        results.append(service.poll(pipeline, Stop(), claim_limit=7, interval=None, reports=service.Reports()))

    # Made before: each writes the configuration.
    threads = [threading.Thread(target=work, args=(pipeline,)) for pipeline in (project.pipeline(), project.pipeline())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert sum(result.failed for result in results) >= 20
    assert fetch(source, QUEUED) == []
    assert {failure.database for failure in failures(project.pipeline())} == {"down"}
    assert len(failures(project.pipeline())) == 20


# -- what goes on while work is in hand


def test_sweep_and_a_lost_connection_wait_for_no_job(
    project: Project, source: Connection, external_db: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "FIRST_PAUSE", 0.01)
    project.postgres(MINE, external_db, mappings=["users"]).sqlite(OTHER, "other.db", mappings=["users"])
    pipeline = project.pipeline()
    settle(pipeline)
    trouble: list[str] = []
    blocker = connect(external_db)
    with polling(pipeline, service.Reports(trouble=lambda error: trouble.append(error.code))):
        wait_for(lambda: fetch(source, "SELECT FROM stackctl.known_database") and not fetch(source, QUEUED))
        blocker.execute("LOCK TABLE users IN SHARE MODE")
        change(source, MINE, "in hand")
        wait_until_blocked(connect(external_db, autocommit=True), "stackctl sync")
        source.execute("DELETE FROM stackctl.sweep")
        wait_for(lambda: fetch(source, "SELECT FROM stackctl.sweep"))
        cut = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'stackctl'"
            " AND datname = current_database() AND query LIKE '%%sequencerEnabled%%'"
        )
        wait_for(lambda: trouble or fetch(source, cut) == 0)
        change(source, OTHER, "meanwhile")
        wait_for(lambda: arrived(project, "other.db", "meanwhile"))
        assert fetch(source, "SELECT FROM stackctl.pending_delivery WHERE leased_by IS NOT NULL")
        blocker.rollback()
        # Its outcome is recorded over the new connection; nobody takes it a second time.
        wait_for(lambda: not fetch(source, QUEUED))
    assert trouble == ["connection-lost"]
    assert failures(pipeline) == []
    assert differences(pipeline) == []


def test_a_single_pass_prunes(project: Project, source: Connection) -> None:
    source.execute(
        "INSERT INTO stackctl.stamp_log VALUES (1, now() - interval '8 days'), (2, now() - interval '1 day')"
    )
    poll(project.pipeline())
    assert fetch(source, "SELECT up_to_sequence_id FROM stackctl.stamp_log") == [(2,)]


def test_an_interrupted_retry_does_not_rest(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    pipeline = project.sync_settings(batch_size=1).postgres(MINE, external_db, mappings=["users"]).pipeline()
    settle(pipeline)
    for name in ("first", "second", "third"):
        add_user(source, displayName=name)
    sequence(pipeline)
    source.execute('DELETE FROM "OutgoingRequest"')
    retries.record_failure(source, MINE, "analytics", ServiceError("down", code="unreachable"), scheduled=True)
    source.execute("UPDATE stackctl.delivery SET next_attempt_at = now()")
    blocker = connect(external_db)
    blocker.execute("LOCK TABLE users IN SHARE MODE")
    stop = Stop()
    thread = threading.Thread(
        target=service.poll,
        args=(project.pipeline(), stop),
        kwargs={"claim_limit": 2, "interval": None, "reports": service.Reports()},
    )
    thread.start()
    wait_until_blocked(connect(external_db, autocommit=True), "stackctl sync")
    stop.set()
    blocker.rollback()
    thread.join()
    assert one(connect(external_db), "SELECT count(*) FROM users") == 1
    poll(pipeline)
    assert differences(pipeline) == []
    assert failures(pipeline) == []


# -- clocks


def test_a_clock_that_is_set_back_puts_nothing_to_sleep(project: Project, source: Connection) -> None:
    """What was tried, leased or swept a day ahead of now is due."""
    pipeline = project.sqlite(MINE, mappings=["users"]).pipeline()
    settle(pipeline)
    add_user(source)
    sequence(pipeline)
    source.execute('DELETE FROM "OutgoingRequest"')
    retries.record_failure(source, MINE, "local", ServiceError("down", code="unreachable"), scheduled=True)
    later = "interval '1 day'"
    source.execute(f"UPDATE stackctl.delivery SET next_attempt_at = now() + {later}, last_attempt_at = now() + {later}")
    poll(pipeline)
    assert (failures(pipeline), differences(pipeline)) == ([], [])
    add_user(source)
    sequence(pipeline)
    source.execute('DELETE FROM "OutgoingRequest"')
    deliveries.add(source, [(MINE, "local")])
    deliveries.lease(source, uuid.uuid4(), 1, slow=False, busy=[])
    source.execute(f"UPDATE stackctl.pending_delivery SET leased_at = now() + {later}")
    assert poll(pipeline).recovered == 1
    assert differences(pipeline) == []
    assert retries.claim_sweep(source)
    source.execute(f"UPDATE stackctl.sweep SET last_swept_at = now() + {later}")
    assert retries.claim_sweep(source)
    assert not retries.claim_sweep(source)


# -- connections


def test_a_target_that_was_closed_just_now_is_not_broken_off(
    project: Project, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that watches over the jobs looks in the very moment in which a job closes its target."""
    monkeypatch.setattr(workers_module, "STUCK_AFTER", -1.0)
    pipeline = project.sqlite(MINE).pipeline()
    workers = Workers(pipeline, 1, SyncOptions(batch_size=100), Stop())
    looks: list[None] = []
    close = SqliteTarget.close

    def close_and_look(target: SqliteTarget) -> None:
        close(target)
        target.response_timer.start()
        target.response_timer.patience = -1.0
        looks.append(workers.check_jobs())

    monkeypatch.setattr(SqliteTarget, "close", close_and_look)
    (database,) = pipeline.databases[MINE]
    try:
        assert workers.wait(workers.submit(database)).error is None
    finally:
        workers.close()
    assert looks


def test_sources_are_opened_for_targets_that_answer_and_closed_above_their_number(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    """Twenty databases that hang cost no connection to the operated database."""
    sessions = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stackctl' AND datname = current_database()"
    )
    project.sync_settings(workers=2)
    for number in range(20):
        project.postgres(MINE, external_db, f"hung{number:02}", mappings=["users"])
    pipeline = project.pipeline()
    settle(pipeline)
    blocker = connect(external_db)
    blocker.execute("LOCK TABLE _stack_sync_metadata")
    workers = Workers(pipeline, 2, SyncOptions(batch_size=100), Stop())
    jobs = [workers.submit(database) for database in pipeline.databases[MINE]]
    outside = connect(external_db, autocommit=True)
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stackctl sync' AND wait_event_type = 'Lock'"
        " AND datname = current_database()"
    )

    def all_hang() -> bool:
        workers.check_jobs()
        return one(outside, waiting) == 20

    try:
        wait_for(all_hang)
        assert one(source, sessions) == 0
        blocker.rollback()
        assert [workers.wait(job).error for job in jobs] == [None] * 20
        assert one(source, sessions) <= 2
    finally:
        workers.close()


def test_a_cursor_that_vanishes_under_a_page_read_ahead(
    project: Project, source: Connection, external_db: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole is loaded over the very connection that a page was being read over."""
    from stackctl.sync.engine import batches

    monkeypatch.setattr(batches, "FIRST_PAGE", 10)
    project.sync_settings(batch_size=20).postgres(MINE, external_db, mappings=["users"])
    pipeline = project.pipeline()
    settle(pipeline)
    add_many_users(source, 200)
    sequence(pipeline)
    outside = connect(external_db, autocommit=True)
    outside.execute(
        "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN DELETE FROM _stack_sync_metadata; RETURN NULL; END$$"
    )
    outside.execute(
        "CREATE CONSTRAINT TRIGGER forget AFTER UPDATE ON _stack_sync_metadata INITIALLY DEFERRED FOR EACH ROW"
        " WHEN (NEW.last_synced_sequence_id BETWEEN 1 AND 300) EXECUTE FUNCTION forget()"
    )
    (result,) = service.sync(pipeline, service.Scope(None), SyncOptions(20), Stop(), service.Reports())
    assert result.error is None or result.error.code == "not-ours", result.error
    outside.execute("DROP TRIGGER forget ON _stack_sync_metadata")


def test_what_was_to_be_tried_again_is_given_back(source: Connection) -> None:
    """A poller that ends with a retry in hand leaves it due, for the next one at once."""
    retries.record_failure(source, MINE, "analytics", ServiceError("down", code="unreachable"), scheduled=True)
    source.execute("UPDATE stackctl.delivery SET next_attempt_at = now()")
    holder = uuid.uuid4()
    deliveries.add_due_retries(source, LEASE)
    (taken,) = deliveries.lease(source, holder, 1, slow=False, busy=[])
    assert (taken.retry, taken.resting) == ({WHOLE}, frozenset())
    deliveries.reopen(source, holder, taken.key, retry=taken.retry)
    (again,) = deliveries.lease(source, holder, 1, slow=False, busy=[])
    assert (again.retry, again.resting) == ({WHOLE}, frozenset())
    # Without it, it rests.
    deliveries.reopen(source, holder, taken.key)
    (resting,) = deliveries.lease(source, holder, 1, slow=False, busy=[])
    assert resting.resting == {WHOLE}
