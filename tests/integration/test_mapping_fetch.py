"""The compiled statements of the bundled mappings on a migrated database."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg
import pytest
from psycopg.types.json import Jsonb

from stackctl.core.bundled import find_bundled
from stackctl.mapping import files
from stackctl.mapping.check import check_mappings
from stackctl.mapping.compile import compile_mapping
from stackctl.migrate.folder import discover
from stackctl.migrate.runner.run import apply_migrations

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Connection = psycopg.Connection[Any]
MAPPINGS = files.load_mappings(find_bundled("mappings")).mappings
MINE, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
IDS = {"mine": MINE, "other": OTHER}
SEED = """
INSERT INTO "Project" (id, "updatedAt", "displayName", "isProductionMode") VALUES ('p', now(), 'P', false);
INSERT INTO "Tenancy" (id, "updatedAt", "projectId", "branchId", "hasNoOrganization")
VALUES ('00000000-0000-0000-0000-000000000001', now(), 'p', 'main', 'TRUE'),
       ('00000000-0000-0000-0000-000000000002', now(), 'p', 'other', 'TRUE');
SET session_replication_role = replica;
"""
TRIGGERS_OFF = """
DO $$ DECLARE own regclass; BEGIN
  FOR own IN SELECT DISTINCT tgrelid FROM pg_trigger WHERE NOT tgisinternal LOOP
    EXECUTE format('ALTER TABLE %s DISABLE TRIGGER USER', own);
  END LOOP;
