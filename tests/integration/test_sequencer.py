"""Stamping: order, no lost wake-up, locked rows, dependencies. Connections are interleaved by hand."""

from __future__ import annotations

import threading
import uuid
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

from stackctl.core.bundled import find_bundled
from stackctl.core.errors import StateError
from stackctl.mapping import files
from stackctl.sync.changes import sequencer
from stackctl.sync.changes.sequencer import Sequencer, SequenceResult
from stackctl.sync.changes.stamping import compose_stampings
from stackctl.sync.changes.turns import TurnTaker
from stackctl.sync.queue import entries
from stackctl.sync.stop import Stop, WakeUpSignal
from tests.backend import (
    BRANCHES,
    MINE,
    OTHER,
    SEQUENCER_LOCK,
    Connection,
    Project,
    add_account,
    add_channel,
    add_invitation,
    add_many_users,
    add_team,
    add_user,
    claim_as_another,
    differences,
    failures,
    fetch,
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
    from collections.abc import Collection

    from stackctl.sync.pipeline import Pipeline
    from tests.conftest import Connect

MAPPINGS = files.load_mappings(find_bundled("mappings")).mappings
STAMP = (
    'UPDATE "ProjectUser" SET "sequenceId" = nextval(\'global_seq_id\'), "shouldUpdateSequenceId" = false'
    ' WHERE "projectUserId" = %s'
)


def cursor_of(url: str, connect: Connect, mapping: str = "users") -> int:
    query = "SELECT last_synced_sequence_id FROM _stack_sync_metadata WHERE mapping_name = %s"
    return one(connect(url, autocommit=True), query, mapping)


def names(url: str, connect: Connect) -> list[str]:
    return [row[0] for row in fetch(connect(url, autocommit=True), "SELECT display_name FROM users ORDER BY 1")]


def pending(conn: Connection) -> list[str]:
    return [t for (t,) in fetch(conn, 'SELECT "qstashOptions" -> \'body\' ->> \'tenancyId\' FROM "OutgoingRequest"'
                                ' WHERE "startedFulfillingAt" IS NULL ORDER BY 1')]  # fmt: skip


@pytest.mark.quick
def test_stamps_queue_and_log_are_one(project: Project, source: Connection) -> None:
    populate(source, MINE)
    populate(source, OTHER)
    result = sequence(project.pipeline())
    assert result.rows == 22
    assert set(result.by_table) == {m.source for m in MAPPINGS.values()}
    assert result.touched == {MINE, OTHER}
    assert (result.stopped_by, result.enqueued) == ("drained", 2 * result.batches)
    assert pending(source) == [str(MINE), str(OTHER)]
    ((entry, key),) = fetch(
        source, 'SELECT "qstashOptions", "deduplicationKey" FROM "OutgoingRequest" ORDER BY "deduplicationKey" LIMIT 1'
    )
    assert entry == {
        "url": "/api/latest/internal/external-db-sync/sync-engine",
        "body": {"tenancyId": str(MINE)},
        "flowControl": {"key": "sentinel-sync-key", "parallelism": 20},
    }
    assert key == f"sentinel-sync-key-{MINE}"
    highest = one(source, "SELECT last_value FROM global_seq_id")
    assert one(source, "SELECT max(up_to_sequence_id) FROM stackctl.stamp_log") == highest
    assert sequence(project.pipeline()).rows == 0
    assert one(source, "SELECT last_value FROM global_seq_id") == highest


def test_small_batches_stamp_everything_once(project: Project, source: Connection) -> None:
    add_many_users(source, 95)
    add_many_users(source, 12, OTHER)
    result = sequence(project.pipeline(), batch_size=10)
    assert (result.rows, result.by_table) == (107, {"ProjectUser": 107})
    assert one(source, 'SELECT count(DISTINCT "sequenceId") FROM "ProjectUser"') == 107


def test_batches_grow_while_a_backlog_lasts_and_do_not_hold_rows_for_long(
    project: Project, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count_batches(seconds: float, *, grows: bool) -> int:
        monkeypatch.setattr(sequencer, "HOLD", seconds)
        source.execute('UPDATE "ProjectUser" SET "displayName" = "displayName" || \'!\'')
        result = SequenceResult()
        with project.pipeline().open_session() as conn:
            Sequencer(conn, list(MAPPINGS.values()), batch_size=10, grows=grows).drain(
                result, Stop(), lambda rows: None
            )
        assert result.rows == 150
        return result.batches

    add_many_users(source, 150)
    assert count_batches(60, grows=True) == 4  # 10, 20, 40 and the rest
    assert count_batches(0, grows=True) == count_batches(60, grows=False) > 7


def test_an_uncommitted_change_does_not_show(
    project: Project, source: Connection, external_db: str, migrated_db: str, connect: Connect
) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    user = add_user(source, displayName="before")
    settle(pipeline)
    writer = connect(migrated_db)
    writer.execute('UPDATE "ProjectUser" SET "displayName" = \'after\' WHERE "projectUserId" = %s', (user,))
    add_user(writer, displayName="new")
    assert sequence(pipeline).rows == 0
    sync(pipeline)
    sync(pipeline, full=True)
    assert names(external_db, connect) == ["before"]
    writer.rollback()
    settle(pipeline)
    assert names(external_db, connect) == ["before"]


def test_a_commit_that_lands_late_is_not_skipped(
    project: Project, source: Connection, external_db: str, migrated_db: str, connect: Connect
) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    a, b = add_user(source, displayName="a0"), add_user(source, displayName="b0")
    settle(pipeline)
    late = connect(migrated_db)
    late.execute('UPDATE "ProjectUser" SET "displayName" = \'a1\' WHERE "projectUserId" = %s', (a,))
    add_user(late, displayName="c1")
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'b1\' WHERE "projectUserId" = %s', (b,))
    settle(pipeline)
    assert names(external_db, connect) == ["a0", "b1"]
    passed = cursor_of(external_db, connect)
    late.commit()
    settle(pipeline)
    assert names(external_db, connect) == ["a1", "b1", "c1"]
    stamps = [row[0] for row in fetch(source, 'SELECT "sequenceId" FROM "ProjectUser" ORDER BY 1')]
    assert stamps[1] > passed  # the late ones came after the cursor, not below it


@pytest.mark.parametrize("locked", [True, False])
def test_the_lock_keeps_the_order(
    locked: bool, project: Project, source: Connection, external_db: str, migrated_db: str, connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A stamper that is slow to commit holds the others off. Without the lock its rows are lost for ever."""
    pipeline = project.postgres(MINE, external_db).pipeline()
    a, b = add_user(source, displayName="a0"), add_user(source, displayName="b0")
    settle(pipeline)
    source.execute('UPDATE "ProjectUser" SET "displayName" = left("displayName", 1) || \'1\'')
    slow = connect(migrated_db)
    if locked:
        slow.execute(SEQUENCER_LOCK)
    slow.execute(STAMP, (a,))
    monkeypatch.setattr(sequencer, "LOCK_WAIT", 0.05)
    result = sequence(pipeline)
    assert result.stopped_by == ("lock-held" if locked else "drained")
    assert result.rows == (0 if locked else 1)
    sync(pipeline)
    slow.commit()
    settle(pipeline)
    assert names(external_db, connect) == (["a1", "b1"] if locked else ["a0", "b1"])
    assert b != a


def test_a_second_sequencer_waits_shortly_and_goes_on(
    project: Project, source: Connection, migrated_db: str, connect: Connect
) -> None:
    user = add_user(source)
    first = connect(migrated_db)
    first.execute(SEQUENCER_LOCK)

    class Watched(Stop):
        waits = 0

        def wait(self, seconds: float, signal: WakeUpSignal | None = None) -> bool:
            Watched.waits += seconds == sequencer.LOCK_POLL
            first.commit()
            return False

    with project.pipeline().open_session() as conn:
        result = SequenceResult()
        Sequencer(conn, list(MAPPINGS.values()), batch_size=10).drain(result, Watched(), lambda rows: None)
    assert (result.rows, Watched.waits) == (1, 1)
    assert one(source, 'SELECT "sequenceId" FROM "ProjectUser" WHERE "projectUserId" = %s', user) == 1


def test_the_backends_function_stamps_in_order_too(
    project: Project, source: Connection, external_db: str, migrated_db: str, connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pipeline = project.postgres(MINE, external_db).pipeline()
    made = populate(source)
    settle(pipeline)
    source.execute("UPDATE \"ContactChannel\" SET value = 'x@example.com' WHERE id = %s", (made.channel,))
    other = connect(migrated_db)
    assert one(other, "SELECT backfill_null_sequence_ids(10)") == 2  # the channel and its user
    add_user(source)
    monkeypatch.setattr(sequencer, "LOCK_WAIT", 0.05)
    assert sequence(pipeline).stopped_by == "lock-held"
    other.commit()
    settle(pipeline)
    assert differences(pipeline) == []


def test_no_wake_up_is_lost_between_stamp_and_claim(
    project: Project, source: Connection, external_db: str, migrated_db: str, connect: Connect
) -> None:
    """A pending entry that a stamping transaction has written again can't be claimed before that commits."""
    pipeline = project.postgres(MINE, external_db).pipeline()
    user = add_user(source, displayName="a0")
    settle(pipeline)
    entries.enqueue(source, [MINE])
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'a1\' WHERE "projectUserId" = %s', (user,))
    stamper = connect(migrated_db)
    stamper.execute(SEQUENCER_LOCK)
    stamper.execute(STAMP, (user,))
    entries.enqueue(stamper, [MINE])
    assert poll(pipeline).claimed == 0
    stamper.commit()
    assert poll(pipeline).delivered == 1
    assert names(external_db, connect) == ["a1"]


def test_an_entry_claimed_before_the_stamp_is_followed_by_another(
    project: Project, source: Connection, external_db: str, migrated_db: str, connect: Connect
) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    user = add_user(source, displayName="a0")
    settle(pipeline)
    id_ = claim_as_another(source)
    sync(pipeline)  # by the claimer: the stamp below is not visible yet
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'a1\' WHERE "projectUserId" = %s', (user,))
    assert sequence(pipeline).rows == 1
    assert source.execute('DELETE FROM "OutgoingRequest" WHERE id = %s', (id_,)).rowcount == 1
    assert poll(pipeline).delivered == 1
    assert names(external_db, connect) == ["a1"]


