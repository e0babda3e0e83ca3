"""The bundled migrations: an empty database, a live backend's, and what the triggers and functions do."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from stackctl.core.bundled import find_bundled
from stackctl.migrate.folder import discover
from stackctl.migrate.runner.history import read_status
from stackctl.migrate.runner.run import apply_migrations

if TYPE_CHECKING:
    from collections.abc import Callable

Connection = psycopg.Connection[Any]

BUNDLED = discover(find_bundled("migrations"))
SOURCES = (
    "ProjectUser",
    "ContactChannel",
    "Team",
    "TeamMember",
    "TeamMemberDirectPermission",
    "ProjectUserDirectPermission",
    "UserNotificationPreference",
    "VerificationCode",
    "EmailOutbox",
    "ProjectUserRefreshToken",
    "ProjectUserOAuthAccount",
)
TENANCY = uuid.UUID(int=1)
OTHER_TENANCY = uuid.UUID(int=2)
USER = uuid.UUID(int=10)
TEAM = uuid.UUID(int=20)
IDS = {"t": TENANCY, "o": OTHER_TENANCY, "u": USER, "m": TEAM, "i": uuid.UUID(int=30)}

# A project with two tenancies (an organization shares its branch), a user with one row in each table, an invitation.
SEED = """
INSERT INTO "Project" (id, "updatedAt", "displayName", "isProductionMode") VALUES ('p', now(), 'P', false);
INSERT INTO "Tenancy" (id, "updatedAt", "projectId", "branchId", "hasNoOrganization")
VALUES ({t}, now(), 'p', 'main', 'TRUE');
INSERT INTO "Tenancy" (id, "updatedAt", "projectId", "branchId", "organizationId")
VALUES ({o}, now(), 'p', 'main', {o});
INSERT INTO "ProjectUser" ("projectUserId", "updatedAt", "tenancyId", "mirroredBranchId", "mirroredProjectId")
VALUES ({u}, now(), {t}, 'main', 'p');
INSERT INTO "ContactChannel" (id, "projectUserId", "updatedAt", type, "isPrimary", "isVerified", value, "tenancyId")
VALUES ({i}, {u}, now(), 'EMAIL', 'TRUE', true, 'a@example.com', {t});
INSERT INTO "Team" ("teamId", "updatedAt", "displayName", "tenancyId", "mirroredBranchId", "mirroredProjectId")
VALUES ({m}, now(), 'Team', {t}, 'main', 'p');
INSERT INTO "TeamMember" ("projectUserId", "teamId", "updatedAt", "tenancyId") VALUES ({u}, {m}, now(), {t});
INSERT INTO "TeamMemberDirectPermission" ("projectUserId", "teamId", "updatedAt", id, "tenancyId", "permissionId")
VALUES ({u}, {m}, now(), {i}, {t}, 'admin');
INSERT INTO "ProjectUserDirectPermission" (id, "tenancyId", "projectUserId", "updatedAt", "permissionId")
VALUES ({i}, {t}, {u}, now(), 'read');
INSERT INTO "UserNotificationPreference" (id, "tenancyId", "projectUserId", "notificationCategoryId", enabled)
VALUES ({i}, {t}, {u}, {i}, true);
INSERT INTO "ProjectUserRefreshToken" ("projectUserId", "updatedAt", "refreshToken", "tenancyId", id)
VALUES ({u}, now(), 'r', {t}, {i});
INSERT INTO "ProjectUserOAuthAccount"
  ("projectUserId", "updatedAt", "providerAccountId", "tenancyId", "configOAuthProviderId", id)
VALUES ({u}, now(), 'x', {t}, 'github', {i});
INSERT INTO "EmailOutbox" ("tenancyId", id, "updatedAt", "tsxSource", "isHighPriority", "to", "extraRenderVariables",
  "createdWith", "shouldSkipDeliverabilityCheck", "scheduledAt")
