"""What tells a loop that there is work: looks, and notifications."""

from __future__ import annotations

import re
import threading
import uuid
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, LiteralString, cast

import pytest

from stackctl.core.errors import StateError
from stackctl.sync import service
from stackctl.sync.changes import wakeup
from stackctl.sync.changes.stamping import compose_stampings
from stackctl.sync.changes.wakeup import CHANNEL, WorkProbe, open_listener
from stackctl.sync.queue import deliveries, entries, fuses, retries
from stackctl.sync.stop import Stop
from tests.backend import (
    MINE,
    QUEUED,
    Connection,
    Project,
    add_team,
    add_user,
    claim_as_another,
    fetch,
    no_capture,
    one,
    populate,
    sequence,
    settle,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Connect


LISTENED = ("ProjectUser", "DeletedRow", "OutgoingRequest")
LISTENING = "INSERT INTO stackctl.listening (listening_until) VALUES (now() + interval '1 minute')"


# -- looks


@pytest.fixture
def probe(project: Project, source: Connection) -> WorkProbe:
    """Over everything; the sweep was just done."""
    retries.claim_sweep(source)
    return WorkProbe(source, compose_stampings(source, list(project.pipeline().mappings.values())), lease=entries.LEASE)


def test_an_idle_look_shows_nothing(probe: WorkProbe) -> None:
    found = probe.find_work()
    assert (found.fuses, found.marked, found.queued, found.sweep_due) == (
        fuses.Fuses(True, True),
        frozenset(),
        False,
        False,
    )


def test_marked_rows_show_in_every_table(probe: WorkProbe, source: Connection) -> None:
    rows = populate(source)
    assert len(probe.find_work().marked) == 11
    source.execute('DELETE FROM "Team" WHERE "teamId" = %s', (rows.team,))
    # Team and what hangs on it are gone; the tombstones are marked instead.
    assert 0 in probe.find_work().marked


def test_whatever_the_poller_has_to_do_shows(probe: WorkProbe, source: Connection) -> None:
    assert not probe.find_work().queued
    entries.enqueue(source, [MINE])
    assert probe.find_work().queued
    claim_as_another(source)
    assert not probe.find_work().queued  # it is in somebody's hands
    # Also when it was claimed before the clock was set back.
    source.execute('UPDATE "OutgoingRequest" SET "startedFulfillingAt" = "startedFulfillingAt" + interval \'1 day\'')
    assert probe.find_work().queued
    source.execute('UPDATE "OutgoingRequest" SET "startedFulfillingAt" = "startedFulfillingAt" - interval \'1 day\'')
    source.execute('UPDATE "OutgoingRequest" SET "startedFulfillingAt" = "startedFulfillingAt" - interval \'61 s\'')
    assert probe.find_work().queued
    source.execute('DELETE FROM "OutgoingRequest"')
    assert not probe.find_work().queued
    deliveries.add(source, [(MINE, "analytics")])
    assert probe.find_work().queued
    assert deliveries.lease(source, MINE, 1, slow=False, busy=[])
    assert not probe.find_work().queued  # the same
    for off, expired in (("-61 s", True), ("30 s", False), ("1 day", True)):
        source.execute("UPDATE stackctl.pending_delivery SET leased_at = now() + %s::interval", (off,))
        assert probe.find_work().queued == expired
    source.execute("DELETE FROM stackctl.pending_delivery")
    retries.record_failure(source, MINE, "analytics", StateError("no", code="no"), scheduled=True)
    assert not probe.find_work().queued
    source.execute("UPDATE stackctl.delivery SET next_attempt_at = now()")
    assert probe.find_work().queued
    source.execute("UPDATE stackctl.delivery SET next_attempt_at = NULL")  # a dead letter
    assert not probe.find_work().queued
    source.execute("UPDATE stackctl.delivery SET next_attempt_at = now() + interval '1 day'")
    assert not probe.find_work().queued
    source.execute("UPDATE stackctl.delivery SET last_attempt_at = now() + interval '1 day'")  # the clock was set back
    assert probe.find_work().queued


def test_what_is_not_ours_is_no_sign(probe: WorkProbe, source: Connection) -> None:
    source.execute(
        'INSERT INTO "OutgoingRequest" (id, "qstashOptions", "createdAt") VALUES (gen_random_uuid(), %s, now())',
        ('{"url": "/api/latest/internal/something-else"}',),
    )
    assert not probe.find_work().queued


def test_sweep_and_fuses_show(probe: WorkProbe, source: Connection) -> None:
    source.execute("UPDATE stackctl.sweep SET last_swept_at = now() - interval '601 s'")
    fuses.switch_fuse(source, "poller", on=False)
    found = probe.find_work()
    assert found.sweep_due
    assert found.fuses == fuses.Fuses(sequencer=True, poller=False)


def test_a_look_changes_nothing(probe: WorkProbe, source: Connection) -> None:
    before = one(source, "SELECT pg_current_xact_id()::text::bigint")
    for _ in range(20):
        probe.find_work()
    assert one(source, "SELECT pg_current_xact_id()::text::bigint") == before + 1


# -- who notifies, of what


@pytest.fixture
def ear(source: Connection, migrated_db: str, connect: Connect) -> Connection:
    """A connection that listens, somebody being known to listen."""
    source.execute(LISTENING)
    conn = connect(migrated_db, autocommit=True)
    conn.execute(f"LISTEN {CHANNEL}")
    return conn


def heard(ear: Connection, source: Connection) -> int:
    """How many notifications of the triggers came, up to now."""
    mark = str(uuid.uuid4())
    source.execute("SELECT pg_notify(%s, %s)", (CHANNEL, mark))
    for count, notification in enumerate(ear.notifies(timeout=10)):
        if notification.payload == mark:
            return count
    raise AssertionError("the mark did not arrive")


def test_each_transaction_notifies_once(ear: Connection, source: Connection) -> None:
    with source.transaction():
        for _ in range(3):
            populate(source)
    assert heard(ear, source) == 1
    user = add_user(source)
    assert heard(ear, source) == 1
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'x\' WHERE "projectUserId" = %s', (user,))
    assert heard(ear, source) == 1
    source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (user,))
    assert heard(ear, source) == 1
    entries.enqueue(source, [MINE])
    assert heard(ear, source) == 1