def test_a_claim_taken_first_holds_the_stamper_only_until_it_commits(
    project: Project, source: Connection, external_db: str, migrated_db: str, connect: Connect
) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    add_user(source, displayName="a0")
    settle(pipeline)
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'a1\'')
    poller = connect(migrated_db)
    assert entries.take(poller, 1) == [str(MINE)]
    results: list[SequenceResult] = []
    thread = threading.Thread(target=lambda: results.append(sequence(pipeline)))
    thread.start()
    wait_until_blocked(source)
    poller.commit()
    thread.join()
    assert results[0].rows == 1
    assert pending(source) == [str(MINE)]
    assert poll(pipeline).delivered == 1
    assert names(external_db, connect) == ["a1"]


def marked(conn: Connection, table: str) -> int:
    return one(conn, f'SELECT count(*) FROM "{table}" WHERE "shouldUpdateSequenceId"')


def test_a_locked_row_is_passed_over_and_comes_later(
    project: Project, source: Connection, migrated_db: str, connect: Connect
) -> None:
    users = [add_user(source) for _ in range(3)]
    app = connect(migrated_db)
    app.execute('SELECT 1 FROM "ProjectUser" WHERE "projectUserId" = %s FOR UPDATE', (users[1],))
    result = sequence(project.pipeline())  # returns: it waits for nobody
    assert (result.rows, result.stopped_by) == (2, "drained")
    assert marked(source, "ProjectUser") == 1
    app.commit()
    assert sequence(project.pipeline()).rows == 1