VALUES ({t}, {i}, now(), '', true, '{{}}', '{{}}', 'DRAFT', false, now());
INSERT INTO "VerificationCode" ("projectId", "branchId", id, "updatedAt", type, code, "expiresAt", data)
VALUES ('p', 'main', {i}, now(), 'TEAM_INVITATION', 'c1', now(), jsonb_build_object('team_id', {m}));
"""

KEYS = {
    "ProjectUser": {"tenancyId": TENANCY, "projectUserId": USER},
    "ContactChannel": {"tenancyId": TENANCY, "projectUserId": USER, "id": IDS["i"]},
    "Team": {"tenancyId": TENANCY, "teamId": TEAM},
    "TeamMember": {"tenancyId": TENANCY, "projectUserId": USER, "teamId": TEAM},
    "TeamMemberDirectPermission": {
        "tenancyId": TENANCY,
        "projectUserId": USER,
        "teamId": TEAM,
        "permissionId": "admin",
    },
    "ProjectUserDirectPermission": {"tenancyId": TENANCY, "projectUserId": USER, "permissionId": "read"},
    "UserNotificationPreference": {"tenancyId": TENANCY, "id": IDS["i"]},
    "ProjectUserRefreshToken": {"tenancyId": TENANCY, "id": IDS["i"]},
    "ProjectUserOAuthAccount": {"tenancyId": TENANCY, "id": IDS["i"]},
    "EmailOutbox": {"tenancyId": TENANCY, "id": IDS["i"]},
}


def key_of(table: str) -> dict[str, str]:
    return {name: str(part) for name, part in KEYS[table].items()}


def run(conn: Connection, text: str) -> None:
    conn.execute(sql.SQL(text).format(**{name: sql.Literal(part) for name, part in IDS.items()}))  # pyright: ignore[reportArgumentType]


def rows(conn: Connection, query: Any, *parameters: Any) -> list[Any]:
    return conn.execute(query, parameters or None).fetchall()


def tombstones(conn: Connection) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for table, key in rows(conn, 'SELECT "tableName", "primaryKey" FROM "DeletedRow" ORDER BY 1, "tenancyId"'):
        found.setdefault(table, []).append(key)
    return found


def stamp(conn: Connection) -> int:
    return rows(conn, "SELECT backfill_null_sequence_ids(1000)")[0][0]


def marks(conn: Connection, table: str) -> list[bool]:
    query = sql.SQL('SELECT "shouldUpdateSequenceId" FROM {} ORDER BY 1').format(sql.Identifier(table))
    return [mark for (mark,) in rows(conn, query)]


@pytest.fixture
def conn(empty_db: str, connect: Callable[..., Connection]) -> Connection:
    return connect(empty_db, autocommit=True)


@pytest.fixture
def db(conn: Connection) -> Connection:
    """A migrated database with the seed."""
    apply_migrations(conn, BUNDLED)
    run(conn, SEED)
    return conn


def test_an_empty_database_gets_everything_once(conn: Connection) -> None:
    assert len(apply_migrations(conn, BUNDLED).applied) == len(BUNDLED)
    assert apply_migrations(conn, BUNDLED).applied == ()
    assert read_status(conn, BUNDLED).pending == ()
    assert rows(conn, "SELECT data_type::text, start_value, increment_by, cache_size FROM pg_sequences") == [
        ("bigint", 1, 11, 1)
    ]
    tables = {name for (name,) in rows(conn, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    assert tables == {
        *SOURCES,
        *("Project", "Tenancy", "BranchConfigOverride", "EnvironmentConfigOverride", "DeletedRow", "OutgoingRequest"),
        *("ExternalDbSyncMetadata", "Subscription", "OneTimePurchase", "SubscriptionInvoice", "Event"),
    }
    # Stamping must not take the lock of a key change: no unique index holds the sequence.
    assert not rows(conn, "SELECT 1 FROM pg_indexes WHERE indexdef LIKE '%UNIQUE%\"sequenceId\"%'")


def test_it_works_in_a_schema_of_another_name(conn: Connection, empty_db: str) -> None:
    apply_migrations(conn, BUNDLED, schema='Odd "name"')
    assert rows(conn, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [(0,)]
    conn.execute('SET search_path = "Odd ""name"""')
    run(conn, SEED)
    # Triggers and functions find their tables whatever the caller's search path is.
    conn.execute("SET search_path = pg_catalog")
    conn.execute('DELETE FROM "Odd ""name"""."ProjectUser"')
    assert rows(conn, 'SELECT "Odd ""name""".backfill_null_sequence_ids(100)')[0][0] > 0
    conn.execute('SET search_path = "Odd ""name"""')
    assert tombstones(conn)["ProjectUser"] == [key_of("ProjectUser")]