END $$
"""


@pytest.fixture
def db(empty_db: str, connect: Callable[..., Connection]) -> Connection:
    """A migrated database with two tenancies; no trigger fires, so that tests set every stamp themselves."""
    conn = connect(empty_db, autocommit=True)
    apply_migrations(conn, discover(find_bundled("migrations")))
    conn.execute(SEED)
    conn.execute(TRIGGERS_OFF)
    return conn


def user(conn: Connection, number: int, sequence: int | None, tenancy: uuid.UUID = MINE) -> None:
    conn.execute(
        'INSERT INTO "ProjectUser" ("projectUserId", "updatedAt", "displayName", "tenancyId", "mirroredBranchId",'
        ' "mirroredProjectId", "sequenceId", "shouldUpdateSequenceId") VALUES (%s, now(), %s, %s, %s, %s, %s, %s)',
        (uuid.UUID(int=number), f"u{number}", tenancy, str(tenancy), "p", sequence, sequence is None),
    )


def tombstone(conn: Connection, table: str, key: dict[str, int], sequence: int, tenancy: uuid.UUID = MINE) -> None:
    primary = {name: str(uuid.UUID(int=value)) for name, value in key.items()}
    conn.execute(
        'INSERT INTO "DeletedRow" (id, "tenancyId", "tableName", "sequenceId", "primaryKey", "shouldUpdateSequenceId")'
        " VALUES (gen_random_uuid(), %s, %s, %s, %s, false)",
        (tenancy, table, sequence, Jsonb(primary)),
    )


def run(conn: Connection, name: str, what: str = "fetch", cursor: int = -1, limit: int = 100) -> list[tuple[Any, ...]]:
    text = cast("LiteralString", getattr(compile_mapping(MAPPINGS[name], "postgres"), what))
    values = {"tenancy_id": MINE, "cursor": cursor, "limit": limit}
    return sorted(conn.execute(text, values).fetchall(), key=str)


def test_bundled_mappings_fit_the_database(db: Connection) -> None:
    assert check_mappings(files.list_mapping_files(find_bundled("mappings")), catalog=db) == ()


def test_changed_deleted_recreated_and_foreign_rows(db: Connection) -> None:
    user(db, 1, 10)
    user(db, 2, 20)
    user(db, 3, None)
    user(db, 8, 30, OTHER)
    tombstone(db, "ProjectUser", {"projectUserId": 2}, 40)  # re-created: its row is there
    tombstone(db, "ProjectUser", {"projectUserId": 4}, 50)
    tombstone(db, "ProjectUser", {"projectUserId": 1}, 60, OTHER)
    tombstone(db, "Team", {"teamId": 1}, 70)
    got = {row[2].int: (row[0], row[1], row[3]) for row in run(db, "users")}
    assert got == {1: (10, False, "u1"), 2: (40, False, "u2"), 4: (50, True, None)}
    assert len(run(db, "users")) == 3  # user 2 once
    assert run(db, "users", "high_water") == [(50,)]
    assert run(db, "users", "backlog", cursor=20) == [(3,)]  # two tombstones, and the row never stamped
    assert run(db, "users", "oldest_unsent", cursor=20) == [(40,)]
    assert run(db, "users", "oldest_unsent", cursor=50) == [(None,)]


def test_page_ends_where_its_cursor_is_safe(db: Connection) -> None:
    for number in range(1, 6):
        user(db, number, number * 10)
        tombstone(db, "ProjectUser", {"projectUserId": number + 100}, number * 10 + 5)
    seen: list[int] = []
    cursor = -1
    while page := run(db, "users", cursor=cursor, limit=3):
        seen += [row[0] for row in page]
        cursor = max(row[0] for row in page)
    assert sorted(seen) == [10, 15, 20, 25, 30, 35, 40, 45, 50, 55]


def test_load_equals_fetch_of_everything(db: Connection) -> None:
    for number in range(1, 6):
        user(db, number, number * 10)
    assert run(db, "users", "load") == sorted((row[2:] for row in run(db, "users")), key=str)


def test_window_yields_what_a_load_does_in_order_of_ids(db: Connection) -> None:
    for number, sequence in ((1, 30), (2, 10), (3, None), (4, 20), (5, 40)):
        user(db, number, sequence)
    user(db, 6, 15, OTHER)
    values = {"tenancy_id": MINE, "cursor": 10, "up_to": 30}
    for mapping in MAPPINGS.values():
        found = db.execute(cast("LiteralString", compile_mapping(mapping, "postgres").load_window), values).fetchall()
        if mapping.name == "users":
            assert [row[:2] for row in found] == [(20, uuid.UUID(int=4)), (30, uuid.UUID(int=1))]
            assert sorted(row[1:] for row in found) == [row for row in run(db, "users", "load") if row[0].int in (1, 4)]


def test_row_leaves_the_select(db: Connection) -> None:
    account = uuid.UUID(int=5)
    db.execute(
        'INSERT INTO "ProjectUserOAuthAccount" ("projectUserId", "updatedAt", "providerAccountId", "tenancyId",'
        ' "configOAuthProviderId", id, "sequenceId", "shouldUpdateSequenceId")'
        " VALUES (%s, now(), 'a', %s, 'github', %s, 10, false)",
        (uuid.UUID(int=1), MINE, account),
    )
    assert run(db, "connected_accounts")[0][:3] == (10, False, account)
    db.execute('UPDATE "ProjectUserOAuthAccount" SET "projectUserId" = NULL, "sequenceId" = 20')
    assert run(db, "connected_accounts")[0][:3] == (20, True, account)


@pytest.mark.parametrize(
    ("team", "deleted"),
    [(str(uuid.UUID(int=7)), False), (str(uuid.UUID(int=9)), True), ("not-a-uuid", True), (None, True)],
)
def test_invitation(db: Connection, team: str | None, deleted: bool) -> None:
    db.execute(
        'INSERT INTO "Team" ("teamId", "updatedAt", "displayName", "tenancyId", "mirroredBranchId",'
        " \"mirroredProjectId\") VALUES (%s, now(), 'Team', %s, 'main', 'p')",
        (uuid.UUID(int=7), MINE),
    )
    for number, kind, branch in (
        (1, "TEAM_INVITATION", "main"),
        (2, "PASSWORD_RESET", "main"),
        (3, "TEAM_INVITATION", "other"),
    ):
        db.execute(
            'INSERT INTO "VerificationCode" ("projectId", "branchId", id, "updatedAt", type, code, "expiresAt", data,'
            ' method, "sequenceId", "shouldUpdateSequenceId") VALUES (\'p\', %s, %s, now(), %s, %s,'
            " '1970-01-02 00:00:00.123', %s, %s, %s, false)",
            (branch, uuid.UUID(int=number), kind, str(number), Jsonb({"team_id": team}),
             Jsonb({"email": "a@example.com"}), number),
        )  # fmt: skip
    (row,) = run(db, "team_invitations")
    assert row[:3] == (1, deleted, uuid.UUID(int=1))
    if not deleted:
        assert row[3:7] == (uuid.UUID(int=7), "Team", "a@example.com", 86_400_123)


def test_deep_page_reads_no_table_whole(db: Connection) -> None:
    """Whether the planner knows the tables or not."""
    db.execute(
        'INSERT INTO "ProjectUser" ("projectUserId", "updatedAt", "tenancyId", "mirroredBranchId", "mirroredProjectId",'
        ' "sequenceId", "shouldUpdateSequenceId")'
        " SELECT gen_random_uuid(), now(), %(mine)s, 'main', 'p', n, false FROM generate_series(1, 50000) AS n",
        IDS,
    )
    db.execute(
        'INSERT INTO "ContactChannel" (id, "projectUserId", "updatedAt", type, "isPrimary", "isVerified", value,'
        ' "tenancyId", "sequenceId", "shouldUpdateSequenceId") SELECT gen_random_uuid(), "projectUserId", now(),'
        ' \'EMAIL\', \'TRUE\', true, "sequenceId"::text, "tenancyId", "sequenceId", false FROM "ProjectUser"'
    )
    # Channels that came from another user, and some that are gone.
    db.execute(
        'INSERT INTO "DeletedRow" (id, "tenancyId", "tableName", "primaryKey", "sequenceId", "shouldUpdateSequenceId")'
        " SELECT gen_random_uuid(), \"tenancyId\", 'ContactChannel', jsonb_build_object('projectUserId',"
        " gen_random_uuid(), 'id', CASE WHEN n < 100 THEN id ELSE gen_random_uuid() END), 60000 + n, false"
        ' FROM (SELECT *, row_number() OVER () AS n FROM "ContactChannel" LIMIT 300) AS c'
    )
    for analyzed in (False, True):
        if analyzed:
            db.execute("ANALYZE")
        for name in ("users", "contact_channels"):
            assert count_read(db, name) <= 6000, (name, analyzed)


def count_read(db: Connection, name: str) -> int:
    """How many rows of one table a page deep in the mapping reads at the most; no table is read whole."""
    fetch = compile_mapping(MAPPINGS[name], "postgres").fetch
    explain = cast("LiteralString", f"EXPLAIN (ANALYZE, FORMAT JSON) {fetch}")
    row = db.execute(explain, {"tenancy_id": MINE, "cursor": 49_200, "limit": 1000}).fetchone()
    assert row is not None
    waiting, read = [row[0][0]["Plan"]], 0
    while waiting:
        node = waiting.pop()
        waiting += node.get("Plans", [])
        if "Relation Name" in node:
            assert node["Node Type"] != "Seq Scan" or node["Relation Name"] == "DeletedRow"
            read = max(read, node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0))
    return read


def test_catalog_findings_have_their_place(db: Connection, tmp_path: Path) -> None:
    text = (find_bundled("mappings") / "teams.yaml").read_text(encoding="utf-8")
    for old, new, rule in (
        ("source: Team", "source: Teem", "unknown-source"),
        ("{id: teamId}", "{id: teamID}", "unknown-column"),
        ('t."createdAt" AS', 't."created" AS', "server"),
        ("created_at: timestamp", "created_at: bigint", "column-type"),
    ):
        path = tmp_path / "teams.yaml"
        changed = text.replace(old, new).replace('FROM "Team"', 'FROM "Teem"' if "Teem" in new else 'FROM "Team"')
        path.write_text(changed, encoding="utf-8")
        (finding,) = check_mappings([path], catalog=db)
        line = changed.splitlines()[finding.line - 1]
        assert finding.rule == rule
        assert line[finding.column - 1 :].startswith((new, new.split(": ")[-1], new.split(": ")[-1].rstrip("}")))
