"""Rows that depend on others: a reference that changes or goes is news to the row that it led to before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString, cast

import pytest

from stackctl.core.errors import ConfigError
from stackctl.sync.changes import sequencer
from tests.backend import (
    MINE,
    OTHER,
    Connection,
    Project,
    add_account,
    add_team,
    add_user,
    differences,
    fetch,
    insert,
    no_capture,
    populate,
    sequence,
    settle,
    sync,
)

if TYPE_CHECKING:
    from tests.conftest import Connect

USERS = """
name: users
source: ProjectUser
target: users
key: {{id: projectUserId}}
columns: {{id: uuid, many: bigint}}
select: |
  SELECT u."projectUserId" AS id, a.many AS many
  FROM "ProjectUser" AS u
  LEFT JOIN LATERAL (
    SELECT count(*) AS many FROM "{table}" AS x WHERE x."tenancyId" = u."tenancyId" AND x."{column}" = u."projectUserId"
  ) AS a ON TRUE
  WHERE u."tenancyId" = :tenancy_id
depends_on:
  {table}: {{{column}: projectUserId}}
"""


def configure(project: Project, external_db: str, table: str, column: str) -> Project:
    folder = project.directory / "mine"
    folder.mkdir()
    (folder / "users.yaml").write_text(USERS.format(table=table, column=column))
    project.settings["mappings_dir"] = "./mine"
    return project.postgres(MINE, external_db)


def counts(conn: Connection) -> list[int]:
    return [many for (many,) in fetch(conn, "SELECT many FROM users ORDER BY many")]


def test_a_row_that_leaves_its_owner_without_leaving_its_key(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    pipeline = configure(project, external_db, "ProjectUserOAuthAccount", "projectUserId").pipeline()
    first, second = add_user(source), add_user(source)
    account, _ = add_account(source, first), add_account(source, first)
    settle(pipeline)
    outside = connect(external_db, autocommit=True)
    assert counts(outside) == [0, 2]
    move = 'UPDATE "ProjectUserOAuthAccount" SET "projectUserId" = %s WHERE id = %s'
    for owner, expected in ((second, [1, 1]), (None, [0, 1]), (first, [0, 2])):
        source.execute(move, (owner, account))
        settle(pipeline)
        assert counts(outside) == expected
    assert differences(pipeline) == []


@pytest.mark.parametrize("table", ["UserNotificationPreference", "ProjectUserRefreshToken", "ProjectUserOAuthAccount"])
def test_the_bundled_copies_of_a_row_that_changes_its_owner(
    table: str, project: Project, source: Connection, external_db: str
) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    populate(source)
    other = add_user(source)
    settle(pipeline)
    source.execute(cast("LiteralString", f'UPDATE "{table}" SET "projectUserId" = %s'), (other,))
    sequence(pipeline)
    assert [result.error for result in sync(pipeline, batch_size=1)] == [None]
    assert differences(pipeline) == []


def test_a_reference_that_nothing_records_is_refused_with_the_trigger_that_does(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    source.execute('ALTER TABLE "Team" ADD "ownerId" uuid')
    pipeline = configure(project, external_db, "Team", "ownerId").pipeline()
    outcome = project.run("mappings", "check", "--json")
    (finding,) = outcome.json["findings"]
    assert (outcome.code, finding["rule"], finding["line"]) == (1, "unrecorded-reference", 15)
    with pytest.raises(ConfigError) as raised:
        sequence(pipeline)
    assert raised.value.hint == finding["suggestion"]
    source.execute(finding["suggestion"])
    assert project.run("mappings", "check").code == 0
    first, second = add_user(source), add_user(source)
    team = add_team(source, ownerId=first)
    settle(pipeline)
    outside = connect(external_db, autocommit=True)
    for owner, expected in ((second, [0, 1]), (None, [0, 0]), (first, [0, 1])):
        source.execute('UPDATE "Team" SET "ownerId" = %s WHERE "teamId" = %s', (owner, team))
        settle(pipeline)
        assert counts(outside) == expected
        assert differences(pipeline) == []


@pytest.mark.parametrize("state", ["DISABLE TRIGGER log_moved_reference", "ENABLE REPLICA TRIGGER log_moved_reference"])
def test_a_trigger_that_is_switched_off_records_nothing(
    state: str, project: Project, source: Connection, external_db: str
) -> None:
    configure(project, external_db, "ProjectUserOAuthAccount", "projectUserId").write()
    assert project.run("mappings", "check").code == 0
    source.execute(cast("LiteralString", f'ALTER TABLE "ProjectUserOAuthAccount" {state}'))
    assert "unrecorded-reference" in project.run("mappings", "check", "--json").stdout


def test_where_the_application_records_it_is_warned(project: Project, source: Connection, external_db: str) -> None:
    configure(project, external_db, "ProjectUserOAuthAccount", "projectUserId").write()
    source.execute("DROP FUNCTION log_moved_row CASCADE")
    outcome = project.run("mappings", "check", "--json")
    assert [finding["severity"] for finding in outcome.json["findings"]] == ["warning"]
    assert project.run("sequence").code == 0


def test_a_dependency_without_a_tenancy_is_refused(project: Project, source: Connection, external_db: str) -> None:
    configure(project, external_db, "VerificationCode", "id").write()
    outcome = project.run("mappings", "check", "--json")
    assert ("unknown-column", "VerificationCode has no column tenancyId") in [
        (finding["rule"], finding["message"]) for finding in outcome.json["findings"]
    ]


def test_a_stamped_tombstone_keeps_the_key_of_its_row_and_nothing_else(project: Project, source: Connection) -> None:
    """Stamped by the sequencer, or by the backend's function and emptied by the sweep, some at a time."""
    holding = 'SELECT count(*) FROM "DeletedRow" WHERE data IS NOT NULL'
    sequence(project.pipeline())
    for _ in range(4):
        populate(source)
    source.execute('DELETE FROM "ProjectUser"')
    many = fetch(source, holding)[0][0]
    assert many > 4
    with source.transaction(force_rollback=True):
        source.execute("SELECT backfill_null_sequence_ids(1000)")
        assert fetch(source, holding) == [(many,)]
        stamps = fetch(source, 'SELECT id, "sequenceId", "primaryKey" FROM "DeletedRow" ORDER BY 1')
        source.execute('UPDATE "DeletedRow" SET "shouldUpdateSequenceId" = true WHERE "tableName" = \'ProjectUser\'')
        for left in (many - 3, many - 6):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sequencer, "EMPTIED_AT_ONCE", 3)
                sequencer.prune_stamps(source)
            assert fetch(source, holding) == [(left,)]
        sequencer.prune_stamps(source)
        assert fetch(source, holding) == [(4,)]  # those that wait for their stamp
        assert fetch(source, 'SELECT id, "sequenceId", "primaryKey" FROM "DeletedRow" ORDER BY 1') == stamps
    sequence(project.pipeline())
    assert fetch(source, holding) == [(0,)]