# ---- a live backend ----------------------------------------------------------------------------------------------

LIVE = """
CREATE TYPE "BooleanTrue" AS ENUM ('TRUE');
CREATE TYPE "ContactChannelType" AS ENUM ('EMAIL', 'PHONE');
CREATE SEQUENCE global_seq_id AS bigint START 1 INCREMENT BY 11;
CREATE TABLE "Project" (id text PRIMARY KEY, "displayName" text NOT NULL, "newerColumn" int DEFAULT 7);
CREATE TABLE "Tenancy" (id uuid PRIMARY KEY, "projectId" text NOT NULL REFERENCES "Project"(id) ON DELETE CASCADE,
  "branchId" text NOT NULL);
CREATE TABLE "ProjectUser" ("tenancyId" uuid, "projectUserId" uuid, "displayName" text, "sequenceId" bigint,
  "shouldUpdateSequenceId" boolean NOT NULL DEFAULT true,
  CONSTRAINT "ProjectUser_pkey" PRIMARY KEY ("tenancyId", "projectUserId"));
CREATE UNIQUE INDEX "ProjectUser_sequenceId_key" ON "ProjectUser" ("sequenceId");
CREATE INDEX "ProjectUser_shouldUpdateSequenceId_idx" ON "ProjectUser" ("shouldUpdateSequenceId", "tenancyId");
CREATE INDEX "any name" ON "ProjectUser" ("tenancyId", "sequenceId", "displayName");
CREATE TABLE "Team" ("tenancyId" uuid, "teamId" uuid, "displayName" text, PRIMARY KEY ("tenancyId", "teamId"));
CREATE TABLE "DeletedRow" (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), "tenancyId" uuid NOT NULL,
  "tableName" text NOT NULL, "sequenceId" bigint UNIQUE, "primaryKey" jsonb NOT NULL, data jsonb,
  "deletedAt" timestamp(3) NOT NULL DEFAULT now(), "startedFulfillingAt" timestamp(3),
  "shouldUpdateSequenceId" boolean NOT NULL DEFAULT true);
CREATE INDEX "DeletedRow_t" ON "DeletedRow" ("tenancyId", "tableName", "sequenceId");
CREATE INDEX "DeletedRow_m" ON "DeletedRow" ("shouldUpdateSequenceId", "tenancyId");
CREATE TABLE "OutgoingRequest" (id uuid PRIMARY KEY, "createdAt" timestamp(3) NOT NULL DEFAULT now(),
  "deduplicationKey" text, "qstashOptions" jsonb NOT NULL, "startedFulfillingAt" timestamp(3));
CREATE UNIQUE INDEX "theirs" ON "OutgoingRequest" ("deduplicationKey") WHERE "startedFulfillingAt" IS NULL;
CREATE INDEX "OutgoingRequest_c" ON "OutgoingRequest" ("startedFulfillingAt", "createdAt");
CREATE INDEX "OutgoingRequest_d" ON "OutgoingRequest" ("startedFulfillingAt", "deduplicationKey");
CREATE FUNCTION log_deleted_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO "DeletedRow" ("tenancyId", "tableName", "primaryKey") VALUES (OLD."tenancyId", 'theirs', '{}');
  RETURN OLD; END $$;
CREATE FUNCTION reset_sequence_id_on_update() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW."sequenceId" IS NOT DISTINCT FROM OLD."sequenceId" THEN NEW."shouldUpdateSequenceId" := true; END IF;
  RETURN NEW; END $$;
CREATE FUNCTION enqueue_tenant_sync(p_tenancy_id uuid) RETURNS void LANGUAGE sql AS $$ SELECT $$;
CREATE TRIGGER theirs_gone BEFORE DELETE ON "ProjectUser" FOR EACH ROW EXECUTE FUNCTION log_deleted_row();
CREATE TRIGGER theirs_changed BEFORE UPDATE ON "ProjectUser" FOR EACH ROW
  EXECUTE FUNCTION reset_sequence_id_on_update();
INSERT INTO "Project" VALUES ('p', 'P');
INSERT INTO "Tenancy" VALUES ('00000000-0000-0000-0000-000000000001', 'p', 'main');
INSERT INTO "ProjectUser" VALUES ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-00000000000a',
  'Ada', 12, false);
INSERT INTO "Team" VALUES ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000014', 'Team');
SELECT setval('global_seq_id', 12);
"""

