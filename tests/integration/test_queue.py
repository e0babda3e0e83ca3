"""Queue entries: claims that are leases, and wake-ups that are not lost."""

from __future__ import annotations

import json
import threading
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from stackctl.sync.queue import entries
from tests.backend import MINE, OTHER, Connection, fetch, insert, wait_until_blocked

if TYPE_CHECKING:
    from tests.conftest import Connect

pytestmark = pytest.mark.quick

EXPIRED = timedelta(seconds=-1)  # every claim has expired
URL = "/api/latest/internal/external-db-sync/sync-engine"


def entry(conn: Connection, key: str | None, options: Any = None, id: uuid.UUID | None = None) -> uuid.UUID:
    id_ = id or uuid.uuid4()
    body = options if options is not None else {"url": URL, "body": {"tenancyId": str(MINE)}}
    insert(conn, "OutgoingRequest", {"id": id_, "deduplicationKey": key, "qstashOptions": body})
    return id_


def state(conn: Connection) -> list[tuple[uuid.UUID, bool]]:
    """All entries: id, and whether it is claimed."""
    return fetch(conn, 'SELECT id, "startedFulfillingAt" IS NOT NULL FROM "OutgoingRequest" ORDER BY "createdAt", id')


def test_an_entry_is_pending_once(source: Connection) -> None:
    for _ in range(3):
        entries.enqueue(source, [OTHER, MINE])
    assert [claimed for _, claimed in state(source)] == [False, False]
    assert {claim.tenancy for claim in entries.claim(source, 10)} == {str(MINE), str(OTHER)}
    entries.enqueue(source, [MINE])
    assert sorted(claimed for _, claimed in state(source)) == [False, True, True]


def test_two_pollers_never_take_the_same_entry(source: Connection, migrated_db: str, connect: Connect) -> None:
    for _ in range(10):
        entry(source, None)
    first, second = connect(migrated_db), connect(migrated_db)
    taken = [claim.id for conn in (first, second, first) for claim in entries.claim(conn, 4)]  # all uncommitted
    assert len(set(taken)) == len(taken) == 10
    first.commit()
    second.commit()
    assert entries.claim(source, 10) == []


def test_claims_pass_over_busy_tenancies_and_other_urls(source: Connection) -> None:
    entries.enqueue(source, [MINE, OTHER])
    foreign = entry(source, "mail", {"url": "/api/latest/send-email", "body": {"tenancyId": str(MINE)}})
    (claim,) = entries.claim(source, 10, busy=[MINE])
    assert claim.tenancy == str(OTHER)
    entries.claim(source, 10)
    source.execute(
        'UPDATE "OutgoingRequest" SET "startedFulfillingAt" = now() - interval \'1 day\' WHERE id = %s', (foreign,)
    )
    assert entries.recover_expired(source) == 0
    assert (foreign, True) in state(source)
    assert entries.summarize_queue(source).in_flight == 2
    assert foreign not in {e.id for e in entries.list_entries(source, 10)}


def test_finish_only_while_the_claim_is_ours(source: Connection) -> None:
    entries.enqueue(source, [MINE])
    (lost,) = entries.claim(source, 1)
    assert entries.recover_expired(source, EXPIRED) == 1
    source.execute("SELECT pg_sleep(0.002)")  # tokens have milliseconds
    (ours,) = entries.claim(source, 1)
    assert not entries.finish(source, lost)
    entries.release(source, lost)
    assert state(source) == [(ours.id, True)]
    assert entries.renew(source, [lost]) == []
    assert entries.finish(source, ours)
    assert state(source) == []
    assert not entries.finish(source, ours)


def test_renewed_claims_do_not_expire(source: Connection) -> None:
    entries.enqueue(source, [MINE, OTHER])
    kept, left = sorted(entries.claim(source, 2), key=lambda claim: claim.tenancy or "")
    source.execute('UPDATE "OutgoingRequest" SET "startedFulfillingAt" = "startedFulfillingAt" - interval \'50 s\'')
    kept, left = (entries.Claim(c.id, c.tenancy, c.claimed_at - timedelta(seconds=50)) for c in (kept, left))
    (renewed,) = entries.renew(source, [kept])
    assert (renewed.id, renewed.tenancy) == (kept.id, kept.tenancy)
    assert renewed.claimed_at > kept.claimed_at
    assert entries.recover_expired(source, timedelta(seconds=30)) == 1
    assert not entries.finish(source, kept)
    assert entries.finish(source, renewed)
    assert state(source) == [(left.id, False)]


def test_an_expired_lease_returns_once(source: Connection, migrated_db: str, connect: Connect) -> None:
    id_ = entry(source, f"sentinel-sync-key-{MINE}")
    entries.claim(source, 1)
    first, second = connect(migrated_db), connect(migrated_db)
    before = fetch(source, 'SELECT "createdAt", "qstashOptions" FROM "OutgoingRequest"')
    with first.transaction():
        assert entries.recover_expired(first, EXPIRED) == 1
        assert entries.recover_expired(second, EXPIRED) == 0  # it steps over what another is recovering
        second.commit()
    assert state(source) == [(id_, False)]
    assert fetch(source, 'SELECT "createdAt", "qstashOptions" FROM "OutgoingRequest"') == before
    assert entries.recover_expired(source, EXPIRED) == 0