# -- invitations, which reach their tenancies through project and branch


def add_branch(source: Connection, invitations: int) -> None:
    for number in range(invitations):
        insert(source, "VerificationCode",
               {"projectId": "p", "branchId": "new", "id": f"00000000-0000-0000-0000-{number:012}", "updatedAt": "now",
                "code": str(number), "type": "TEAM_INVITATION", "expiresAt": "2030-01-01",
                "data": {"team_id": str(fetch(source, 'SELECT "teamId" FROM "Team"')[0][0])},
                "method": {"email": "guest@example.com"}})  # fmt: skip


def invitations(conn: Connection) -> int:
    return len(fetch(conn, "SELECT id FROM team_invitations"))


def test_a_tenancy_that_moves_gains_the_invitations_of_where_it_comes_to(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    populate(source)
    settle(pipeline)
    add_branch(source, 2)
    settle(pipeline)
    outside = connect(external_db, autocommit=True)
    assert invitations(outside) == 1
    source.execute('UPDATE "Tenancy" SET "branchId" = \'new\' WHERE id = %s', (MINE,))
    settle(pipeline)
    assert (invitations(outside), differences(pipeline)) == (2, [])
    row = fetch(source, 'SELECT to_jsonb(t) FROM "Tenancy" AS t WHERE id = %s', MINE)[0][0]
    source.execute('DELETE FROM "EmailOutbox"')
    source.execute('DELETE FROM "Tenancy" WHERE id = %s', (MINE,))
    sequence(pipeline)
    come_back(source, row)
    settle(pipeline)
    assert (invitations(outside), differences(pipeline)) == (2, [])


def come_back(source: Connection, row: dict[str, Any]) -> None:
    insert(source, "Tenancy", {name: value for name, value in row.items() if value is not None})


@pytest.mark.parametrize("statement", ['TRUNCATE "Tenancy" CASCADE', 'TRUNCATE "Project" CASCADE'])
def test_truncated_tenancies_take_their_invitations_along(
    statement: LiteralString, project: Project, source: Connection
) -> None:
    populate(source)
    populate(source, OTHER)
    sequence(project.pipeline())
    source.execute(statement)
    gone = (
        'SELECT count(DISTINCT "tenancyId") FROM "DeletedRow" WHERE "tableName" = \'VerificationCode_TEAM_INVITATION\''
    )
    assert fetch(source, gone) == [(2,)]


# -- sessions in which ordinary triggers do not fire


def test_changes_of_a_session_that_plays_the_replica_are_captured(
    project: Project, source: Connection, external_db: str
) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    made = populate(source)
    settle(pipeline)
    source.execute("SET session_replication_role = replica")
    source.execute('DELETE FROM "ProjectUserOAuthAccount" WHERE id = %s', (made.account,))
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'new\'')
    source.execute('UPDATE "ContactChannel" SET id = gen_random_uuid()')
    source.execute('TRUNCATE "EmailOutbox"')
    source.execute("RESET session_replication_role")
    settle(pipeline)
    assert differences(pipeline) == []


def test_doctor_names_the_triggers_that_do_not_fire(project: Project, source: Connection) -> None:
    assert problems(project, "warning", "error") == ""
    source.execute('ALTER TABLE "Team" ENABLE TRIGGER log_moved_row')
    assert 'ALTER TABLE "Team" ENABLE ALWAYS TRIGGER log_moved_row' in problems(project, "warning")
    for state in ("DISABLE", "ENABLE REPLICA"):
        source.execute(cast("LiteralString", f'ALTER TABLE "Tenancy" {state} TRIGGER log_truncated_tenancies'))
        found = problems(project, "error")
        assert '"Tenancy" (log_truncated_tenancies)' in found
        assert 'ALTER TABLE "Tenancy" ENABLE ALWAYS TRIGGER log_truncated_tenancies' in found
    with no_capture(source, "ProjectUser"):
        found = problems(project, "error")
    for name in ("log_deleted_row", "log_moved_row", "log_truncated_rows", "reset_sequence_id_on_update"):
        assert name in found


def problems(project: Project, *statuses: str) -> str:
    checks = project.run("doctor", "--json").json["checks"]
    return "\n".join(
        f"{check['message']} {check['hint']}"
        for check in checks
        if check["name"] == "capture" and check["status"] in statuses
    )
