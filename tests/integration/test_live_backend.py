"""A live backend: its schema, its own configuration of external databases, its queue entries, its cursors."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from stackctl.backend import external_databases
from stackctl.backend.drift import find_drift
from stackctl.backend.external_databases import BackendDatabases
from stackctl.core.bundled import find_bundled
from stackctl.migrate.change_capture import detect_capture, find_excluded
from stackctl.migrate.folder import discover
from stackctl.migrate.runner.history import read_status
from stackctl.migrate.runner.run import apply_migrations
from stackctl.sync.queue import entries, retries
from tests.backend import (
    ENTRY,
    MINE,
    OTHER,
    add_many_users,
    add_team,
    add_user,
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
)  # fmt: skip
from tests.live_backend import COPIES, Application, build, configure, database, from_backend, triggers

if TYPE_CHECKING:
    from stackctl.sync.engine.poller import PollResult
    from tests.backend import Project
    from tests.conftest import Connect

Connection = psycopg.Connection[Any]

BUNDLED = discover(find_bundled("migrations"))
CAPTURE = tuple(migration.name for migration in BUNDLED if migration.captures_changes)


@pytest.fixture
def live(empty_db: str, connect: Connect) -> Connection:
    conn = connect(empty_db, autocommit=True)
    build(conn)
    return conn


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend's configuration is read again whenever it is asked for."""
    monkeypatch.setattr(external_databases, "REREAD_AFTER", 0.0)


def migrate(conn: Connection, setting: Any = "auto") -> tuple[str, ...]:
    apply_migrations(conn, BUNDLED, find_excluded=lambda: find_excluded(conn, BUNDLED, "public", setting))
    conn.execute("SET search_path = public")
    return read_status(conn, BUNDLED, "public", find_excluded(conn, BUNDLED, "public", setting)).pending


# -- who captures changes


@pytest.mark.quick
def test_a_live_backend_without_triggers_is_left_without(live: Connection) -> None:
    assert detect_capture(live, BUNDLED, "public", "auto") == "application"
    assert migrate(live) == ()
    assert triggers(live) == []
    # Whoever comes again finds the same, and the files are not pending.
    assert detect_capture(live, BUNDLED, "public", "auto") == "application"
    assert find_excluded(live, BUNDLED, "public", "auto") == CAPTURE


def test_that_holds_after_a_run_that_went_half_way(live: Connection) -> None:
    apply_migrations(
        live, BUNDLED, to="20260101000003", find_excluded=lambda: find_excluded(live, BUNDLED, "public", "auto")
    )
    assert migrate(live) == ()
    assert triggers(live) == []


def test_an_empty_database_gets_triggers_even_by_two_runs(empty_db: str, connect: Connect) -> None:
    conn = connect(empty_db, autocommit=True)
    apply_migrations(
        conn, BUNDLED, to="20260101000003", find_excluded=lambda: find_excluded(conn, BUNDLED, "public", "auto")
    )
    assert migrate(conn) == ()
    assert triggers(conn)
    assert find_excluded(conn, BUNDLED, "public", "auto") == ()


def test_one_trigger_that_captures_tells_that_the_database_does(live: Connection) -> None:
    live.execute(
        "CREATE FUNCTION log_deleted_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        'CREATE TRIGGER theirs AFTER DELETE ON "Team" FOR EACH ROW EXECUTE FUNCTION log_deleted_row()'
    )
    migrate(live)
    assert fetch(live, "SELECT 1 FROM pg_trigger WHERE tgname = 'theirs'")
    assert len(triggers(live)) > 40


def test_application_means_no_trigger_and_triggers_can_be_had_later(empty_db: str, connect: Connect) -> None:
    conn = connect(empty_db, autocommit=True)
    migrate(conn, "application")
    assert triggers(conn) == []
    before = {entry.name for entry in read_status(conn, BUNDLED).applied}
    assert migrate(conn, "triggers") == ()
    assert {entry.name for entry in read_status(conn, BUNDLED).applied} - before == set(CAPTURE)
    assert triggers(conn)
    # Back again: what is installed stays, and is neither pending nor unknown.
    assert find_excluded(conn, BUNDLED, "public", "application") == ()
    assert read_status(conn, BUNDLED).unknown == ()