CATALOG = """
SELECT 'index ' || indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'function ' || oid::regprocedure, md5(pg_get_functiondef(oid)) FROM pg_proc
WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT 'trigger ' || tgrelid::regclass || tgname, pg_get_triggerdef(oid) FROM pg_trigger
WHERE NOT tgisinternal
UNION ALL SELECT 'constraint ' || conrelid::regclass || conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND conrelid <> 0
UNION ALL SELECT 'column ' || attrelid::regclass || '.' || attname, format_type(atttypid, atttypmod) || attnotnull
FROM pg_attribute WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace
  AND relkind = 'r') AND attnum > 0
UNION ALL SELECT 'type ' || enumtypid::regtype, string_agg(enumlabel, ',') FROM pg_enum GROUP BY enumtypid
"""


def test_a_live_backend_gets_only_what_it_lacks(conn: Connection) -> None:
    conn.execute(LIVE)
    before = dict(rows(conn, CATALOG))
    user_before = rows(conn, 'SELECT u.*, xmin FROM "ProjectUser" AS u')
    apply_migrations(conn, BUNDLED)
    after = dict(rows(conn, CATALOG))
    assert {name: definition for name, definition in after.items() if name in before} == before
    assert rows(conn, 'SELECT u.*, xmin FROM "ProjectUser" AS u') == user_before
    assert rows(conn, "SELECT last_value FROM global_seq_id") == [(12,)]

    def added(kind: str, table: str) -> set[str]:
        return {
            definition
            for name, definition in after.items()
            if name.startswith(f"{kind} ") and name not in before and f'"{table}"' in definition.split(" USING")[0]
        }

    assert added("index", "ProjectUser") == set()
    (index,) = added("index", "DeletedRow")
    assert "DeletedRow_to_empty_idx" in index
    assert added("index", "OutgoingRequest") == set()
    assert len(added("index", "Team")) == 2
    assert 'column "Team".sequenceId' in after
    assert marks(conn, "Team") == [True]
    triggers = [name for name in after if name.startswith('trigger "ProjectUser"')]
    assert sorted(name.removeprefix('trigger "ProjectUser"') for name in triggers) == [
        "log_moved_row",
        "log_truncated_rows",
        "theirs_changed",
        "theirs_gone",
        "wake_listeners",
    ]
    conn.execute('DELETE FROM "ProjectUser"')
    assert tombstones(conn) == {"theirs": [{}]}


# ---- marks and stamps --------------------------------------------------------------------------------------------


def test_a_stamp_takes_the_mark_off_and_every_change_puts_it_on(db: Connection) -> None:
    assert stamp(db) == 11
    for table in SOURCES:
        assert marks(db, table) == [False]
    for table in SOURCES:
        changed = "enabled" if table == "UserNotificationPreference" else "createdAt"
        db.execute(sql.SQL("UPDATE {} SET {} = {}").format(*map(sql.Identifier, (table, changed, changed))))
        assert marks(db, table) == [True], table
    assert stamp(db) == 11
    assert stamp(db) == 0


def test_an_older_copy_written_back_does_not_unmark(db: Connection) -> None:
    stamp(db)
    (old,) = rows(db, 'SELECT "sequenceId" FROM "ProjectUser"')[0]
    stale = 'UPDATE "ProjectUser" SET "displayName" = %s, "sequenceId" = %s, "shouldUpdateSequenceId" = false'
    db.execute(stale, ("a", old))
    assert marks(db, "ProjectUser") == [True]
    db.execute(stale, ("b", old))
    assert marks(db, "ProjectUser") == [True]
    db.execute(stale, ("c", None))
    assert marks(db, "ProjectUser") == [True]
    db.execute("""UPDATE "ProjectUser" SET "sequenceId" = nextval('global_seq_id'), "shouldUpdateSequenceId" = false""")
    assert marks(db, "ProjectUser") == [False]