def test_a_rollback_notifies_of_nothing(ear: Connection, source: Connection) -> None:
    with source.transaction(force_rollback=True):
        add_user(source)
    assert heard(ear, source) == 0


def test_stamps_are_no_news_but_the_queue_is(ear: Connection, source: Connection, project: Project) -> None:
    populate(source)
    heard(ear, source)
    assert sequence(project.pipeline()).rows == 11
    assert heard(ear, source) == 1  # of the entry
    source.execute('UPDATE "ProjectUser" SET "shouldUpdateSequenceId" = true')
    heard(ear, source)
    assert entries.take(source, 1)
    assert heard(ear, source) == 0


def test_nobody_notifies_when_nobody_listens(ear: Connection, source: Connection) -> None:
    source.execute("UPDATE stackctl.listening SET listening_until = now() - interval '1 s'")
    populate(source)
    assert heard(ear, source) == 0
    source.execute("DELETE FROM stackctl.listening")
    populate(source)
    assert heard(ear, source) == 0


def test_an_application_without_rights_on_our_schema_is_not_disturbed(ear: Connection, source: Connection) -> None:
    with source.transaction(force_rollback=True):
        source.execute("CREATE ROLE application")
        source.execute('GRANT SELECT, INSERT ON "Team" TO application')
        source.execute("SET LOCAL ROLE application")
        add_team(source)
    assert heard(ear, source) == 0
    source.execute('SELECT 1 FROM "Team"')


def test_every_bundled_source_notifies(project: Project, source: Connection) -> None:
    tables = [s.table for s in compose_stampings(source, list(project.pipeline().mappings.values()))]
    assert len(tables) == 12
    with project.pipeline().open_session() as conn:
        open_listener(conn, [*tables, "OutgoingRequest"], project.pipeline().open_session)


# -- listening