@pytest.mark.parametrize("change", ["update", "delete"])
def test_a_child_waits_for_a_locked_parent(
    change: str, project: Project, source: Connection, external_db: str, migrated_db: str, connect: Connect
) -> None:
    """Neither does the sequencer wait for the application, nor does the parent lose its mark."""
    pipeline = project.postgres(MINE, external_db).pipeline()
    held, free = populate(source), populate(source)
    settle(pipeline)
    statement = (
        "UPDATE \"ContactChannel\" SET value = 'new-' || value"
        if change == "update"
        else 'DELETE FROM "ContactChannel"'
    )
    source.execute(statement)
    app = connect(migrated_db)
    app.execute('SELECT 1 FROM "ProjectUser" WHERE "projectUserId" = %s FOR UPDATE', (held.user,))
    settle(pipeline)
    assert marked(source, "ContactChannel" if change == "update" else "DeletedRow") == 1
    outside = connect(external_db, autocommit=True)
    fresh = "new-{}@example.com" if change == "update" else None
    assert one(outside, "SELECT primary_email FROM users WHERE id = %s", free.user) == (
        fresh and fresh.format(free.user)
    )
    assert one(outside, "SELECT primary_email FROM users WHERE id = %s", held.user) == f"{held.user}@example.com"
    app.commit()
    settle(pipeline)
    assert one(outside, "SELECT primary_email FROM users WHERE id = %s", held.user) == (
        fresh and fresh.format(held.user)
    )
    assert marked(source, "ContactChannel") == marked(source, "DeletedRow") == 0
    assert differences(pipeline) == []


