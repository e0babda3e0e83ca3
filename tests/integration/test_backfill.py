"""`backfill` sends every row again: beside live changes, at its pace, and from where a killed one stopped."""

from __future__ import annotations

import signal
import sqlite3
import threading
import time
import uuid
from typing import TYPE_CHECKING

import psycopg
import pytest

from stackctl.core.errors import UsageError
from stackctl.sync import service
from stackctl.sync.check import backfill
from stackctl.sync.stop import Stop
from tests.backend import (
    MINE,
    OTHER,
    Connection,
    Project,
    add_channel,
    add_invitation,
    add_many_users,
    add_team,
    add_user,
    differences,
    ended,
    failures,
    fetch,
    one,
    populate,
    sequence,
    settle,
    sync,
    wait_for,
)

if TYPE_CHECKING:
    from stackctl.sync.check.backfill import BackfillResult
    from stackctl.sync.pipeline import Pipeline
    from tests.conftest import Connect

ALL = service.Scope(None)
PROGRESS = "SELECT position, up_to_sequence_id, rows_sent FROM stackctl.backfill"


def sent(
    pipeline: Pipeline, mapping: str = "users", *, rate: int | None = None, restart: bool = False
) -> list[BackfillResult]:
    return backfill.backfill(pipeline, mapping, ALL, backfill.BackfillOptions(rate, restart), Stop())


def sent_to_one(pipeline: Pipeline, mapping: str = "users") -> BackfillResult:
    (result,) = sent(pipeline, mapping)
    assert result.error is None, result.error
    return result


@pytest.fixture
def analytics(project: Project, external_db: str) -> Pipeline:
    return project.postgres(MINE, external_db).pipeline()


