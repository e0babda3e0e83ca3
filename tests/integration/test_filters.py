"""What is in a copy at all: a mapping's `filter` means one thing, and a tombstone that names no row is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.backend import (
    MINE,
    Connection,
    Project,
    add_invitation,
    add_team,
    add_user,
    comparisons,
    differences,
    fetch,
    no_capture,
    one,
    sequence,
    settle,
    sync,
)

if TYPE_CHECKING:
    import uuid

    from stackctl.sync.pipeline import Pipeline
    from tests.conftest import Connect

PEOPLE = """
name: {name}
source: ProjectUser
target: {name}
key: {{id: projectUserId}}
filter: '"isAnonymous" = {anonymous}'
columns: {{id: uuid, name: text null}}
select: |
  SELECT u."projectUserId" AS id, u."displayName" AS name FROM "ProjectUser" AS u
  WHERE u."tenancyId" = :tenancy_id AND u."isAnonymous" = {anonymous}
"""


@pytest.fixture
def pipeline(project: Project, external_db: str) -> Pipeline:
    folder = project.directory / "mine"
    folder.mkdir()
    (folder / "people.yaml").write_text(PEOPLE.format(name="people", anonymous="false"))
    project.settings["mappings_dir"] = "./mine"
    return project.postgres(MINE, external_db).sqlite(MINE).pipeline()


def change(source: Connection, user: uuid.UUID, **values: Any) -> None:
    for name, value in values.items():
        source.execute(
            f'UPDATE "ProjectUser" SET "{name}" = %s WHERE "projectUserId" = %s',  # type: ignore[arg-type]
            (value, user),
        )


def test_rows_that_enter_and_leave(pipeline: Pipeline, source: Connection, external_db: str, connect: Connect) -> None:
    stays, leaves, enters = add_user(source), add_user(source), add_user(source, isAnonymous=True)
    settle(pipeline)  # by a load
    outside = connect(external_db, autocommit=True)
    assert {row for (row,) in fetch(outside, "SELECT id FROM people")} == {stays, leaves}
    for left, entered in ((leaves, enters), (enters, leaves)):
        change(source, left, isAnonymous=True, displayName="gone")
        change(source, entered, isAnonymous=False)
        settle(pipeline)  # by pages
        assert {row for (row,) in fetch(outside, "SELECT id FROM people")} == {stays, entered}
        assert differences(pipeline) == []
    assert one(source, 'SELECT count(*) FROM "ProjectUser" WHERE "shouldUpdateSequenceId"') == 0
    assert {comparison.equal for comparison in comparisons(pipeline)} == {True}
    sync(pipeline, full=True)
    assert differences(pipeline) == []


def test_two_mappings_share_a_source(
    pipeline: Pipeline, project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    """A row goes from one to the other."""
    (project.directory / "mine" / "guests.yaml").write_text(PEOPLE.format(name="guests", anonymous="true"))
    pipeline = project.pipeline()
    user = add_user(source)
    settle(pipeline)
    outside = connect(external_db, autocommit=True)
    for anonymous, counts in ((True, [(0, 1)]), (False, [(1, 0)])):
        change(source, user, isAnonymous=anonymous)
        settle(pipeline)
        assert fetch(outside, "SELECT (SELECT count(*) FROM people), (SELECT count(*) FROM guests)") == counts
    assert differences(pipeline) == []


def test_a_filter_with_a_name_for_its_deletes_wakes_nobody_for_other_rows(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    team = add_team(source)
    code = add_invitation(source, team)
    settle(pipeline)
    source.execute('DELETE FROM "OutgoingRequest"')
    for _ in range(5):
        add_invitation(source, team, type="PASSWORD_RESET")
    result = sequence(pipeline)
    assert (result.rows, result.touched) == (0, set())
    assert fetch(source, 'SELECT FROM "OutgoingRequest"') == []
    assert one(source, 'SELECT count(*) FROM "VerificationCode" WHERE "shouldUpdateSequenceId"') == 0
    outside = connect(external_db, autocommit=True)
    for kind, count in (("PASSWORD_RESET", 0), ("TEAM_INVITATION", 1)):
        source.execute('UPDATE "VerificationCode" SET type = %s WHERE id = %s', (kind, code))
        settle(pipeline)
        assert len(fetch(outside, "SELECT FROM team_invitations")) == count
        assert differences(pipeline) == []


# -- tombstones that name no row


@pytest.mark.parametrize(
    "key",
    ['{"projectUserId": "no uuid"}', "{}", "[]", "null", '{"projectUserId": null}', '{"projectUserId": {"a": 1}}'],
)
def test_a_tombstone_with_a_malformed_key_deletes_nothing_and_fails_nothing(
    key: str, project: Project, source: Connection, external_db: str
) -> None:
    pipeline = project.postgres(MINE, external_db, mappings=["users"]).sqlite(MINE, mappings=["users"]).pipeline()
    add_user(source)
    gone = add_user(source)
    settle(pipeline)
    source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (gone,))
    source.execute(
        'INSERT INTO "DeletedRow" (id, "tenancyId", "tableName", "primaryKey")'
        " VALUES (gen_random_uuid(), %s, 'ProjectUser', %s::jsonb)",
        (MINE, key),
    )
    # It was rejected before, and is tried again.
    for database in ("analytics", "local"):
        source.execute(
            "INSERT INTO stackctl.refused_row (tenancy_id, database_id, mapping, key, sequence_id, error, tried_at)"
            " VALUES (%s, %s, 'users', '[\"no uuid\"]', 1, 'invalid', now() - interval '1 day')",
            (MINE, database),
        )
    for _ in range(2):
        settle(pipeline)
    assert fetch(source, "SELECT * FROM stackctl.refused_row") == []
    assert differences(pipeline) == []
    outcome = project.run("status", "--check", "--json")
    assert outcome.code == 0, outcome.stdout


@pytest.mark.parametrize("spelled", ["{}", "{{{}}}", "upper", "hex"])
def test_a_key_in_any_spelling_that_the_server_takes(
    spelled: str, project: Project, source: Connection, external_db: str
) -> None:
    pipeline = project.postgres(MINE, external_db, mappings=["users"]).pipeline()
    user = add_user(source)
    settle(pipeline)
    with no_capture(source, "ProjectUser"):
        source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (user,))
    key = {"upper": str(user).upper(), "hex": user.hex}.get(spelled, spelled.format(user))
    source.execute(
        'INSERT INTO "DeletedRow" (id, "tenancyId", "tableName", "primaryKey")'
        " VALUES (gen_random_uuid(), %s, 'ProjectUser', jsonb_build_object('projectUserId', %s::text))",
        (MINE, key),
    )
    settle(pipeline)
    assert differences(pipeline) == []