def test_an_insert_of_a_child_does_not_hold_the_parents_mark_up(
    project: Project, source: Connection, migrated_db: str, connect: Connect
) -> None:
    """The foreign key's lock on the parent is no reason to wait: it does not stand against marking."""
    user = add_user(source)
    channel = add_channel(source, user, "a@example.com")
    sequence(project.pipeline())
    app = connect(migrated_db)
    add_account(app, user)
    source.execute("UPDATE \"ContactChannel\" SET value = 'b@example.com' WHERE id = %s", (channel,))
    result = sequence(project.pipeline())
    assert result.by_table["ContactChannel"] == 1
    assert marked(source, "ProjectUser") == 1
    app.commit()
    assert sequence(project.pipeline()).by_table == {"ProjectUser": 1, "ProjectUserOAuthAccount": 1}


def test_locked_parents_do_not_stop_other_tables(
    project: Project, source: Connection, migrated_db: str, connect: Connect
) -> None:
    held = populate(source)
    sequence(project.pipeline())
    source.execute("UPDATE \"ContactChannel\" SET value = 'x'")
    team = add_team(source)
    app = connect(migrated_db)
    app.execute('SELECT 1 FROM "ProjectUser" WHERE "projectUserId" = %s FOR UPDATE', (held.user,))
    assert sequence(project.pipeline(), batch_size=1).by_table == {"Team": 1}
    assert one(source, 'SELECT "sequenceId" IS NOT NULL FROM "Team" WHERE "teamId" = %s', team)


@pytest.mark.parametrize(("many", "few"), [(MINE, OTHER), (OTHER, MINE)])
def test_tenancies_take_turns(many: uuid.UUID, few: uuid.UUID, project: Project, source: Connection) -> None:
    """A change of one is in the next batch, however many rows of the other wait."""
    add_many_users(source, 100, many)
    with project.pipeline().open_session() as conn:
        stamper = Sequencer(conn, list(MAPPINGS.values()), batch_size=10)
        for _ in range(2):
            stamper.stamp_batch(SequenceResult())
            add_user(source, few)
            result = SequenceResult()
            stamper.stamp_batch(result)
            assert (result.rows, result.touched) == (11, {many, few})
    assert pending(source) == [str(MINE), str(OTHER)]


def test_rows_whose_parents_are_locked_write_nothing(
    project: Project, source: Connection, migrated_db: str, connect: Connect
) -> None:
    add_many_users(source, 300)
    for (user,) in fetch(source, 'SELECT "projectUserId" FROM "ProjectUser"'):
        add_channel(source, user, f"{user}@example.com")
    other = populate(source, OTHER)
    sequence(project.pipeline())
    app = connect(migrated_db)
    app.execute('UPDATE "ProjectUser" SET "displayName" = \'bulk\' WHERE "tenancyId" = %s', (MINE,))
    source.execute('UPDATE "ContactChannel" SET "isVerified" = false WHERE "tenancyId" = %s', (MINE,))
    with project.pipeline().open_session() as conn:
        stamper = Sequencer(conn, list(MAPPINGS.values()), batch_size=100)
        before, result = one(source, "SELECT pg_current_wal_insert_lsn()"), SequenceResult()
        for _ in range(10):
            assert (stamper.drain(result, Stop(), lambda rows: None), result.rows) == ("drained", 0)
        # 300 locks are 20 kB, each time.
        assert one(source, "SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", before) < 2000
        source.execute("UPDATE \"ContactChannel\" SET value = 'x' WHERE id = %s", (other.channel,))
        stamper.drain(result, Stop(), lambda rows: None)
        assert result.by_table == {"ContactChannel": 1, "ProjectUser": 1}
        app.commit()
        wait_for(lambda: stamper.drain(result, Stop(), lambda rows: None) and marked(source, "ContactChannel") == 0)
    assert result.by_table["ContactChannel"] == 301


def test_a_locked_child_does_not_mark_its_parent(
    project: Project, source: Connection, migrated_db: str, connect: Connect
) -> None:
    made = populate(source)
    sequence(project.pipeline())
    source.execute('UPDATE "ContactChannel" SET "isVerified" = false')
    app = connect(migrated_db)
    app.execute('SELECT FROM "ContactChannel" WHERE id = %s FOR UPDATE', (made.channel,))
    assert sequence(project.pipeline()).rows == 0
    app.commit()
    assert sequence(project.pipeline()).by_table == {"ContactChannel": 1, "ProjectUser": 1}