def test_nothing_of_a_live_schema_is_found_wanting_after_migrate_up(live: Connection) -> None:
    migrate(live)
    assert list(find_drift(live)) == []


def test_marks_and_tombstones_of_both_at_once_do_no_harm(
    live: Connection, external_db: str, project: Project, empty_db: str
) -> None:
    migrate(live, "triggers")
    project.settings["database"]["url"] = empty_db
    pipeline = project.postgres(MINE, external_db).pipeline()
    application = Application(live)
    users = [add_user(live) for _ in range(3)]
    settle(pipeline)
    application.update("ProjectUser", {"tenancyId": MINE, "projectUserId": users[0]}, displayName="new")
    application.delete("ProjectUser", {"tenancyId": MINE, "projectUserId": users[1]})
    assert one(live, 'SELECT count(*) FROM "DeletedRow"') == 2
    add_user(live, id=users[1], displayName="again")
    application.delete("ProjectUser", {"tenancyId": MINE, "projectUserId": users[2]})
    settle(pipeline)
    assert differences(pipeline) == []


# -- what doctor says of the schema


@pytest.mark.parametrize(
    ("statement", "severity", "says", "fix"),
    [
        ('DROP TABLE "Event"', "warning", '"Event" is missing', "migrate up"),
        ('DROP TABLE "UserNotificationPreference"', "error", "is missing", "migrate up"),
        ('ALTER TABLE "Team" DROP "displayName"', "warning", '"Team"."displayName" is missing', "ADD COLUMN"),
        ('ALTER TABLE "Team" DROP "sequenceId"', "error", '"Team"."sequenceId" is missing', "ADD COLUMN"),
        ('ALTER TABLE "Team" ALTER "sequenceId" TYPE integer', "error", "is integer, not bigint", "TYPE bigint"),
        ('ALTER TABLE "Team" ALTER "displayName" TYPE varchar(9)', "warning", "character varying(9), not text", "TYPE"),
        ('ALTER TABLE "Team" ALTER "displayName" DROP NOT NULL', "warning", "may be null", "SET NOT NULL"),
        ('ALTER TABLE "Team" ALTER "shouldUpdateSequenceId" DROP NOT NULL', "error", "may be null", "SET NOT NULL"),
        ('ALTER TABLE "OutgoingRequest" ADD owner int NOT NULL', "error", "must be filled", "SET DEFAULT"),
        ('ALTER TABLE "Team" DROP CONSTRAINT "Team_pkey" CASCADE', "error", "no primary key", "ADD PRIMARY KEY"),
        ('DROP INDEX "Team_tenancyId_sequenceId_idx"', "warning", "no index", "CREATE INDEX CONCURRENTLY"),
        ('DROP INDEX "Team_shouldUpdateSequenceId_tenancyId_idx"', "warning", "no index", "CREATE INDEX CONCURRENTLY"),
        ('DROP INDEX "OutgoingRequest_deduplicationKey_idx"', "error", "queueing fails", "CREATE UNIQUE INDEX"),
        ("DROP FUNCTION enqueue_tenant_sync", "warning", "enqueue_tenant_sync() is missing", "migrate up"),
        ("DROP TYPE \"PurchaseCreationSource\" CASCADE", "warning", "enum type", "migrate up"),
        (
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = '\"Team_tenancyId_sequenceId_idx\"'::regclass",
            "warning", "INVALID", "REINDEX",
        ),
    ],
)  # fmt: skip
def test_each_difference_is_named_with_its_fix(
    live: Connection, statement: Any, severity: str, says: str, fix: str
) -> None:
    migrate(live)
    live.execute(statement)
    found = list(find_drift(live))
    assert any((d.severity, says in d.message, fix in d.hint) == (severity, True, True) for d in found), found


def test_other_names_and_further_columns_are_no_difference(live: Connection) -> None:
    migrate(live)
    live.execute(
        'ALTER INDEX "Team_tenancyId_sequenceId_idx" RENAME TO "something else"; ALTER TABLE "Team" ADD newer int;'
        'DROP INDEX "Team_shouldUpdateSequenceId_tenancyId_idx";'
        'CREATE INDEX ON "Team" ("tenancyId", "teamId") WHERE "shouldUpdateSequenceId";'
        "ALTER TYPE \"ContactChannelType\" ADD VALUE 'PHONE'"
    )
    assert list(find_drift(live)) == []


