"""Queue entries: claims that are leases, and wake-ups that are not lost."""

from __future__ import annotations

import json
import threading
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from stackctl.sync.queue import deliveries, entries
from tests.backend import MINE, OTHER, Connection, claim_as_another, fetch, insert, wait_until_blocked

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
    claim_as_another(source)
    entries.enqueue(source, [MINE, OTHER])
    assert sorted(claimed for _, claimed in state(source)) == [False, False, True]
    assert set(entries.take(source, 10)) == {str(MINE), str(OTHER)}
    assert [claimed for _, claimed in state(source)] == [True]


def test_two_pollers_never_take_the_same_entry(source: Connection, migrated_db: str, connect: Connect) -> None:
    tenancies = [str(uuid.uuid4()) for _ in range(10)]
    for tenancy in tenancies:
        entry(source, None, {"url": URL, "body": {"tenancyId": tenancy}})
    first, second = connect(migrated_db), connect(migrated_db)
    taken = [tenancy for conn in (first, second, first) for tenancy in entries.take(conn, 4)]  # all uncommitted
    assert sorted(map(str, taken)) == sorted(tenancies)
    first.commit()
    second.commit()
    assert entries.take(source, 10) == []


def test_what_is_claimed_or_of_others_is_left(source: Connection) -> None:
    entries.enqueue(source, [MINE, OTHER])
    claimed = claim_as_another(source)
    foreign = entry(source, "mail", {"url": "/api/latest/send-email", "body": {"tenancyId": str(MINE)}})
    assert len(entries.take(source, 10)) == 1
    source.execute(
        'UPDATE "OutgoingRequest" SET "startedFulfillingAt" = now() - interval \'1 day\' WHERE id = %s', (foreign,)
    )
    assert entries.recover_expired(source) == 0
    assert {(foreign, True), (claimed, True)} == set(state(source))
    assert entries.summarize_queue(source).in_flight == 1
    assert foreign not in {e.id for e in entries.list_entries(source, 10)}


@pytest.mark.parametrize("off", ["-61 s", "1 day"])
def test_claims_that_expired_or_lie_ahead_are_recovered(source: Connection, off: str) -> None:
    """A clock that is set back must not leave a claim to nobody until it has caught up."""
    entries.enqueue(source, [MINE])
    claim_as_another(source)
    assert entries.recover_expired(source) == 0
    source.execute('UPDATE "OutgoingRequest" SET "startedFulfillingAt" = "startedFulfillingAt" + %s::interval', (off,))
    assert entries.recover_expired(source) == 1
    assert [claimed for _, claimed in state(source)] == [False]


def test_an_expired_lease_returns_once(source: Connection, migrated_db: str, connect: Connect) -> None:
    id_ = entry(source, f"sentinel-sync-key-{MINE}")
    claim_as_another(source)
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
    claim_as_another(source)
    claim_as_another(source)
    stale = {e.tenancy: e.id for e in entries.list_entries(source, 10)}
    entries.enqueue(source, [MINE])
    ((newer, _),) = [row for row in state(source) if not row[1]]
    assert entries.recover_expired(source, EXPIRED) == 2
    assert set(state(source)) == {(newer, False), (stale[str(OTHER)], False)}


def test_several_stale_entries_of_one_key(source: Connection) -> None:
    for _ in range(3):
        entries.enqueue(source, [MINE])
        claim_as_another(source)
    assert entries.recover_expired(source, EXPIRED) == 3
    assert [claimed for _, claimed in state(source)] == [False]


def test_entries_without_a_key_do_not_meet(source: Connection) -> None:
    ids = {entry(source, None) for _ in range(3)}
    assert {claim_as_another(source) for _ in range(3)} == ids
    assert entries.recover_expired(source, EXPIRED) == 3
    assert {id_ for id_, claimed in state(source) if not claimed} == ids