def test_tombstones_of_a_dependency_mark_the_parents(project: Project, source: Connection) -> None:
    made, other = populate(source), populate(source, OTHER)
    sequence(project.pipeline())
    source.execute('DELETE FROM "Team" WHERE "teamId" = %s', (made.team,))
    result = sequence(project.pipeline())
    assert result.by_table["VerificationCode"] == 1
    source.execute('DELETE FROM "ContactChannel" WHERE id = %s', (other.channel,))
    assert sequence(project.pipeline()).by_table == {"DeletedRow": 1, "ProjectUser": 1}


def test_a_tombstone_written_by_hand_does_not_stop_the_sequencer(project: Project, source: Connection) -> None:
    populate(source)
    for key in ('{"projectUserId": "no uuid"}', "{}", "[]", "null", '{"projectUserId": null}'):
        source.execute(
            'INSERT INTO "DeletedRow" (id, "tenancyId", "tableName", "primaryKey")'
            " VALUES (gen_random_uuid(), %s, 'ContactChannel', %s::jsonb)",
            (MINE, key),
        )
    assert sequence(project.pipeline()).by_table["DeletedRow"] == 5


def test_codes_of_other_kinds_and_tenancies_that_do_not_exist(project: Project, source: Connection) -> None:
    team = add_team(source)
    add_invitation(source, team, type="PASSWORD_RESET")
    add_invitation(source, team, data={"team_id": "not a uuid"})
    add_invitation(source, team, branchId="no such branch")
    result = sequence(project.pipeline())
    assert result.by_table == {"Team": 1, "VerificationCode": 2}
    assert result.touched == {MINE}
    assert marked(source, "VerificationCode") == 0  # what no mapping sends costs nothing while idle, either
    source.execute('DELETE FROM "VerificationCode"')  # the one without a tenancy leaves no tombstone, and no error
    assert sequence(project.pipeline()).by_table == {"DeletedRow": 1}


@pytest.mark.parametrize("index", [True, False])
def test_projects_take_turns_with_their_codes(index: bool, project: Project, source: Connection) -> None:
    """One with many codes holds up nobody; without the index that it takes, all are stamped all the same."""
    pipeline = project.pipeline()
    teams = {tenancy: add_team(source, tenancy) for tenancy in (MINE, OTHER)}
    sequence(pipeline)
    if not index:
        source.execute('DROP INDEX "VerificationCode_turns_idx"')
    sequencer, result = Sequencer(source, list(MAPPINGS.values()), batch_size=100), SequenceResult()
    (stamping,) = [one for one in compose_stampings(source, list(MAPPINGS.values())) if one.table == "VerificationCode"]
    source.execute(
        'INSERT INTO "VerificationCode" ("projectId", "branchId", id, "updatedAt", code, type, "expiresAt", data)'
        " SELECT 'p', %s, gen_random_uuid(), now(), n, 'TEAM_INVITATION', now(),"
        " jsonb_build_object('team_id', %s::text) FROM generate_series(1, 1000) AS n",
        (BRANCHES[MINE], teams[MINE]),
    )
    for _ in range(2):
        assert sequencer.stamp_batch(result) == "stamped"
    late = [add_invitation(source, teams[OTHER], OTHER), add_invitation(source, teams[OTHER], branchId="nobody's")]
    sequencer.stamp_batch(result)
    waiting = 'SELECT count(*) FROM "VerificationCode" WHERE id = ANY (%s) AND "shouldUpdateSequenceId"'
    assert one(source, waiting, late) == (0 if index else 2)
    assert sequencer.drain(result, Stop(), lambda rows: None) == "drained"
    assert (marked(source, "VerificationCode"), result.by_table["VerificationCode"]) == (0, 1002)
    assert {MINE, OTHER} <= result.touched
    if index:
        source.execute("SET enable_seqscan = off")
        turns = TurnTaker(100).list_turns([], 0.0)
        assert turns is not None
        for statement in (stamping.probe, stamping.statement):
            explain = sql.SQL("EXPLAIN {}").format(statement)
            plan = source.execute(explain, vars(turns) | {"skipped": [MINE]}).fetchall()
            assert "VerificationCode_turns_idx" in str(plan)