@pytest.mark.quick
@pytest.mark.parametrize("mapping", ["users", "contact_channels", "team_invitations", "team_member_profiles"])
@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_every_row_is_sent_and_nothing_else_moves(
    project: Project, source: Connection, external_db: str, mapping: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.postgres(MINE, external_db) if kind == "postgres" else project.sqlite(MINE)
    pipeline = project.pipeline()
    for _ in range(7):
        populate(source)
    populate(source, OTHER)
    settle(pipeline)
    cursors = "SELECT mapping_name, last_synced_sequence_id FROM _stack_sync_metadata ORDER BY 1"
    marks = 'SELECT "projectUserId", "sequenceId", "shouldUpdateSequenceId", xmin::text FROM "ProjectUser" ORDER BY 1'
    operated = fetch(source, marks)
    damage = f"UPDATE {mapping} SET created_at = '2001-01-01'" if mapping != "users" else "DELETE FROM users"
    if kind == "postgres":
        with psycopg.connect(external_db) as conn:
            before = fetch(conn, cursors)
            conn.execute(damage.encode())
    else:
        file = sqlite3.connect(project.directory / "copy.db")
        before = file.execute(cursors).fetchall()
        with file:
            file.execute(damage)
        file.close()
    assert [found.mapping for found in differences(pipeline)] == [mapping]
    monkeypatch.setattr(backfill, "BATCH", 3)
    result = sent_to_one(pipeline, mapping)
    assert (result.rows, result.planned, result.batches, result.resumed) == (7, 7, 3, False)
    assert differences(pipeline) == []
    assert fetch(source, marks) == operated
    assert fetch(source, PROGRESS) == []
    if kind == "postgres":
        with psycopg.connect(external_db) as conn:
            assert fetch(conn, cursors) == before


def test_old_tombstones_do_not_take_rows_that_have_moved(
    analytics: Pipeline, source: Connection, external_db: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A channel that was given to another user has a tombstone under the first one's name."""
    monkeypatch.setattr(backfill, "BATCH", 1)
    first, second = add_user(source), add_user(source)
    channel = add_channel(source, first, "a@example.com")
    settle(analytics)
    source.execute('UPDATE "ContactChannel" SET "projectUserId" = %s', (second,))
    settle(analytics)
    copy = connect(external_db, autocommit=True)
    before = one(copy, "SELECT count(*) FROM contact_channels")
    copy.execute("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'deleted'; END $$")
    copy.execute("CREATE TRIGGER t BEFORE DELETE ON contact_channels FOR EACH ROW EXECUTE FUNCTION refuse()")
    sent_to_one(analytics, "contact_channels")
    assert before == 1
    assert fetch(copy, "SELECT id, user_id FROM contact_channels") == [(channel, second)]


def test_a_first_one_loads_and_a_copy_that_is_ahead_is_refused(
    analytics: Pipeline, source: Connection, external_db: str, connect: Connect
) -> None:
    populate(source)
    sequence(analytics)
    assert sent_to_one(analytics).rows == 1
    copy = connect(external_db, autocommit=True)
    assert one(copy, "SELECT last_synced_sequence_id FROM _stack_sync_metadata") > 0
    assert [r.mappings[-1].batches for r in sync(analytics)] == [0], "the users were loaded"
    assert differences(analytics) == []
    copy.execute("UPDATE _stack_sync_metadata SET last_synced_sequence_id = 999999")
    (result,) = sent(analytics)
    assert result.error is not None
    assert (result.status, result.error.code) == ("error", "cursor-ahead")


def test_the_rate_is_kept(analytics: Pipeline, source: Connection) -> None:
    add_many_users(source, 300)
    settle(analytics)
    started = time.monotonic()
    (result,) = sent(analytics, rate=200)
    assert (result.rows, result.batches) == (300, 2)
    assert time.monotonic() - started > 0.9


def test_a_killed_one_goes_on_where_it_was(
    project: Project, analytics: Pipeline, source: Connection, external_db: str, connect: Connect
) -> None:
    add_many_users(source, 300)
    settle(analytics)
    copy = connect(external_db, autocommit=True)
    copy.execute("DELETE FROM users")
    process = project.start("backfill", "users", "--rate", "50/s")
    wait_for(lambda: fetch(source, PROGRESS))
    process.kill()
    process.communicate()
    ((position, up_to, rows),) = fetch(source, PROGRESS)
    assert 0 < position < up_to
    assert 0 < rows < 300
    copy.execute("UPDATE users SET display_name = 'from the first run'")
    again = project.run("backfill", "users", "--json").json
    (database,) = again["databases"]
    assert database["resumed"]
    # The batch in hand at the kill may have been committed without being noted: it is sent twice.
    assert again["rows"] == 300 - rows
    assert one(copy, "SELECT count(*) FROM users") == 300
    assert one(copy, "SELECT count(*) FROM users WHERE display_name = 'from the first run'") <= rows
    assert fetch(source, PROGRESS) == []
    # And once more, from the beginning: nothing of the first two is remembered.
    assert project.run("backfill", "users", "--json").json["rows"] == 300
    assert differences(analytics) == []


def test_a_signal_ends_it_after_the_batch_and_restart_forgets(
    project: Project, analytics: Pipeline, source: Connection
) -> None:
    add_many_users(source, 200)
    settle(analytics)
    process = project.start("backfill", "users", "--rate", "40", "--json")
    wait_for(lambda: fetch(source, PROGRESS))
    process.send_signal(signal.SIGTERM)
    outcome = ended(process)
    assert outcome.code == 130
    (database,) = outcome.json["databases"]
    assert (database["status"], outcome.json["ok"]) == ("interrupted", False)
    assert one(source, "SELECT rows_sent FROM stackctl.backfill") == outcome.json["rows"] > 0
    planned = project.run("backfill", "users", "--dry-run", "--json").json
    assert planned["rows"] == 200 - outcome.json["rows"]
    assert project.run("backfill", "users", "--dry-run", "--restart", "--json").json["rows"] == 200
    assert project.run("backfill", "users", "--restart", "--json").json["rows"] == 200
    assert fetch(source, PROGRESS) == []


def test_live_changes_pass_it(
    analytics: Pipeline, source: Connection, external_db: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changes, comes and goes while it walks arrives, and none of it twice or late."""
    monkeypatch.setattr(backfill, "BATCH", 5)
    add_many_users(source, 200)
    team = add_team(source)
    add_invitation(source, team)
    settle(analytics)
    cursor = "SELECT last_synced_sequence_id FROM _stack_sync_metadata WHERE mapping_name = 'users'"
    copy = connect(external_db, autocommit=True)
    before = one(copy, cursor)
    results: list[BackfillResult] = []
    thread = threading.Thread(target=lambda: results.extend(sent(analytics)))
    thread.start()
    rounds = 0
    while thread.is_alive():
        rounds += 1
        source.execute(
            'UPDATE "ProjectUser" SET "displayName" = %s WHERE "projectUserId" = %s',
            (f"round {rounds}", uuid.UUID(int=rounds % 100 + 1)),
        )
        source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (uuid.UUID(int=201 - rounds % 90),))
        add_user(source)
        sequence(analytics)
        sync(analytics)
    thread.join()
    assert rounds > 1
    assert [result.error for result in results] == [None]
    settle(analytics)
    assert one(copy, cursor) > before
    assert differences(analytics) == []
    assert failures(analytics) == []


def test_progress_of_a_database_that_was_set_back_is_void(analytics: Pipeline, source: Connection) -> None:
    add_many_users(source, 10)
    settle(analytics)
    source.execute("INSERT INTO stackctl.backfill VALUES (%s, 'analytics', 'users', 5000, 999999, 1)", (MINE,))
    result = sent_to_one(analytics)
    assert (result.rows, result.resumed) == (10, False)


def test_a_refused_row_is_named_and_the_others_arrive(
    analytics: Pipeline, source: Connection, external_db: str, connect: Connect
) -> None:
    add_many_users(source, 60)
    settle(analytics)
    copy = connect(external_db, autocommit=True)
    copy.execute("DELETE FROM users")
    copy.execute("ALTER TABLE users ADD CHECK (display_name NOT IN ('user 7', 'user 41'))")
    (result,) = sent(analytics)
    assert (result.status, result.rows, result.refused) == ("error", 58, 2)
    assert result.error is not None
    assert result.error.code == "rows-refused"
    assert str(uuid.UUID(int=7)) in str(result.error.details)
    assert one(copy, "SELECT count(*) FROM users") == 58
    copy.execute("ALTER TABLE users DROP CONSTRAINT users_display_name_check")
    settle(analytics)
    assert one(copy, "SELECT count(*) FROM users") == 60


def test_two_at_once(analytics: Pipeline, source: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "BATCH", 7)
    add_many_users(source, 150)
    settle(analytics)
    results: list[BackfillResult] = []
    threads = [threading.Thread(target=lambda: results.extend(sent(analytics))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.error for result in results] == [None, None]
    assert max(result.rows for result in results) == 150
    assert differences(analytics) == []
    assert fetch(source, PROGRESS) == []


def test_one_database_that_is_away_keeps_no_other_waiting(
    project: Project, source: Connection, external_db: str
) -> None:
    add_many_users(source, 3)
    add_user(source, OTHER)
    project.postgres(MINE, "postgresql://nobody@127.0.0.1:1/nothing", name="away").postgres(MINE, external_db)
    pipeline = project.sqlite(OTHER).pipeline()
    sequence(pipeline)
    sync(pipeline)
    results = sent(pipeline)
    assert [(r.database, r.status, r.rows) for r in results] == [
        ("away", "error", 0), ("analytics", "ok", 3), ("local", "ok", 1),
    ]  # fmt: skip


def test_a_database_that_does_not_take_the_mapping_is_left_out(
    project: Project, source: Connection, external_db: str
) -> None:
    populate(source)
    project.postgres(MINE, external_db, mappings=["teams"])
    pipeline = project.sqlite(MINE).pipeline()
    settle(pipeline)
    assert [(r.database, r.rows) for r in sent(pipeline)] == [("local", 1)]
    assert [(r.database, r.planned) for r in backfill.plan_backfill(pipeline, "users", ALL, restart=False)] == [
        ("local", 1)
    ]


def test_names_that_do_not_exist(analytics: Pipeline) -> None:
    for mapping, scope in (
        ("users", service.Scope([uuid.UUID(int=99)])),
        ("users", service.Scope(None, ["nowhere"])),
        ("nothing", ALL),
    ):
        with pytest.raises(UsageError):
            backfill.backfill(analytics, mapping, scope, backfill.BackfillOptions(), Stop())