def test_stamping_queues_each_tenancy_once_and_logs_the_highest(db: Connection) -> None:
    stamp(db)
    queued = rows(
        db, 'SELECT "deduplicationKey", "qstashOptions", "startedFulfillingAt" FROM "OutgoingRequest" ORDER BY 1'
    )
    assert queued == [
        (
            f"sentinel-sync-key-{tenancy}",
            {
                "url": "/api/latest/internal/external-db-sync/sync-engine",
                "body": {"tenancyId": str(tenancy)},
                "flowControl": {"key": "sentinel-sync-key", "parallelism": 20},
            },
            None,
        )
        for tenancy in (TENANCY, OTHER_TENANCY)  # the invitation belongs to both
    ]
    highest = rows(db, "SELECT last_value FROM global_seq_id")
    assert rows(db, "SELECT up_to_sequence_id FROM stackctl.stamp_log") == highest
    db.execute('UPDATE "ProjectUser" SET "displayName" = \'x\'')
    assert stamp(db) == 1
    assert len(rows(db, 'SELECT FROM "OutgoingRequest"')) == 2


def test_stamping_a_channel_or_a_team_stamps_what_depends_on_it(db: Connection) -> None:
    stamp(db)
    last = 'SELECT "sequenceId" FROM {}'
    user, code = (rows(db, last.format(f'"{table}"')) for table in ("ProjectUser", "VerificationCode"))
    db.execute('UPDATE "ContactChannel" SET "isVerified" = false')
    stamp(db)
    assert rows(db, last.format('"ProjectUser"')) > user
    assert rows(db, last.format('"VerificationCode"')) == code
    user = rows(db, last.format('"ProjectUser"'))
    db.execute('DELETE FROM "ContactChannel"')
    db.execute('UPDATE "Team" SET "displayName" = \'new\'')
    stamp(db)
    assert rows(db, last.format('"ProjectUser"')) > user
    assert rows(db, last.format('"VerificationCode"')) > code
    code = rows(db, last.format('"VerificationCode"'))
    db.execute('DELETE FROM "Team"')
    stamp(db)
    assert rows(db, last.format('"VerificationCode"')) > code