def test_a_row_changed_while_the_statement_runs_is_stamped_with_its_change(
    project: Project, source: Connection, external_db: str, migrated_db: str, connect: Connect
) -> None:
    """The statement's snapshot is taken, then the row changes and commits, then the statement gets to it."""
    pipeline = project.postgres(MINE, external_db).pipeline()
    made = populate(source)
    settle(pipeline)
    gate = connect(migrated_db, autocommit=True)
    source.execute("UPDATE \"ContactChannel\" SET value = 'early@example.com'")
    source.execute(
        "CREATE FUNCTION gate() RETURNS boolean LANGUAGE sql VOLATILE AS"
        " 'SELECT pg_advisory_xact_lock_shared(4711) IS NOT NULL'"
    )
    results = [SequenceResult()]

    class Gated(Sequencer):
        def _stamp_all(self, batch: Any, waiting: Collection[int]) -> None:
            # The statement for channels gets to no row before the gate opens.
            number = self.tables.index("ContactChannel")
            turn, gated = b'"tenancyId" BETWEEN turn', b'gate() AND "tenancyId" BETWEEN turn'
            assert turn in self._statements[number]
            self._statements[number] = self._statements[number].replace(turn, gated)
            gate.execute("SELECT pg_advisory_lock(4711)")
            super()._stamp_all(batch, waiting)

    def stamp() -> None:
        with pipeline.open_session() as conn:
            Gated(conn, list(MAPPINGS.values()), batch_size=100).stamp_batch(results[0])

    thread = threading.Thread(target=stamp)
    thread.start()
    wait_until_blocked(source)
    source.execute("UPDATE \"ContactChannel\" SET value = 'late@example.com' WHERE id = %s", (made.channel,))
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'late\'')
    gate.execute("SELECT pg_advisory_unlock_all()")
    thread.join()
    assert results[0].by_table == {"ContactChannel": 1, "ProjectUser": 1}
    sync(pipeline)
    outside = connect(external_db, autocommit=True)
    assert fetch(outside, "SELECT display_name, primary_email FROM users") == [("late", "late@example.com")]
    assert sequence(pipeline).rows == 0
    assert failures(pipeline) == []


def test_a_batch_reads_no_index_but_that_of_the_marks(source: Connection) -> None:
    """A live backend has an index of all rows by mark and tenancy, and others that begin with the tenancy: of those,
    every batch would read the rows that are stamped already. Statistics that say that all wait make them look as good.
    """
    source.execute('DROP INDEX "ProjectUser_tenancyId_idx"')
    source.execute('CREATE INDEX marks ON "ProjectUser" ("shouldUpdateSequenceId", "tenancyId")')
    source.execute('CREATE INDEX by_name ON "ProjectUser" ("tenancyId", "displayName")')
    add_many_users(source, 2000)
    source.execute('ANALYZE "ProjectUser"')
    (stamping,) = [one for one in compose_stampings(source, list(MAPPINGS.values())) if one.table == "ProjectUser"]
    turns = TurnTaker(100).list_turns([OTHER], 0.0)
    assert turns is not None
    for statement in (stamping.probe, stamping.statement):
        explain = sql.SQL("EXPLAIN (FORMAT TEXT) {}").format(statement)
        plan = "\n".join(line for (line,) in source.execute(explain, vars(turns)).fetchall())
        assert "Index Scan using marks" in plan or "Index Only Scan using marks" in plan
        assert "by_name" not in plan


@pytest.mark.parametrize("how", ["inherited", "partitioned"])
def test_a_table_whose_rows_lie_elsewhere_is_refused_by_name(how: str, project: Project, source: Connection) -> None:
    if how == "inherited":
        source.execute('CREATE TABLE more () INHERITS ("EmailOutbox")')
    else:
        source.execute('ALTER TABLE "EmailOutbox" RENAME TO plain')
        source.execute(
            'CREATE TABLE "EmailOutbox" (LIKE plain INCLUDING ALL EXCLUDING INDEXES, PRIMARY KEY ("tenancyId", id))'
            ' PARTITION BY HASH ("tenancyId")'
        )
    with pytest.raises(StateError, match="EmailOutbox") as raised:
        compose_stampings(source, list(MAPPINGS.values()))
    assert raised.value.code == "partitioned-table"
    outcome = project.run("sequence")
    assert outcome.code != 0
    assert "EmailOutbox" in outcome.stderr
    assert "partitions" in outcome.stderr