def test_an_enqueue_meets_a_recovery(source: Connection, migrated_db: str, connect: Connect) -> None:
    """Whoever comes second waits, and one pending entry is left."""
    for first_is_enqueue in (True, False):
        entries.enqueue(source, [MINE])
        claim_as_another(source)
        held = connect(migrated_db)
        other = connect(migrated_db, autocommit=True)
        steps = [lambda conn: entries.enqueue(conn, [MINE]), lambda conn: entries.recover_expired(conn, EXPIRED)]
        if not first_is_enqueue:
            steps.reverse()
        held.execute("SELECT 1")  # the beginning of a transaction
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
    assert len(entries.take(source, 10)) == 1


@pytest.mark.parametrize("options", [[], "text", 5, {"url": 5}, {"url": None}])
def test_what_is_no_entry_of_ours_stays(source: Connection, options: Any) -> None:
    source.execute(
        'INSERT INTO "OutgoingRequest" (id, "qstashOptions") VALUES (gen_random_uuid(), to_jsonb(%s::json))',
        (json.dumps(options),),
    )
    assert entries.take(source, 10) == []
    assert entries.summarize_queue(source) == entries.QueueSummary(0, 0, 0, 0, None)


def test_summary_and_order(source: Connection) -> None:
    entries.enqueue(source, [MINE])
    claim_as_another(source)
    source.execute(
        "UPDATE \"OutgoingRequest\" SET \"startedFulfillingAt\" = now() AT TIME ZONE 'UTC' - interval '2 min',"
        " \"createdAt\" = now() AT TIME ZONE 'UTC' - interval '3 min'"
    )
    entries.enqueue(source, [OTHER])
    claim_as_another(source)
    entries.enqueue(source, [OTHER])
    found = entries.summarize_queue(source)
    assert (found.pending, found.in_flight, found.stale, found.dead) == (1, 1, 1, 0)
    assert found.oldest_age_ms is not None
    assert 180_000 <= found.oldest_age_ms < 240_000
    assert [(e.tenancy, e.stale) for e in entries.list_entries(source, 1)] == [(str(MINE), True)]


def test_the_oldest_entry_is_claimed_first(source: Connection) -> None:
    made = [uuid.uuid4() for _ in range(3)]
    for id_ in made:
        entry(source, None, {"url": URL, "body": {"tenancyId": str(id_)}}, id_)
    for age, id_ in enumerate(made):
        source.execute(
            'UPDATE "OutgoingRequest" SET "createdAt" = now() - %s * interval \'1 hour\' WHERE id = %s', (age, id_)
        )
    order = [tenancy for _ in made for tenancy in entries.take(source, 1)]
    assert order == [str(id_) for id_ in made[::-1]]


def test_many_that_wait_take_turns_by_tenancy(source: Connection) -> None:
    """What is in hand counts, then the place among the tenancy's own, then the time; of all tenancies, not of some."""
    source.execute(
        "INSERT INTO stackctl.pending_delivery (tenancy_id, database_id, queued_at, slow, leased_by, leased_at)"
        " SELECT md5((n % 200)::text)::uuid, 'db' || n, now() + n * 7919 % 600 * interval '1 s', n % 3 = 0,"
        " CASE WHEN n % 4 = 0 OR n % 200 > 120 THEN gen_random_uuid() END, now() FROM generate_series(1, 600) AS n"
    )
    query = "SELECT tenancy_id, database_id, slow, leased_by FROM stackctl.pending_delivery ORDER BY queued_at"
    rows = source.execute(query).fetchall()
    turns: dict[uuid.UUID, int] = {}
    for tenancy, _, _, holder in rows:
        turns[tenancy] = turns.get(tenancy, 0) + (holder is not None)
    waiting: list[tuple[int, int, deliveries.Key]] = []
    for place, (tenancy, database, slow, holder) in enumerate(rows):
        if holder is None and not slow:
            turns[tenancy] += 1
            waiting.append((turns[tenancy], place, (tenancy, database)))
    leased = deliveries.lease(source, uuid.uuid4(), 7, slow=False, busy=[])
    assert {one.key for one in leased} == {key for _, _, key in sorted(waiting)[:7]}