@pytest.mark.parametrize(
    "harm",
    [
        'ALTER TABLE "ProjectUser" DISABLE TRIGGER wake_listeners',
        'ALTER TABLE "ProjectUser" ENABLE REPLICA TRIGGER wake_listeners',
        'DROP TRIGGER wake_listeners ON "ProjectUser"',
    ],
)
def test_a_table_that_does_not_notify_is_named(harm: str, source: Connection, project: Project) -> None:
    source.execute(cast("LiteralString", harm))
    with (
        project.pipeline().open_session() as conn,
        pytest.raises(StateError, match=r'changes to "ProjectUser"$') as caught,
    ):
        open_listener(conn, LISTENED, project.pipeline().open_session)
    assert caught.value.code == "no-notifications"


def test_a_database_without_any_of_it_says_so(source: Connection, project: Project) -> None:
    source.execute("DROP TABLE stackctl.listening")
    with project.pipeline().open_session() as conn, pytest.raises(StateError, match="no trigger notifies"):
        open_listener(conn, LISTENED, project.pipeline().open_session)


def test_a_connection_that_hears_nothing_is_found_out(
    project: Project, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a pooler: the LISTEN went to a session that is not ours any more."""
    monkeypatch.setattr(wakeup, "ECHO_WAIT", 0.05)
    pipeline = project.pipeline()

    @contextmanager
    def elsewhere() -> Iterator[Any]:
        # What the server would do if the listening session were another: nothing reaches this one.
        conn.execute(f"UNLISTEN {CHANNEL}")
        with pipeline.open_session() as sender:
            yield sender

    with pipeline.open_session() as conn, pytest.raises(StateError, match="do not arrive") as caught:
        open_listener(conn, LISTENED, elsewhere)
    assert caught.value.code == "transaction-pooler"


def test_two_listeners_keep_the_longer_promise(project: Project, source: Connection) -> None:
    source.execute("INSERT INTO stackctl.listening (listening_until) VALUES (now() + interval '1 hour')")
    with project.pipeline().open_session() as conn:
        open_listener(conn, LISTENED, project.pipeline().open_session)
    assert one(source, "SELECT listening_until > now() + interval '59 minutes' FROM stackctl.listening")


def test_a_promise_is_renewed_while_waiting(
    project: Project, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop()
    with project.pipeline().open_session() as conn:
        listener = open_listener(conn, LISTENED, project.pipeline().open_session)
        source.execute("DELETE FROM stackctl.listening")
        monkeypatch.setattr(wakeup, "RENEW_INTERVAL", 0.0)
        waiting = threading.Thread(target=listener.wait, args=(3600, stop))
        waiting.start()
        wait_for(lambda: fetch(source, "SELECT 1 FROM stackctl.listening WHERE listening_until > now()"))
        stop.set()
        waiting.join(10)
        assert not waiting.is_alive()


def test_what_came_while_busy_ends_the_next_wait(project: Project, source: Connection) -> None:
    with project.pipeline().open_session() as conn:
        listener = open_listener(conn, LISTENED, project.pipeline().open_session)
        conn.execute("SELECT pg_notify(%s, '')", (CHANNEL,))
        assert not listener.wait(0, Stop())  # its own is none
        add_user(source)
        conn.execute("SELECT 1")  # the notification comes with the answer
        assert listener.wait(3600, Stop())
        assert not listener.wait(0, Stop())


# -- in the loops


@contextmanager
def running(project: Project, warnings: list[str], source: Connection) -> Iterator[None]:
    """`run` woken by notifications alone: its ticks are an hour apart."""
    stop = Stop()
    pipeline = project.pipeline()
    reports = service.Reports(warned=warnings.append)
    thread = threading.Thread(target=service.run, args=(pipeline, stop), kwargs={"claim_limit": 2, "reports": reports})
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def slow(project: Project) -> Project:
    return project.sync_settings(wakeup="notify", sequencer_interval="1h", poller_interval="1h")


LISTENS = (
    "SELECT 1 FROM stackctl.listening, pg_stat_activity WHERE listening_until > now()"
    " AND query LIKE '%%sequencerEnabled%%' AND state = 'idle' AND datname = current_database()"
)


def test_run_is_woken_by_a_change_and_by_an_entry(
    slow: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    settle(slow.postgres(MINE, external_db).pipeline())
    retries.claim_sweep(source)
    outside = connect(external_db, autocommit=True)
    warnings: list[str] = []
    with running(slow, warnings, source):
        wait_for(lambda: fetch(source, LISTENS))
        for number in (1, 2):
            add_user(source)
            wait_for(lambda n=number: one(outside, "SELECT count(*) FROM users") == n)
            wait_for(lambda: not fetch(source, QUEUED))
        outside.execute("UPDATE _stack_sync_metadata SET last_synced_sequence_id = 0 WHERE mapping_name = 'users'")
        outside.execute("DELETE FROM users")
        entries.enqueue(source, [MINE])
        wait_for(lambda: one(outside, "SELECT count(*) FROM users") == 2)
    assert warnings == []


def test_a_poller_alone_is_woken_by_the_queue(
    slow: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    pipeline = slow.postgres(MINE, external_db).pipeline()
    settle(pipeline)
    retries.claim_sweep(source)
    stop = Stop()
    thread = threading.Thread(
        target=service.poll,
        args=(pipeline, stop),
        kwargs={"claim_limit": 2, "interval": timedelta(hours=1), "reports": service.Reports()},
    )
    thread.start()
    try:
        # Its first look, which took up the configuration as well, is over.
        wait_for(lambda: fetch(source, LISTENS.replace("sequencerEnabled", "pending_delivery")))
        add_user(source)
        sequence(slow.pipeline())
        wait_for(lambda: one(connect(external_db, autocommit=True), "SELECT count(*) FROM users") == 1)
    finally:
        stop.set()
        thread.join()


def test_without_triggers_it_ticks_and_warns_once(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    source.execute('DROP TRIGGER wake_listeners ON "Team"')
    settle(project.sync_settings(wakeup="notify").postgres(MINE, external_db).pipeline())
    outside = connect(external_db, autocommit=True)
    warnings: list[str] = []
    with running(project, warnings, source):
        add_team(source)
        wait_for(lambda: one(outside, "SELECT count(*) FROM teams") == 1)
        # Lost and found again: no second warning.
        source.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = 'stackctl' AND datname = current_database()"
        )
        add_team(source)
        wait_for(lambda: one(outside, "SELECT count(*) FROM teams") == 2)
    assert len(warnings) == 1
    assert re.match(r'sync.wakeup: notify is not possible.* changes to "Team"', warnings[0])


def test_a_notification_that_was_missed_costs_a_second(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    """Here a writer with the triggers off, as a restore or a replication has them."""
    settle(project.sync_settings(wakeup="notify").postgres(MINE, external_db).pipeline())
    warnings: list[str] = []
    with running(project, warnings, source):
        wait_for(lambda: fetch(source, LISTENS))
        with no_capture(source, "ProjectUser"):
            add_user(source)
        wait_for(lambda: one(connect(external_db, autocommit=True), "SELECT count(*) FROM users") == 1)
    assert warnings == []


def test_the_listener_is_back_after_the_connection_was_cut(
    slow: Project, source: Connection, external_db: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "FIRST_PAUSE", 0.01)
    settle(slow.postgres(MINE, external_db).pipeline())
    retries.claim_sweep(source)
    outside = connect(external_db, autocommit=True)
    with running(slow, [], source):
        wait_for(lambda: fetch(source, LISTENS))
        for (pid,) in fetch(source, LISTENS.replace("SELECT 1", "SELECT pid")):
            source.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        wait_for(lambda: fetch(source, LISTENS))
        add_user(source)
        wait_for(lambda: one(outside, "SELECT count(*) FROM users") == 1)


def test_the_migration_can_be_applied_again(source: Connection, pipeline_migration: str) -> None:
    before = one(source, "SELECT count(*) FROM pg_trigger WHERE tgname = 'wake_listeners'")
    source.execute(cast("LiteralString", pipeline_migration))
    assert one(source, "SELECT count(*) FROM pg_trigger WHERE tgname = 'wake_listeners'") == before == 13


@pytest.fixture
def pipeline_migration() -> str:
    from stackctl.core.bundled import find_bundled

    return (find_bundled("migrations") / "20260101000008_wakeup.sql").read_text(encoding="utf-8")