def test_stopped_before_it_starts(project: Project, source: Connection) -> None:
    add_user(source, id=uuid.UUID(int=1))
    stop = Stop()
    stop.set()
    with project.pipeline().open_session() as conn:
        result = SequenceResult()
        reason = Sequencer(conn, list(MAPPINGS.values()), batch_size=10).drain(result, stop, lambda rows: None)
    assert (reason, result.rows, marked(source, "ProjectUser")) == ("signal", 0, 1)


def test_a_row_that_has_moved_is_stamped_before_its_tombstone(
    project: Project, source: Connection, external_db: str, migrated_db: str, connect: Connect
) -> None:
    """The channel moves to another user, while somebody holds the tombstone of where it was."""
    pipeline = project.postgres(MINE, external_db).pipeline()
    first, second = add_user(source), add_user(source)
    channel = add_channel(source, first, "a@example.com")
    settle(pipeline)
    outside = connect(external_db, autocommit=True)
    outside.execute("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'deleted'; END $$")
    outside.execute("CREATE TRIGGER t BEFORE DELETE ON contact_channels FOR EACH ROW EXECUTE FUNCTION refuse()")
    source.execute('UPDATE "ContactChannel" SET "projectUserId" = %s WHERE id = %s', (second, channel))
    app = connect(migrated_db)
    app.execute('SELECT 1 FROM "DeletedRow" WHERE "tableName" = \'ContactChannel\' FOR UPDATE')
    settle(pipeline)
    assert (marked(source, "ContactChannel"), marked(source, "DeletedRow")) == (0, 1)
    app.commit()
    sequence(pipeline)
    stamps = 'SELECT max("sequenceId") FROM "ContactChannel"', 'SELECT max("sequenceId") FROM "DeletedRow"'
    assert one(source, stamps[0]) < one(source, stamps[1])
    assert [result.error for result in sync(pipeline)] == [None]
    assert differences(pipeline) == []


@pytest.mark.parametrize("batch_size", [1, 20_000])
def test_a_row_that_the_backends_function_stamps_before_its_tombstone(
    batch_size: int, project: Project, source: Connection, external_db: str
) -> None:
    """It goes through the tables in an order of its own, and a page may end in between."""
    pipeline = project.postgres(MINE, external_db).pipeline()
    first, second = add_user(source), add_user(source)
    for number in range(3):
        add_channel(source, first, f"{number}@example.com", isPrimary=None)
    settle(pipeline)
    source.execute('UPDATE "ContactChannel" SET "projectUserId" = %s', (second,))
    source.execute("SELECT backfill_null_sequence_ids(1000)")
    assert marked(source, "DeletedRow") == 0
    assert [result.error for result in sync(pipeline, batch_size=batch_size)] == [None]
    assert differences(pipeline) == []


def test_a_locked_user_holds_up_no_other_users_channels(
    project: Project, source: Connection, migrated_db: str, connect: Connect
) -> None:
    held, free = add_user(source), add_user(source)
    gone, changed = add_channel(source, held, "a@example.com"), add_channel(source, free, "b@example.com")
    sequence(project.pipeline())
    app = connect(migrated_db)
    app.execute('SELECT 1 FROM "ProjectUser" WHERE "projectUserId" = %s FOR UPDATE', (held,))
    source.execute('DELETE FROM "ContactChannel" WHERE id = %s', (gone,))
    source.execute("UPDATE \"ContactChannel\" SET value = 'c@example.com' WHERE id = %s", (changed,))
    assert sequence(project.pipeline()).by_table == {"ContactChannel": 1, "ProjectUser": 1}
    assert marked(source, "DeletedRow") == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_channels_that_move_at_random_arrive_one_by_one(
    seed: int, project: Project, source: Connection, external_db: str
) -> None:
    """They move, go, and come back under another user; stamps are given in any order, and every page is one row."""
    random = Random(seed)
    pipeline = project.postgres(MINE, external_db, mappings=["contact_channels"]).pipeline()
    users = [add_user(source) for _ in range(4)]
    channels = [add_channel(source, random.choice(users), f"{n}@example.com", isPrimary=None) for n in range(6)]
    for _ in range(60):
        channel, user = random.choice(channels), random.choice(users)
        match random.randrange(5):
            case 0:
                source.execute('DELETE FROM "ContactChannel" WHERE id = %s', (channel,))
            case 1:
                source.execute('UPDATE "ContactChannel" SET "isVerified" = NOT "isVerified" WHERE id = %s', (channel,))
            case 2 | 3:
                source.execute('UPDATE "ContactChannel" SET "projectUserId" = %s WHERE id = %s', (user, channel))
            case _:
                if not fetch(source, 'SELECT 1 FROM "ContactChannel" WHERE id = %s', channel):
                    add_channel(source, user, f"{channel}@example.com", id=channel, isPrimary=None)
        if random.random() < 0.5:
            # In the middle of it, by whichever hand: rows first, one of each table at a time, or tombstones first.
            stamp = random.choice(
                ("SELECT backfill_null_sequence_ids(1)", "SELECT backfill_null_sequence_ids(100)", "")
            )
            source.execute(stamp) if stamp else sequence(pipeline, batch_size=random.choice((1, 100)))
        if random.random() < 0.3:
            assert [result.error for result in sync(pipeline, batch_size=1)] == [None]
    sequence(pipeline)
    assert [result.error for result in sync(pipeline, batch_size=1)] == [None]
    assert differences(pipeline) == []


