"""Several sequencers and engines at once, processes killed in the middle, and a replica that lags."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from stackctl.core.errors import StackctlError
from stackctl.sync import service
from stackctl.sync.changes.sequencer import Sequencer, SequenceResult
from stackctl.sync.engine import source as source_module
from stackctl.sync.engine.database_sync import SyncOptions
from stackctl.sync.queue import entries
from stackctl.sync.stop import Stop
from tests.backend import (
    MINE,
    OTHER,
    QUEUED,
    Connection,
    Project,
    add_channel,
    add_invitation,
    add_many_users,
    add_team,
    add_user,
    comparisons,
    differences,
    ended,
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
from tests.comparison import read_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackctl.sync.pipeline import Pipeline
    from tests.conftest import Connect
    from tests.standby import Standby


# -- killed in the middle


def snapshot(url: str) -> tuple[list[Any], list[Any]]:
    """The users and the cursors that a consumer sees."""
    with psycopg.connect(url) as conn:
        cursors = fetch(conn, "SELECT mapping_name, last_synced_sequence_id FROM _stack_sync_metadata ORDER BY 1")
        return fetch(conn, "SELECT id, display_name FROM users ORDER BY 1"), cursors


@pytest.mark.parametrize(
    ("command", "point"),
    [(("sync", "--all"), "rows"), (("sync", "--all"), "cursor"), (("poll",), "cursor"), (("run",), "rows")],
    ids=str,
)
def test_killed_inside_the_targets_transaction(
    command: tuple[str, ...], point: str, project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    """Before the rows are written, and after that before the cursor is: the batch is absent, then whole."""
    pipeline = project.postgres(MINE, external_db).pipeline()
    add_many_users(source, 50)
    settle(pipeline)
    before = snapshot(external_db)
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'new\'')
    source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (uuid.UUID(int=7),))
    sequence(pipeline)
    blocker = connect(external_db)
    if point == "rows":
        blocker.execute("LOCK TABLE users IN SHARE MODE")
    else:
        # The cursor is taken with FOR UPDATE, which would wait for a lock on its row at the start already.
        blocker.execute("CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                        " PERFORM pg_advisory_xact_lock(99); RETURN NEW; END $$")  # fmt: skip
        blocker.execute("CREATE TRIGGER stop BEFORE UPDATE ON _stack_sync_metadata FOR EACH ROW"
                        " WHEN (NEW.mapping_name = 'users') EXECUTE FUNCTION stop()")  # fmt: skip
        blocker.commit()
        blocker.execute("SELECT pg_advisory_lock(99)")
        blocker.commit()
    process = project.start(*command)
    watcher = connect(external_db, autocommit=True)
    wait_until_blocked(watcher, "stackctl sync")
    process.kill()
    ended(process)
    if point == "rows":
        blocker.commit()
    else:
        blocker.execute("SELECT pg_advisory_unlock(99)")
        blocker.commit()
    # The server notices that the client is gone when it next speaks to it: then its transaction is rolled back.
    wait_for(lambda: not fetch(watcher, "SELECT 1 FROM pg_stat_activity WHERE application_name = 'stackctl sync'"
                               " AND datname = current_database()"))  # fmt: skip
    assert snapshot(external_db) == before
    assert [r.error for r in sync(pipeline)] == [None]
    assert differences(pipeline) == []
    assert {name for _, name in snapshot(external_db)[0]} == {"new"}


def test_killed_during_the_first_load(project: Project, source: Connection, external_db: str, connect: Connect) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    sync(pipeline)
    outside = connect(external_db, autocommit=True)
    outside.execute("UPDATE _stack_sync_metadata SET last_synced_sequence_id = -1")
    populate(source)
    sequence(pipeline)
    blocker = connect(external_db)
    blocker.execute("LOCK TABLE teams IN SHARE MODE")
    process = project.start("sync", "--all")
    wait_until_blocked(outside, "stackctl sync")
    process.kill()
    ended(process)
    blocker.commit()
    settle(pipeline)
    assert differences(pipeline) == []


def test_killed_while_stamping(project: Project, source: Connection, migrated_db: str, connect: Connect) -> None:
    """The stamps, the queue entry and the lock vanish together."""
    populate(source)
    entries.enqueue(source, [MINE])
    blocker = connect(migrated_db)
    entries.take(blocker, 1)  # holds the entry that the stamper wants to write again
    process = project.start("sequence")
    wait_until_blocked(source)
    process.kill()
    ended(process)
    blocker.rollback()
    wait_for(lambda: not fetch(source, "SELECT 1 FROM pg_stat_activity WHERE application_name = 'stackctl'"
                               " AND datname = current_database()"))  # fmt: skip
    assert one(source, 'SELECT count(*) FROM "ProjectUser" WHERE "sequenceId" IS NOT NULL') == 0
    assert sequence(project.pipeline()).rows == 11


def test_a_killed_pollers_entry_comes_back(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    settle(pipeline)
    populate(source)
    sequence(pipeline)
    blocker = connect(external_db)
    blocker.execute("LOCK TABLE users IN SHARE MODE")
    process = project.start("poll")
    wait_until_blocked(connect(external_db, autocommit=True), "stackctl sync")
    process.kill()
    ended(process)
    blocker.commit()
    assert entries.summarize_queue(source).in_flight == 1
    result = poll(pipeline, lease=timedelta(seconds=-1))
    assert (result.recovered, result.delivered, result.failed) == (1, 1, 0)
    assert differences(pipeline) == []


# -- two at once


def test_two_engines_on_one_mapping_serialise(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    settle(pipeline)
    add_many_users(source, 30)
    sequence(pipeline)
    blocker = connect(external_db)
    blocker.execute("LOCK TABLE users IN SHARE MODE")
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.extend(sync(project.pipeline(), batch_size=10))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    watcher = connect(external_db, autocommit=True)
    waiting = (
        "SELECT 1 FROM pg_stat_activity WHERE application_name = 'stackctl sync' AND wait_event_type = 'Lock'"
        " AND datname = current_database()"
    )
    wait_for(lambda: len(fetch(watcher, waiting)) == 2)
    blocker.commit()
    for thread in threads:
        thread.join()
    assert [r.error for r in results] == [None, None]
    assert sum(m.upserted for r in results for m in r.mappings if m.mapping == "users") == 30  # none was sent twice
    assert differences(pipeline) == []


class Workload:
    """The application: random changes in transactions of their own, some held open, some rolled back."""

    def __init__(self, url: str, seed: int) -> None:
        self._random = random.Random(seed)
        self._conn: Connection = psycopg.connect(url)
        self._users: list[tuple[uuid.UUID, uuid.UUID]] = []
        self._teams: list[tuple[uuid.UUID, uuid.UUID]] = []

    def step(self) -> None:
        choose = self._random
        tenancy = choose.choice([MINE, OTHER])
        for _ in range(choose.randint(1, 3)):
            # A deleted user's rows fail on the foreign key: as in life, that transaction is lost.
            lost = contextlib.suppress(psycopg.errors.ForeignKeyViolation, psycopg.errors.UniqueViolation)
            with lost, self._conn.transaction():
                self._change(tenancy)
        if choose.random() < 0.1:
            self._conn.rollback()
        else:
            self._conn.commit()

    def _change(self, tenancy: uuid.UUID) -> None:
        choose, conn = self._random, self._conn
        kind = choose.random()
        if kind < 0.3 or not self._users:
            self._users.append((tenancy, add_user(conn, tenancy)))
            add_channel(conn, self._users[-1][1], f"{uuid.uuid4()}@example.com", tenancy)
            return
        owner, user = choose.choice(self._users)
        if kind < 0.45:
            conn.execute('UPDATE "ProjectUser" SET "displayName" = %s WHERE "projectUserId" = %s', (str(kind), user))
        elif kind < 0.6:
            conn.execute('UPDATE "ContactChannel" SET value = %s WHERE "projectUserId" = %s', (f"{kind}", user))
        elif kind < 0.65:
            conn.execute('DELETE FROM "ContactChannel" WHERE "projectUserId" = %s', (user,))
        elif kind < 0.75:
            conn.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (user,))
            if choose.random() < 0.5:
                add_user(conn, owner, user, displayName="again")
        elif kind < 0.85 or not self._teams:
            self._teams.append((tenancy, add_team(conn, tenancy)))
            add_invitation(conn, self._teams[-1][1], tenancy)
        elif kind < 0.93:
            conn.execute(
                'UPDATE "Team" SET "displayName" = %s WHERE "teamId" = %s', (str(kind), choose.choice(self._teams)[1])
            )
        else:
            conn.execute('DELETE FROM "Team" WHERE "teamId" = %s', (choose.choice(self._teams)[1],))

    def close(self) -> None:
        self._conn.close()


@pytest.mark.parametrize("seed", [1, 2])
def test_two_sequencers_and_three_engines_over_a_random_workload(
    seed: int, project: Project, external_db: str, migrated_db: str
) -> None:
    project.postgres(MINE, external_db).sqlite(OTHER)
    pipelines = [project.pipeline() for _ in range(5)]
    settle(pipelines[0])
    over = threading.Event()
    wrong: list[Any] = []

    def repeat(work: Callable[[], Any]) -> Callable[[], None]:
        def body() -> None:
            try:
                while not over.is_set():
                    work()
            except BaseException as error:  # noqa: BLE001 - shown by the test
                wrong.append(error)

        return body

    def stamp(pipeline: Pipeline, size: int) -> Callable[[], None]:
        def body() -> None:
            with pipeline.open_session() as conn:
                sequencer = Sequencer(conn, list(pipeline.mappings.values()), batch_size=size)
                while not over.is_set():
                    sequencer.stamp_batch(SequenceResult())

        return body

    def engine(pipeline: Pipeline, size: int) -> None:
        wrong.extend(result.error for result in sync(pipeline, batch_size=size) if result.error is not None)

    def poller() -> None:
        if poll(pipelines[4]).failed:
            wrong.extend(failures(pipelines[4]))

    jobs = [
        repeat(stamp(pipelines[0], 1000)), repeat(stamp(pipelines[1], 7)),
        repeat(lambda: engine(pipelines[2], 10_000)), repeat(lambda: engine(pipelines[3], 3)), repeat(poller),
    ]  # fmt: skip
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    writers = [Workload(migrated_db, 10 * seed + number) for number in range(2)]

    def write(writer: Workload) -> None:
        for _ in range(120):
            writer.step()

    writing = [threading.Thread(target=write, args=(writer,)) for writer in writers]
    for thread in writing:
        thread.start()
    for thread in writing:
        thread.join()
    over.set()
    for thread in threads:
        thread.join()
    for writer in writers:
        writer.close()
    assert wrong == []
    # What is left is sent by the queue alone: an entry that was lost would show here.
    sequence(pipelines[0])
    poll(pipelines[0])
    assert differences(pipelines[0]) == []
    assert sum(comparison.source_rows for comparison in comparisons(pipelines[0])) > 50


def test_run_while_the_application_writes(
    project: Project, source: Connection, external_db: str, migrated_db: str
) -> None:
    project.postgres(MINE, external_db).sqlite(OTHER)
    process = project.start("run")
    writers = [Workload(migrated_db, number) for number in range(3)]

    def write(writer: Workload) -> None:
        for _ in range(100):
            writer.step()
        writer.close()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    marks = " UNION ALL ".join(
        f'SELECT 1 FROM "{t}" WHERE "shouldUpdateSequenceId"'
        for t in ("ProjectUser", "ContactChannel", "Team", "DeletedRow")
    )
    wait_for(lambda: not fetch(source, marks) and not fetch(source, QUEUED))
    process.send_signal(signal.SIGTERM)
    outcome = ended(process)
    assert (outcome.code, "warning" in outcome.stderr) == (0, False), outcome
    assert differences(project.pipeline()) == []


# -- a replica


def test_a_lagging_replica_is_waited_for(
    standby: Standby, project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    """The entry is finished only when the replica shows what was committed before the claim."""
    replica_url = standby.url(source.info.dbname)
    project.settings["database"]["replica_url"] = replica_url
    pipeline = project.postgres(MINE, external_db).pipeline()
    add_user(source)

    def there() -> bool:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(replica_url) as conn:
            return bool(fetch(conn, 'SELECT 1 FROM "ProjectUser"'))
        return False

    wait_for(there)
    settle(pipeline)
    replica = connect(replica_url, autocommit=True)
    replica.execute("SELECT pg_wal_replay_pause()")
    try:
        wait_for(lambda: one(replica, "SELECT pg_get_wal_replay_pause_state()") == "paused")
        add_user(source)
        sequence(pipeline)
        results: list[Any] = []
        thread = threading.Thread(target=lambda: results.append(poll(pipeline)))
        thread.start()
        polls = (
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%%pg_last_wal_replay_lsn%%' AND pid <> pg_backend_pid()"
        )
        wait_for(lambda: fetch(replica, polls))
        assert entries.summarize_queue(source).in_flight == 1
        assert one(connect(external_db, autocommit=True), "SELECT count(*) FROM users") == 1
    finally:
        replica.execute("SELECT pg_wal_replay_resume()")
    thread.join()
    assert (results[0].delivered, results[0].failed) == (1, 0)
    assert one(connect(external_db), "SELECT count(*) FROM users") == 2


def test_a_replica_that_stays_behind_is_an_error_of_its_own(
    standby: Standby, project: Project, source: Connection, external_db: str, connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    replica_url = standby.url(source.info.dbname)
    project.settings["database"]["replica_url"] = replica_url
    pipeline = project.postgres(MINE, external_db).pipeline()

    def there() -> bool:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(replica_url):
            return True
        return False

    wait_for(there)
    replica = connect(replica_url, autocommit=True)
    replica.execute("SELECT pg_wal_replay_pause()")
    try:
        wait_for(lambda: one(replica, "SELECT pg_get_wal_replay_pause_state()") == "paused")
        add_user(source)
        sequence(pipeline)
        monkeypatch.setattr(source_module, "REPLICA_WAIT", 0.05)
        with pytest.raises(StackctlError) as raised:
            sync(pipeline)
        assert (raised.value.code, raised.value.exit_code) == ("replica-lags", 4)
        with pytest.raises(StackctlError):
            poll(pipeline)
    finally:
        replica.execute("SELECT pg_wal_replay_resume()")
    assert failures(pipeline) == []  # not the fault of the external database
    assert len(fetch(source, QUEUED)) == 1


@pytest.mark.parametrize("full", [False, True])
def test_a_replica_is_waited_for_once_the_cursor_is_held(
    full: bool, standby: Standby, project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    """While an engine waited for the cursor, another sent what the replica does not show yet."""
    replica_url = standby.url(source.info.dbname)
    project.settings["database"]["replica_url"] = replica_url
    pipeline = project.postgres(MINE, external_db, mappings=["users"]).pipeline()
    user = add_user(source, displayName="old")

    def there() -> bool:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(replica_url) as conn:
            return bool(fetch(conn, 'SELECT 1 FROM "ProjectUser"'))
        return False

    wait_for(there)
    settle(pipeline)
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'newer\'')
    sequence(pipeline)
    replica, watcher = connect(replica_url, autocommit=True), connect(external_db, autocommit=True)
    blocker = connect(external_db)
    blocker.execute("SELECT FROM _stack_sync_metadata FOR UPDATE")
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.extend(sync(pipeline, full=full)))
    thread.start()
    try:
        wait_until_blocked(watcher, "stackctl sync")
        replica.execute("SELECT pg_wal_replay_pause()")
        wait_for(lambda: one(replica, "SELECT pg_get_wal_replay_pause_state()") == "paused")
        source.execute('UPDATE "ProjectUser" SET "displayName" = \'newest\'')
        sequence(pipeline)
        stamp = one(source, 'SELECT "sequenceId" FROM "ProjectUser" WHERE "projectUserId" = %s', user)
        blocker.execute("UPDATE users SET display_name = 'newest'")
        blocker.execute("UPDATE _stack_sync_metadata SET last_synced_sequence_id = %s", (stamp,))
        blocker.commit()
        polls = (
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%%pg_last_wal_replay_lsn%%' AND pid <> pg_backend_pid()"
        )
        wait_for(lambda: fetch(replica, polls) or not thread.is_alive())
        assert fetch(watcher, "SELECT display_name FROM users") == [("newest",)]
        assert thread.is_alive()
    finally:
        replica.execute("SELECT pg_wal_replay_resume()")
        thread.join()
    assert [result.error for result in results] == [None]
    assert differences(project.pipeline()) == []


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
@pytest.mark.parametrize("written", [True, False])
def test_a_page_read_ahead_is_dropped_when_the_cursor_was_written(
    written: bool, kind: str, project: Project, source: Connection, external_db: str
) -> None:
    """Between two pages a row of the second one changes, and `verify --repair` may put it right, at the same cursor."""
    if kind == "postgres":
        project.postgres(MINE, external_db, mappings=["users"])
    else:
        project.sqlite(MINE, mappings=["users"])
    pipeline = project.pipeline()
    settle(pipeline)
    add_many_users(source, 20)
    sequence(pipeline)
    heard: list[int] = []
    between = False

    class Between(Stop):
        """Asked before each page."""

        @property
        def requested(self) -> bool:
            nonlocal between
            if sum(heard) >= 10 and not between:
                between = True
                wait_for(lambda: sum(heard) == 20)  # the second page was read
                source.execute('UPDATE "ProjectUser" SET "displayName" = \'new\'')
                if written:
                    rewrite_cursor()
            return False

    ((database,),) = pipeline.databases.values()
    (compiled,) = pipeline.compile_mappings(database)

    def rewrite_cursor() -> None:
        target = pipeline.open_target(database)
        with target.lock_cursor(compiled) as cursor:
            target.advance_cursor(compiled, cursor)
        target.close()

    options = SyncOptions(batch_size=10, on_rows=lambda mapping, rows: heard.append(rows))
    results = service.sync(pipeline, service.Scope(None), options, Between(), service.Reports())
    assert [result.error for result in results] == [None]
    assert between
    target = pipeline.open_target(database)
    found = [row for row in read_rows(target, compiled.mapping) if "new" in row]
    target.close()
    assert len(found) == (10 if written else 0)