def test_a_newer_pending_entry_wins(source: Connection) -> None:
    """Resetting the stale one would violate the unique index, and take the recovery of all others with it."""
    entries.enqueue(source, [MINE, OTHER])
    stale = {claim.tenancy: claim.id for claim in entries.claim(source, 2)}
    entries.enqueue(source, [MINE])
    ((newer, _),) = [row for row in state(source) if not row[1]]
    assert entries.recover_expired(source, EXPIRED) == 2
    assert set(state(source)) == {(newer, False), (stale[str(OTHER)], False)}


def test_several_stale_entries_of_one_key(source: Connection) -> None:
    for _ in range(3):
        entries.enqueue(source, [MINE])
        entries.claim(source, 1)
    assert entries.recover_expired(source, EXPIRED) == 3
    assert [claimed for _, claimed in state(source)] == [False]


def test_entries_without_a_key_do_not_meet(source: Connection) -> None:
    ids = {entry(source, None) for _ in range(3)}
    assert {claim.id for claim in entries.claim(source, 10)} == ids
    assert entries.recover_expired(source, EXPIRED) == 3
    assert {id_ for id_, claimed in state(source) if not claimed} == ids


def test_an_enqueue_meets_a_release(source: Connection, migrated_db: str, connect: Connect) -> None:
    """Whoever comes second waits, and one pending entry is left."""
    for first_is_enqueue in (True, False):
        entries.enqueue(source, [MINE])
        (claim,) = entries.claim(source, 1)
        held = connect(migrated_db)
        other = connect(migrated_db, autocommit=True)
        steps = [lambda conn: entries.enqueue(conn, [MINE]), lambda conn, c=claim: entries.release(conn, c)]
        if not first_is_enqueue:
            steps.reverse()
        steps[0](held)
        thread = threading.Thread(target=steps[1], args=(other,))
        thread.start()
        wait_until_blocked(source, "%")
        held.commit()
        thread.join()
        assert [claimed for _, claimed in state(source)] == [False]
        source.execute('DELETE FROM "OutgoingRequest"')


def test_two_callers_queue_many_tenancies_without_a_deadlock(
    source: Connection, migrated_db: str, connect: Connect
) -> None:
    first = connect(migrated_db)
    entries.enqueue(first, [MINE])
    failed: list[BaseException] = []

    def enqueue() -> None:
        try:
            entries.enqueue(connect(migrated_db, autocommit=True), [OTHER, MINE])
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failed.append(error)

    thread = threading.Thread(target=enqueue)
    thread.start()
    wait_until_blocked(source, "%")
    entries.enqueue(first, [MINE, OTHER])  # in the wrong order, the other would hold OTHER now
    first.commit()
    thread.join()
    assert failed == []


BODIES = [{"url": URL}, {"url": URL, "body": {}}, {"url": URL, "body": "x"}, {"url": URL, "body": {"tenancyId": 5}},
          {"url": URL, "body": {"tenancyId": None}}, {"url": URL, "body": {"tenancyId": {"a": 1}}}]  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
def test_a_malformed_body_can_be_claimed_and_listed(source: Connection, body: Any) -> None:
    entry(source, None, body)
    assert len(entries.list_entries(source, 10)) == 1
    (claim,) = entries.claim(source, 10, busy=[MINE])
    assert entries.finish(source, claim)


@pytest.mark.parametrize("options", [[], "text", 5, {"url": 5}, {"url": None}])
def test_what_is_no_entry_of_ours_stays(source: Connection, options: Any) -> None:
    source.execute(
        'INSERT INTO "OutgoingRequest" (id, "qstashOptions") VALUES (gen_random_uuid(), to_jsonb(%s::json))',
        (json.dumps(options),),
    )
    assert entries.claim(source, 10) == []
    assert entries.summarize_queue(source) == entries.QueueSummary(0, 0, 0, 0, None)


def test_summary_and_order(source: Connection) -> None:
    entries.enqueue(source, [MINE])
    entries.claim(source, 1)
    source.execute(
        "UPDATE \"OutgoingRequest\" SET \"startedFulfillingAt\" = now() AT TIME ZONE 'UTC' - interval '2 min',"
        " \"createdAt\" = now() AT TIME ZONE 'UTC' - interval '3 min'"
    )
    entries.enqueue(source, [OTHER])
    entries.claim(source, 1)
    entries.enqueue(source, [OTHER])
    found = entries.summarize_queue(source)
    assert (found.pending, found.in_flight, found.stale, found.dead) == (1, 1, 1, 0)
    assert found.oldest_age_ms is not None
    assert 180_000 <= found.oldest_age_ms < 240_000
    assert [(e.tenancy, e.stale) for e in entries.list_entries(source, 1)] == [(str(MINE), True)]


def test_the_oldest_entry_is_claimed_first(source: Connection) -> None:
    made = [entry(source, None) for _ in range(3)]
    for age, id_ in enumerate(made):
        source.execute(
            'UPDATE "OutgoingRequest" SET "createdAt" = now() - %s * interval \'1 hour\' WHERE id = %s', (age, id_)
        )
    assert [claim.id for _ in made for claim in entries.claim(source, 1)] == made[::-1]