# -- a sequence that was not taken along


@pytest.fixture
def moved(project: Project, source: Connection, external_db: str) -> Pipeline:
    """A pipeline whose copies are up to date, and whose sequence begins anew, as after logical replication."""
    pipeline = project.postgres(MINE, external_db).pipeline()
    populate(source)
    settle(pipeline)
    source.execute("SELECT setval('global_seq_id', 1, false)")
    return pipeline


def highest_stamp(source: Connection) -> int:
    tables = [*{mapping.source for mapping in MAPPINGS.values()}, "DeletedRow"]
    return max(one(source, f'SELECT coalesce(max("sequenceId"), 0) FROM "{table}"') for table in tables)


@pytest.mark.parametrize("unique", [False, True])
def test_a_sequence_below_the_stamps_is_refused_until_it_is_set(
    moved: Pipeline, source: Connection, unique: bool
) -> None:
    if unique:  # as a live backend has it: ids that are given again collide
        source.execute('CREATE UNIQUE INDEX ON "ProjectUser" ("sequenceId")')
        stamps = fetch(source, 'SELECT "sequenceId" FROM "ProjectUser" ORDER BY 1')
        source.execute("SELECT setval('global_seq_id', %s, false)", stamps[0])
    user = add_user(source)
    newcomer = None if unique else add_user(source, OTHER)
    with pytest.raises(StateError) as raised:
        sequence(moved)
    fix = f"SELECT setval('global_seq_id', {highest_stamp(source)})"
    assert (raised.value.code, raised.value.hint) == ("sequence-behind", fix)
    assert one(source, 'SELECT "shouldUpdateSequenceId" FROM "ProjectUser" WHERE "projectUserId" = %s', user)
    if newcomer:  # whose tenancy has no stamps above the sequence
        marked = 'SELECT "shouldUpdateSequenceId" FROM "ProjectUser" WHERE "projectUserId" = %s'
        assert not one(source, marked, newcomer)
    for full in (False, True):
        assert {result.error.code for result in sync(moved, full=full) if result.error} == {"sequence-behind"}
    source.execute(fix.encode())
    settle(moved)
    assert differences(moved) == []
    assert failures(moved) == []


def test_a_sequence_that_is_set_back_under_a_sequencer(moved: Pipeline, source: Connection) -> None:
    source.execute("SELECT setval('global_seq_id', %s)", (highest_stamp(source),))
    stamped = fetch(source, 'SELECT "sequenceId" FROM "ProjectUser" ORDER BY 1 LIMIT 1')[0][0]
    with moved.open_session() as conn:
        running = Sequencer(conn, list(MAPPINGS.values()), batch_size=100)
        add_user(source)
        source.execute("SELECT setval('global_seq_id', %s, false)", (stamped,))
        assert running.drain(SequenceResult(), Stop(), lambda rows: None) == "drained"
    assert running.behind is not None
    assert running.behind.code == "sequence-behind"


def test_a_loop_waits_for_the_sequence_and_goes_on(moved: Pipeline, project: Project, source: Connection) -> None:
    add_user(source)
    process = project.start("sequence", "--loop")
    assert process.stderr is not None
    for line in process.stderr:
        if "setval" in line:
            source.execute("SELECT setval('global_seq_id', %s)", (highest_stamp(source),))
            break
    wait_for(lambda: one(source, 'SELECT count(*) FROM "ProjectUser" WHERE "shouldUpdateSequenceId"') == 0)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 0