def test_a_missing_label_is_found(live: Connection) -> None:
    migrate(live)
    live.execute("ALTER TYPE \"CustomerType\" RENAME VALUE 'TEAM' TO 'GROUP'")
    (drift,) = find_drift(live)
    assert "ADD VALUE 'TEAM'" in drift.hint


# -- external databases of the backend


def test_every_tenancy_has_its_own(source: Connection, project: Project) -> None:
    configure(source, database("postgresql://a@mine/x"))
    configure(source, database("postgresql://a@other/x", "warehouse"), OTHER)
    found = from_backend(project).pipeline().databases
    assert {(d.tenancy, d.id, d.url) for databases in found.values() for d in databases} == {
        (MINE, "analytics", "postgresql://a@mine/x"),
        (OTHER, "warehouse", "postgresql://a@other/x"),
    }


@pytest.mark.parametrize("config", [[], 5, "dbSync", {"other": 1}, {"dbSyncX": {"externalDatabases": {"a": {}}}}])
def test_a_configuration_that_says_nothing_of_it(source: Connection, project: Project, config: Any) -> None:
    configure(source, config)
    assert from_backend(project).pipeline().databases == {}


def test_a_branch_is_its_tenancys_and_not_its_organizations(source: Connection, project: Project) -> None:
    organization = uuid.UUID(int=0xC)
    row = {"id": organization, "updatedAt": "now", "projectId": "p", "branchId": "main"}
    insert(source, "Tenancy", row | {"organizationId": organization})
    configure(source, database("postgresql://a@mine/x"))
    assert list(from_backend(project).pipeline().databases) == [MINE]
    source.execute('DELETE FROM "Tenancy" WHERE id = %s', (MINE,))
    assert list(from_backend(project).pipeline().databases) == [organization]


def test_two_tenancies_on_one_place_are_refused_and_a_third_goes_on(
    source: Connection, project: Project, external_db: str
) -> None:
    configure(source, database(external_db) | {"dbSync.externalDatabases.own": database(
        "postgresql://a@127.0.0.1:1/x")["dbSync"]["externalDatabases"]["analytics"]})  # fmt: skip
    configure(source, database(external_db), OTHER)
    results = {(r.tenancy, r.database): r.error for r in sync(from_backend(project).pipeline())}
    assert {key: error.code if error else None for key, error in results.items()} == {
        (MINE, "analytics"): "shared-database",
        (MINE, "own"): "unreachable",
        (OTHER, "analytics"): "shared-database",
    }


def test_reading_again_tells_what_changed(source: Connection, at_once: None) -> None:
    configure(source, database("postgresql://a@one/x"))
    databases = BackendDatabases()
    assert not databases.refresh(source)
    assert not databases.refresh(source)
    configure(source, database("postgresql://a@two/x"))
    configure(source, database("postgresql://a@other/x"), OTHER)
    changes = databases.refresh(source)
    assert {d.url for d in changes.altered} == {"postgresql://a@two/x", "postgresql://a@other/x"}
    assert changes.gone == ()
    configure(source, {})
    changes = databases.refresh(source)
    assert [(d.tenancy, d.id) for d in changes.gone] == [(MINE, "analytics")]
    assert list(databases.databases) == [OTHER]
    # One that was refused only because of another is different once that one leaves.
    configure(source, database("postgresql://a@other/x"))
    assert {d.tenancy for d in databases.refresh(source).altered} == {MINE, OTHER}
    configure(source, {})
    assert [d.tenancy for d in databases.refresh(source).altered] == [OTHER]


def test_what_was_read_holds_for_a_while(source: Connection) -> None:
    databases = BackendDatabases()
    databases.refresh(source)
    configure(source, database("postgresql://a@one/x"))
    assert not databases.refresh(source)
    assert databases.databases == {}


def test_a_broken_entry_stops_nobody_else(source: Connection, project: Project, external_db: str) -> None:
    configure(source, {"dbSync": {"externalDatabases": {
        "analytics": {"type": "postgres", "connectionString": external_db},
        "old": {"type": "mysql", "connectionString": "mysql://app:pa55word@h/d"},
    }}})  # fmt: skip
    pipeline = from_backend(project).pipeline()
    populate(source)
    sequence(pipeline)
    result: PollResult = poll(pipeline)
    assert (result.failed, result.claimed) == (1, 1)
    (failure,) = failures(pipeline)
    assert (failure.database, failure.code) == ("old", "invalid-external-database")
    assert "pa55word" not in failure.error
    configure(source, database(external_db))
    assert differences(from_backend(project).pipeline()) == []