def test_a_second_stamper_waits_and_a_locked_row_is_left_for_later(
    db: Connection, empty_db: str, connect: Callable[..., Connection]
) -> None:
    application = connect(empty_db)
    application.execute('UPDATE "ProjectUser" SET "displayName" = \'in hand\'')
    stamper = connect(empty_db)
    assert stamp(stamper) == 10
    db.execute("SET lock_timeout = '50ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        stamp(db)
    stamper.commit()
    application.commit()
    assert stamp(db) == 1


# ---- tombstones --------------------------------------------------------------------------------------------------


def test_deleting_a_user_leaves_tombstones_of_all_that_went_with_it(db: Connection) -> None:
    stored = rows(db, 'SELECT to_jsonb(u) FROM "ProjectUser" AS u')[0][0]
    db.execute('DELETE FROM "ProjectUser"')
    gone = tombstones(db)
    assert set(gone) == set(KEYS) - {"Team", "EmailOutbox", "ProjectUserRefreshToken"}
    for table, keys in gone.items():
        assert keys == [key_of(table)]
    (tombstone,) = rows(
        db,
        'SELECT "tenancyId", data, "sequenceId", "shouldUpdateSequenceId", "deletedAt" - now() AT TIME ZONE \'UTC\''
        " < interval '1 minute' FROM \"DeletedRow\" WHERE \"tableName\" = 'ProjectUser'",
    )
    assert tombstone == (TENANCY, stored, None, True, True)


def test_every_source_leaves_its_tombstone_on_delete_and_on_truncate(db: Connection) -> None:
    for table in KEYS:
        for statement in ("DELETE FROM {}", "TRUNCATE {} CASCADE"):
            with db.transaction(force_rollback=True):
                db.execute(sql.SQL(statement).format(sql.Identifier(table)))
                assert tombstones(db)[table] == [key_of(table)], statement
                assert rows(db, 'SELECT count(*) FROM "DeletedRow" WHERE data IS NULL') == [(0,)]


def test_truncate_with_cascade_takes_down_the_tables_that_refer(db: Connection) -> None:
    db.execute('TRUNCATE "Team" CASCADE')
    assert set(tombstones(db)) == {"Team", "TeamMember", "TeamMemberDirectPermission"}


def test_a_changed_key_or_tenancy_leaves_a_tombstone_of_the_old(db: Connection) -> None:
    db.execute('UPDATE "ProjectUserDirectPermission" SET "permissionId" = \'write\'')
    db.execute('UPDATE "ProjectUserRefreshToken" SET "tenancyId" = %s', (OTHER_TENANCY,))
    db.execute('UPDATE "ContactChannel" SET value = \'b@example.com\', "tenancyId" = "tenancyId"')
    found = rows(db, 'SELECT "tableName", "primaryKey", "tenancyId" FROM "DeletedRow" ORDER BY 1')
    assert found == [
        (table, key_of(table), TENANCY) for table in ("ProjectUserDirectPermission", "ProjectUserRefreshToken")
    ]


def test_an_invitation_leaves_one_tombstone_for_each_of_its_tenancies(db: Connection) -> None:
    key = {"id": str(IDS["i"])}
    name = "VerificationCode_TEAM_INVITATION"
    both = [(TENANCY, name, key), (OTHER_TENANCY, name, key)]
    query = 'SELECT "tenancyId", "tableName", "primaryKey" FROM "DeletedRow" ORDER BY 1'
    for statement, expected in (
        ('DELETE FROM "VerificationCode"', both),
        ('TRUNCATE "VerificationCode"', both),
        ("UPDATE \"VerificationCode\" SET type = 'PASSWORD_RESET'", both),
        ('UPDATE "VerificationCode" SET "branchId" = \'dev\'', both),
        ('UPDATE "VerificationCode" SET id = gen_random_uuid()', both),
        ('UPDATE "VerificationCode" SET "attemptCount" = 3', []),
    ):
        with db.transaction(force_rollback=True):
            run(db, statement)
            assert rows(db, query) == expected, statement


def test_a_code_without_a_tenancy_or_of_another_type_goes_without_a_trace(db: Connection) -> None:
    db.execute('UPDATE "VerificationCode" SET "projectId" = \'nobody\'; DELETE FROM "DeletedRow"')
    db.execute('DELETE FROM "VerificationCode"')
    run(db, SEED[SEED.index('INSERT INTO "VerificationCode"') :].replace("TEAM_INVITATION", "PASSWORD_RESET"))
    db.execute('DELETE FROM "VerificationCode"')
    assert tombstones(db) == {}


def test_a_role_that_knows_nothing_of_tombstones_can_delete_and_leaves_them(db: Connection, empty_db: str) -> None:
    role = sql.Identifier(f"app_{uuid.uuid4().hex}")
    db.execute(sql.SQL("CREATE ROLE {}").format(role))
    try:
        everything = sql.SQL(", ").join(map(sql.Identifier, SOURCES))
        grant = sql.SQL("GRANT SELECT, UPDATE, DELETE, TRUNCATE ON {} TO {}")
        db.execute(grant.format(everything, role))
        with psycopg.connect(empty_db, autocommit=True) as app:
            app.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(role))
            # A temporary table of that name must not catch the tombstones.
            app.execute('CREATE TEMP TABLE "DeletedRow" (LIKE public."ProjectUser"); SET search_path = pg_temp, public')
            app.execute('DELETE FROM public."ProjectUser"')
            app.execute('UPDATE public."Team" SET "teamId" = gen_random_uuid()')
            app.execute('TRUNCATE public."EmailOutbox"')
            app.execute('DELETE FROM public."VerificationCode"')
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                app.execute(
                    "CREATE TEMP TABLE own (x int); CREATE TRIGGER forge AFTER DELETE ON own FOR EACH ROW"
                    " EXECUTE FUNCTION public.log_deleted_row('x')"
                )
    finally:
        db.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))
    assert {"ProjectUser", "ContactChannel", "Team", "EmailOutbox", "VerificationCode_TEAM_INVITATION"} <= set(
        tombstones(db)
    )
