"""From a queue entry to attempts on databases: failures, retries, dead letters, leases."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from stackctl.core.errors import ServiceError
from stackctl.sync import service
from stackctl.sync.engine.database_sync import SyncOptions
from stackctl.sync.engine.workers import Workers
from stackctl.sync.queue import deliveries, entries, fuses, retries
from stackctl.sync.queue.deliveries import WHOLE
from stackctl.sync.stop import Stop
from tests.backend import (
    MINE,
    OTHER,
    QUEUED,
    Connection,
    Project,
    add_user,
    claim_as_another,
    differences,
    failures,
    fetch,
    insert,
    one,
    poll,
    populate,
    sequence,
    settle,
    sync,
    wait_for,
    wait_until_blocked,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.postgres.embedded import EmbeddedServer
    from stackctl.sync.engine.poller import PollResult
    from tests.conftest import Connect

UNREACHABLE = "postgresql://nobody@127.0.0.1:1/nothing"


def counts(result: PollResult) -> tuple[int, int, int, int]:
    return (result.claimed, result.delivered, result.failed, result.dead)


def due(conn: Connection) -> None:
    conn.execute("UPDATE stackctl.delivery SET next_attempt_at = clock_timestamp() WHERE next_attempt_at IS NOT NULL")


def rest(conn: Connection) -> None:
    conn.execute("UPDATE stackctl.delivery SET next_attempt_at = clock_timestamp() + interval '1 hour'")


@pytest.mark.quick
def test_an_unreachable_database_beside_a_healthy_one(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    pipeline = project.postgres(MINE, UNREACHABLE, "broken").postgres(MINE, external_db).sqlite(OTHER).pipeline()
    populate(source, MINE)
    populate(source, OTHER)
    sequence(pipeline)
    result = poll(pipeline)
    assert counts(result) == (2, 1, 1, 0)
    assert one(connect(external_db), "SELECT count(*) FROM users") == 1
    (failure,) = failures(pipeline)
    assert (failure.tenancy, failure.database, failure.attempts, failure.dead) == (MINE, "broken", 1, False)
    assert failure.code == "unreachable"
    # A new change goes to the healthy one at once; the broken one rests until its time.
    rest(source)
    add_user(source)
    sequence(pipeline)
    assert counts(poll(pipeline)) == (1, 1, 0, 0)
    assert one(connect(external_db), "SELECT count(*) FROM users") == 2
    assert failures(pipeline)[0].attempts == 1
    due(source)
    assert counts(poll(pipeline)) == (0, 0, 1, 0)
    (again,) = failures(pipeline)
    assert (again.attempts, again.failing_since) == (2, failure.failing_since)
    assert again.next_attempt_at is not None
    assert entries.summarize_queue(source).pending == 0


def test_what_comes_back_gets_everything(project: Project, source: Connection, external_db: str) -> None:
    project.postgres(MINE, UNREACHABLE)
    populate(source)
    sequence(project.pipeline())
    poll(project.pipeline())
    rest(source)
    add_user(source)
    sequence(project.pipeline())
    poll(project.pipeline())  # the change passes the resting database over
    pipeline = project.postgres(MINE, external_db).pipeline()
    due(source)
    assert poll(pipeline).failed == 0
    assert failures(pipeline) == []
    assert differences(pipeline) == []


@pytest.mark.parametrize("how", ["poll", "sync"])
def test_a_change_that_passes_a_database_over_while_it_recovers_is_sent(
    how: str, project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    """One poller tries a failing database again and has read the source; now a change comes, and another poller
    passes that database over because it rests. The change must not be lost when the first one succeeds."""
    pipeline = project.postgres(MINE, external_db).pipeline()
    populate(source)
    settle(pipeline)
    with pipeline.open_session() as conn:
        retries.record_failure(conn, MINE, "analytics", ServiceError("down", code="unreachable"), scheduled=True)
    rest(source)
    add_user(source)
    sequence(pipeline)
    if how == "poll":
        source.execute('DELETE FROM "OutgoingRequest"')
        due(source)
    blocker = connect(external_db)
    # The retry hangs in `users`, the last mapping: what comes before it will not be looked at again.
    team = one(source, 'UPDATE "Team" SET "displayName" = \'x\' RETURNING "teamId"')
    source.execute("SELECT backfill_null_sequence_ids(100)")
    source.execute('DELETE FROM "OutgoingRequest"')
    blocker.execute("LOCK TABLE users IN SHARE MODE")
    thread = threading.Thread(target=poll if how == "poll" else sync, args=(project.pipeline(),))
    thread.start()
    wait_until_blocked(connect(external_db, autocommit=True), "stackctl sync")
    source.execute('UPDATE "Team" SET "displayName" = \'y\' WHERE "teamId" = %s', (team,))
    add_user(source)
    source.execute("UPDATE \"ContactChannel\" SET value = 'late@example.com'")
    sequence(pipeline)
    passed_over = poll(pipeline)
    assert passed_over.failed == 0
    blocker.commit()
    thread.join()
    poll(pipeline)
    assert failures(pipeline) == []
    assert differences(pipeline) == []


def test_a_dead_letter_and_what_wakes_it(
    project: Project, source: Connection, external_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "MAX_ATTEMPTS", 3)
    broken = project.postgres(MINE, UNREACHABLE).pipeline()
    populate(source)
    sequence(broken)
    assert [poll(broken).dead, due(source), poll(broken).dead, due(source), poll(broken).dead] == [0, None, 0, None, 1]
    (failure,) = failures(broken)
    assert (failure.dead, failure.attempts) == (True, 3)
    assert entries.summarize_queue(source).dead == 1
    due(source)
    assert counts(poll(broken)) == (0, 0, 0, 0)  # time alone does not wake it
    # The next change does; failing once more, it is dead again.
    add_user(source)
    sequence(broken)
    assert counts(poll(broken)) == (1, 0, 1, 1)
    # So does a person, with the attempts counted anew.
    assert retries.retry_now(source, None) == [(MINE, "analytics")]
    assert counts(poll(broken)) == (0, 0, 1, 0)
    retries.retry_now(source, [(MINE, "analytics")])
    whole = project.postgres(MINE, external_db).pipeline()
    assert poll(whole).failed == 0
    assert failures(whole) == []
    assert differences(whole) == []


def test_the_pause_grows_and_has_an_end(source: Connection) -> None:
    pauses: list[timedelta] = []
    for _ in range(retries.MAX_ATTEMPTS - 1):
        failed = retries.record_failure(source, MINE, "x", ServiceError("no", code="unreachable"), scheduled=True)
        assert not failed
        pauses.append(one(source, "SELECT next_attempt_at - last_attempt_at FROM stackctl.delivery"))
    for number, pause in enumerate(pauses):
        expected = min(retries.FIRST_DELAY * 2**number, retries.LONGEST_DELAY)
        assert expected * 0.69 <= pause <= expected * 1.31 + timedelta(milliseconds=10)
        assert pause <= retries.LONGEST_DELAY + timedelta(milliseconds=10)
    assert retries.record_failure(source, MINE, "x", ServiceError("no", code="unreachable"), scheduled=True)


def test_a_retry_is_taken_by_one_poller(source: Connection, migrated_db: str, connect: Connect) -> None:
    retries.record_failure(source, MINE, "x", ServiceError("no", code="unreachable"), scheduled=True)
    due(source)
    first, second = connect(migrated_db), connect(migrated_db)

    def take(conn: Connection, busy: list[deliveries.Key] | None = None) -> list[tuple[str, set[str]]]:
        deliveries.add_due_retries(conn, timedelta(minutes=1))
        found = deliveries.lease(conn, uuid.uuid4(), 10, slow=False, busy=busy or [])
        return [(one.database, set(one.retry)) for one in found]

    assert take(first) == [("x", {WHOLE})]
    assert take(second) == []
    first.rollback()
    second.rollback()
    assert take(second, [(MINE, "x")]) == []
    assert take(second) == [("x", {WHOLE})]
    second.commit()
    assert take(first) == []


def test_a_database_no_longer_configured_is_forgotten(project: Project, source: Connection, external_db: str) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    for tenancy, name in ((MINE, "gone"), (OTHER, "gone too")):
        retries.record_failure(source, tenancy, name, ServiceError("no", code="unreachable"), scheduled=True)
    due(source)
    poll(pipeline)
    assert failures(pipeline) == []


def test_entries_that_lead_nowhere_are_finished(project: Project, source: Connection, external_db: str) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    settle(pipeline)
    for body in ({}, {"tenancyId": "no uuid"}, {"tenancyId": str(OTHER)}, {"tenancyId": str(uuid.uuid4())}):
        options = {"url": "/api/latest/internal/external-db-sync/sync-engine", "body": body}
        insert(source, "OutgoingRequest", {"id": uuid.uuid4(), "qstashOptions": options})
    assert counts(poll(pipeline)) == (4, 4, 0, 0)
    assert one(source, 'SELECT count(*) FROM "OutgoingRequest"') == 0


def test_an_abandoned_claim_is_recovered_and_delivered(project: Project, source: Connection, external_db: str) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    settle(pipeline)
    populate(source)
    sequence(pipeline)
    claim_as_another(source)  # which was killed
    assert poll(pipeline).claimed == 0
    result = poll(pipeline, lease=timedelta(seconds=-1))
    assert (result.recovered, result.delivered) == (1, 1)
    assert differences(pipeline) == []


def test_leases_are_renewed_while_a_database_takes_its_time(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    lease = timedelta(seconds=0.3)
    pipeline = project.postgres(MINE, external_db).pipeline()
    populate(source)
    settle(pipeline)
    add_user(source)
    sequence(pipeline)
    blocker = connect(external_db)
    blocker.execute("LOCK TABLE users IN SHARE MODE")
    thread = threading.Thread(target=poll, args=(project.pipeline(), lease))
    thread.start()
    claimed = "SELECT leased_at FROM stackctl.pending_delivery WHERE leased_by IS NOT NULL"
    wait_until_blocked(connect(external_db, autocommit=True), "stackctl sync")
    seen = {row[0] for row in fetch(source, claimed)}
    wait_for(lambda: seen.update(row[0] for row in fetch(source, claimed)) or len(seen) > 3)
    blocker.commit()
    thread.join()
    assert fetch(source, "SELECT 1 FROM stackctl.pending_delivery") == []
    assert differences(pipeline) == []


def test_a_slow_database_does_not_hold_up_another_tenancy(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    pipeline = project.postgres(MINE, external_db).sqlite(OTHER).sync_settings(workers=2).pipeline()
    settle(pipeline)
    blocker = connect(external_db)
    blocker.execute("LOCK TABLE users IN SHARE MODE")
    for tenancy in (MINE, OTHER):
        populate(source, tenancy)
    sequence(pipeline)
    done: list[Any] = []
    reports = service.Reports(synced=lambda result: done.append(result.database))
    thread = threading.Thread(
        target=lambda: service.poll(pipeline, Stop(), claim_limit=2, interval=None, reports=reports)
    )
    thread.start()
    wait_for(lambda: done)
    add_user(source, OTHER)
    sequence(project.pipeline())
    wait_for(lambda: len(done) == 2)
    assert done == ["local", "local"]
    blocker.commit()
    thread.join()
    assert differences(pipeline) == []


def test_a_connection_that_was_cut_while_idle_is_no_failure(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    """A loop keeps connections; one that a firewall or a restart has cut is opened again, unnoticed."""
    pipeline = project.postgres(MINE, external_db).pipeline()
    stop = Stop()
    passes: list[PollResult] = []
    reports = service.Reports(polled=passes.append)
    thread = threading.Thread(
        target=lambda: service.poll(pipeline, stop, claim_limit=2, interval=timedelta(milliseconds=5), reports=reports)
    )
    thread.start()
    try:
        add_user(source)
        sequence(project.pipeline())
        outside = connect(external_db, autocommit=True)
        wait_for(lambda: sum(p.delivered for p in passes) >= 1 and not fetch(source, QUEUED))
        cut = (
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = 'stackctl sync' AND datname = current_database()"
        )
        assert fetch(outside, cut) == [(True,)]
        add_user(source)
        sequence(project.pipeline())
        wait_for(lambda: one(outside, "SELECT count(*) FROM users") == 2)
    finally:
        stop.set()
        thread.join()
    assert [p.failed for p in passes] == [0] * len(passes)
    assert failures(pipeline) == []


@pytest.fixture
def trouble(
    project: Project, source: Connection, external_db: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[str]]:
    """`run` in the background with one user delivered; what it complains of. No worker has a source open yet."""
    monkeypatch.setattr(service, "FIRST_PAUSE", 0.01)
    add_user(source)
    settle(project.postgres(MINE, external_db).pipeline())
    source.execute('DELETE FROM "OutgoingRequest"')
    retries.claim_sweep(source)
    stop = Stop()
    heard: list[str] = []
    reports = service.Reports(trouble=lambda error: heard.append(error.code))
    thread = threading.Thread(
        target=lambda: service.run(project.pipeline(), stop, claim_limit=2, reports=reports), daemon=True
    )
    thread.start()
    wait_for(lambda: one(source, SESSIONS) == 2)
    yield heard
    stop.set()
    thread.join()
    # Not the fault of the external database.
    assert failures(project.pipeline()) == []


SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stackctl' AND datname = current_database()"
    " AND query <> '' AND query NOT LIKE '%%search_path%%'"
)


def test_a_loop_outlives_the_operated_database(
    trouble: list[str], source: Connection, external_db: str, connect: Connect
) -> None:
    source.execute(SESSIONS.replace("count(*)", "pg_terminate_backend(pid)"))
    wait_for(lambda: len(trouble) == 2)
    add_user(source)
    wait_for(lambda: one(connect(external_db, autocommit=True), "SELECT count(*) FROM users") == 2)
    assert trouble == ["connection-lost"] * 2


def test_a_loop_outlives_a_worker_that_finds_the_operated_database_shut(
    trouble: list[str], source: Connection, external_db: str, server: EmbeddedServer, connect: Connect
) -> None:
    """Sessions that were open go on, and a new one is refused: no reason to end."""
    admin = connect(server.url(), autocommit=True)
    name = source.info.dbname
    admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name)))
    add_user(source)
    wait_for(lambda: "unreachable" in trouble)
    admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(name)))
    wait_for(lambda: one(connect(external_db, autocommit=True), "SELECT count(*) FROM users") == 2)


def test_the_sweep_queues_every_tenancy_now_and_then(project: Project, source: Connection, external_db: str) -> None:
    assert retries.claim_sweep(source)
    assert not retries.claim_sweep(source)
    assert retries.claim_sweep(source, timedelta(0))
    source.execute("DELETE FROM stackctl.sweep")
    pipeline = project.postgres(MINE, external_db).sqlite(OTHER).sqlite(uuid.uuid4(), "strange.db").pipeline()
    stop = Stop()
    passes: list[PollResult] = []

    def polled(result: PollResult) -> None:
        passes.append(result)
        stop.set()

    reports = service.Reports(polled=polled)
    service.poll(pipeline, stop, claim_limit=2, interval=timedelta(milliseconds=5), reports=reports)
    assert passes[0].delivered == 2


def test_fuses(project: Project, source: Connection, external_db: str, connect: Connect) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    assert fuses.read_fuses(source) == fuses.Fuses(sequencer=True, poller=True)
    assert one(source, 'SELECT count(*) FROM "ExternalDbSyncMetadata"') == 0
    add_user(source)
    fuses.switch_fuse(source, "sequencer", on=False)
    assert (sequence(pipeline).stopped_by, sequence(pipeline).rows) == ("fuse", 0)
    fuses.switch_fuse(source, "sequencer", on=True)
    assert fuses.switch_fuse(source, "poller", on=False) == fuses.Fuses(sequencer=True, poller=False)
    assert sequence(pipeline).rows == 1
    result = poll(pipeline)
    assert (result.stopped_by, result.claimed) == ("fuse", 0)
    assert [r.error for r in sync(pipeline)] == [None]  # asked for by hand
    assert one(connect(external_db), "SELECT count(*) FROM users") == 1
    fuses.switch_fuse(source, "poller", on=True)
    assert poll(pipeline).delivered == 1
    assert one(source, 'SELECT count(*) FROM "ExternalDbSyncMetadata"') == 1
    with pytest.raises(psycopg.errors.UniqueViolation):
        insert(source, "ExternalDbSyncMetadata", {"updatedAt": "now"})


def test_the_fuse_stops_after_the_batch_in_hand(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    pipeline = project.postgres(MINE, external_db).sqlite(OTHER).pipeline()
    settle(pipeline)
    populate(source)
    sequence(pipeline)
    blocker = connect(external_db)
    blocker.execute("LOCK TABLE users IN SHARE MODE")
    results: list[PollResult] = []
    thread = threading.Thread(target=lambda: results.append(poll(project.pipeline())))
    thread.start()
    wait_until_blocked(connect(external_db, autocommit=True), "stackctl sync")
    fuses.switch_fuse(source, "poller", on=False)
    entries.enqueue(source, [OTHER])
    blocker.commit()
    thread.join()
    assert counts(results[0]) == (1, 1, 0, 0)
    assert results[0].stopped_by == "fuse"
    assert differences(pipeline) == []


def test_the_error_of_a_database_is_stored_without_its_secrets(source: Connection) -> None:
    said = ServiceError("postgresql://reader:geheim99@x/db does not answer, password=geheim98", code="unreachable")
    for _ in range(2):  # the first failure and a later one
        retries.record_failure(source, MINE, "x", said, scheduled=True)
        stored = one(source, "SELECT last_error FROM stackctl.delivery")
        assert "reader" in stored
        assert "geheim" not in stored


def test_idle_connections_are_kept_while_the_database_is_configured(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    outside = connect(external_db, autocommit=True)
    sessions = (
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'stackctl sync' AND datname = current_database()"
    )
    workers = Workers(pipeline, 1, SyncOptions(batch_size=100), Stop())
    try:
        (database,) = pipeline.databases[MINE]
        assert workers.wait(workers.submit(database)).error is None
        kept = fetch(outside, sessions)
        workers.close_unconfigured(pipeline.databases)
        assert workers.wait(workers.submit(database)).error is None
        assert fetch(outside, sessions) == kept != []
        workers.close_unconfigured({OTHER: [database]})
        wait_for(lambda: not fetch(outside, sessions))
    finally:
        workers.close()