def test_a_change_wakes_the_tenancy_and_forgets_what_failed(
    source: Connection, project: Project, external_db: str, at_once: None
) -> None:
    configure(source, database("postgresql://a@127.0.0.1:1/x"))
    pipeline = from_backend(project).pipeline()
    populate(source)
    sequence(pipeline)
    assert poll(pipeline).failed == 1
    source.execute("UPDATE stackctl.delivery SET next_attempt_at = now() + interval '1 hour'")
    configure(source, database(external_db))
    assert poll(pipeline).failed == 0
    assert (failures(pipeline), differences(pipeline)) == ([], [])
    assert one(source, 'SELECT count(*) FROM "OutgoingRequest"') == 0
    # Elsewhere: the copy is made anew there, though nothing changed in the source.
    fresh = f"{external_db}&application_name=moved"
    configure(source, database(fresh))
    assert poll(pipeline).claimed == 1
    # And gone: its failure goes with it.
    configure(source, database("postgresql://a@127.0.0.1:1/x"))
    assert poll(pipeline).failed == 1
    configure(source, {})
    poll(pipeline)
    assert failures(pipeline) == []


def test_a_connection_to_the_old_place_is_not_used_again(
    source: Connection, project: Project, external_db: str, empty_db: str, connect: Connect, at_once: None
) -> None:
    configure(source, database(external_db))
    pipeline = from_backend(project).pipeline()
    add_user(source)
    sequence(pipeline)
    poll(pipeline)
    configure(source, database(empty_db))
    poll(pipeline)
    assert one(connect(empty_db), "SELECT count(*) FROM users") == 1


def test_no_password_comes_from_the_operators_environment(
    source: Connection, project: Project, server: Any, external_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "operators")
    configure(source, database(external_db))
    pipeline = from_backend(project).pipeline()
    ((found,),) = pipeline.databases.values()
    target = pipeline.open_target(found)
    try:
        assert target._conn.info.password == ""  # pyright: ignore[reportAttributeAccessIssue]
    finally:
        target.close()


def test_ten_thousand_tenancies_are_read_quickly_and_once(source: Connection, at_once: None) -> None:
    source.execute(
        'INSERT INTO "Tenancy" (id, "updatedAt", "projectId", "branchId", "hasNoOrganization")'
        " SELECT gen_random_uuid(), now(), 'p', 'b' || n, 'TRUE' FROM generate_series(1, 10000) AS n;"
        'INSERT INTO "EnvironmentConfigOverride" ("projectId", "branchId", "updatedAt", config)'
        " SELECT 'p', 'b' || n, now(), jsonb_build_object('dbSync', jsonb_build_object('externalDatabases',"
        " jsonb_build_object('analytics', jsonb_build_object('type', 'postgres', 'connectionString',"
        " 'postgresql://app:password' || n || '@host' || n || '/d')))) FROM generate_series(1, 10000) AS n"
    )
    databases = BackendDatabases()
    databases.refresh(source)
    assert len(databases.databases) == 10_000
    kept = dict(databases.databases)
    configure(source, database("postgresql://a@one/x"))
    (changed,) = databases.refresh(source).altered
    assert changed.tenancy == MINE
    # Those that stay as they were are not read from their text again.
    assert all(databases.databases[tenancy] is found for tenancy, found in kept.items())


# -- cursors and queue entries of the backend


def test_a_cursor_of_the_backends_own_sync_is_taken_over(
    source: Connection, project: Project, external_db: str, connect: Connect
) -> None:
    add_many_users(source, 5)
    project.postgres(MINE, external_db, mappings=["users", "teams"])
    pipeline = project.pipeline()
    sequence(pipeline)
    copy = connect(external_db, autocommit=True)
    copy.execute(COPIES)
    cursor = one(source, 'SELECT max("sequenceId") FROM "ProjectUser"')
    # What it was made from nobody knows: it is made right, beside the changes that come from the cursor on.
    copy.execute("INSERT INTO users (id, display_name, signed_up_at) VALUES (%s, 'theirs', now())", (uuid.UUID(int=1),))
    copy.execute("INSERT INTO _stack_sync_metadata VALUES ('users', %s)", (cursor,))
    add_user(source, id=uuid.UUID(int=0xFF), displayName="later")
    add_team(source)
    sequence(pipeline)
    (result,) = sync(pipeline)
    assert result.error is None
    users = next(m for m in result.mappings if m.mapping == "users")
    assert users.cursor > cursor
    assert len(result.remarks) == 1
    assert [name for (name,) in fetch(copy, "SELECT display_name FROM users ORDER BY 1")] == [
        "later", "user 1", "user 2", "user 3", "user 4", "user 5"
    ]  # fmt: skip
    assert one(copy, "SELECT count(*) FROM teams") == 1  # no cursor of its own: loaded
    assert one(copy, "SELECT tenancy_id FROM _stack_sync_owner") == MINE


def entry(url: str, **more: Any) -> Jsonb:
    flow = {"key": "sentinel-sync-key", "parallelism": 20}
    return Jsonb({"url": url, "body": {"tenancyId": str(MINE)}, "flowControl": flow} | more)


def enqueue(conn: Connection, options: Jsonb, key: str | None) -> uuid.UUID:
    id_ = uuid.uuid4()
    conn.execute(
        'INSERT INTO "OutgoingRequest" (id, "deduplicationKey", "qstashOptions") VALUES (%s, %s, %s)',
        (id_, key, options),
    )
    return id_


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (entry(ENTRY["url"]), f"sentinel-sync-key-{MINE}"),
        (entry(ENTRY["url"], retries=3, headers={"x": "y"}), f"sentinel-sync-key-{MINE}"),
        (entry("https://api.example.com" + ENTRY["url"]), f"sentinel-sync-key-{MINE}"),
        (entry(ENTRY["url"]), None),
    ],
)
def test_entries_of_the_backend_are_understood(
    source: Connection, project: Project, external_db: str, options: Jsonb, key: str | None
) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    settle(pipeline)
    enqueue(source, options, key)
    add_user(source)
    source.execute(
        'UPDATE "ProjectUser" SET "sequenceId" = nextval(\'global_seq_id\'), "shouldUpdateSequenceId" = false'
    )
    assert poll(pipeline).delivered == 1
    assert differences(pipeline) == []
    assert fetch(source, 'SELECT 1 FROM "OutgoingRequest"') == []


def test_entries_of_other_kinds_are_left_alone(source: Connection, project: Project, external_db: str) -> None:
    others = [
        enqueue(source, Jsonb({"url": "/api/latest/emails/send", "body": {"tenancyId": str(MINE)}}), None),
        enqueue(source, Jsonb({"body": {}}), "x"),
        enqueue(source, Jsonb([]), "y"),
        enqueue(source, entry(ENTRY["url"] + "/of-something-else"), "z"),
    ]
    source.execute("UPDATE \"OutgoingRequest\" SET \"startedFulfillingAt\" = now() - interval '1 day' WHERE id = %s",
                   (others[0],))  # fmt: skip
    before = fetch(source, 'SELECT * FROM "OutgoingRequest" ORDER BY id')
    pipeline = project.postgres(MINE, external_db).pipeline()
    settle(pipeline)
    result = poll(pipeline)
    assert (result.claimed, result.recovered) == (0, 0)
    assert fetch(source, 'SELECT * FROM "OutgoingRequest" ORDER BY id') == before
    assert entries.summarize_queue(source).pending == 0


def test_an_entry_of_ours_and_one_of_the_backends_are_one(source: Connection) -> None:
    enqueue(source, entry(ENTRY["url"]), f"sentinel-sync-key-{MINE}")
    entries.enqueue(source, [MINE])
    ((options,),) = fetch(source, 'SELECT "qstashOptions" FROM "OutgoingRequest"')
    assert options == entry(ENTRY["url"]).obj


def test_dead_letters_of_a_database_that_came_back_elsewhere_are_tried(source: Connection) -> None:
    source.execute(
        "INSERT INTO stackctl.delivery VALUES (%s, 'analytics', 12, now(), now(), 'gone', 'unreachable', NULL)", (MINE,)
    )
    retries.retry_now(source, [(MINE, "analytics")])
    assert [f.dead for f in retries.list_failures(source)] == [False]
